//! Taker and maker as clients start and see them, with roles that do what the test says (`spec/api.md` 6.16 to 6.18,
//! 14.9, App. C 1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use joinery_api::{MakerRun, RoleRunner, TakerRun};
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::NickKey;
use joinery_roles::maker::{MakerEnd, MakerProblem, MakerState, OfferView};
use joinery_roles::taker::{
    Destination, FeeProgress, MakerFailure, MakerProgress, MakerStep, Outcome, Phase, Progress,
    Reason, Verdict,
};
use serde_json::{Value, json};

use crate::money::funded;

/// Keeps what it is asked to run.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) takers: Mutex<Vec<TakerRun>>,
    makers: Mutex<Vec<MakerRun>>,
}

impl RoleRunner for Recorder {
    fn taker(&self, run: TakerRun) {
        self.takers.lock().unwrap().push(run);
    }

    fn maker(&self, run: MakerRun) {
        self.makers.lock().unwrap().push(run);
    }
}

pub(crate) fn coinjoin() -> Value {
    json!({"mixdepth": "0", "amount_sats": "500000", "counterparties": "3", "destination": "INTERNAL"})
}

fn nick(number: u8) -> Nick {
    NickKey::new(SecretKey::from_slice(&[number; 32]).unwrap()).nick()
}

fn progress() -> Progress {
    let maker = |number, step| MakerProgress { nick: nick(number), fee: 150, step };
    let failure = MakerFailure { code: "timed_out", text: "no answer in time".to_owned() };
    Progress {
        phase: Phase::Filling,
        attempt: 1,
        attempts: 3,
        round: None,
        deadline: Some(Duration::from_secs(70)),
        amount: Some(500_000),
        makers: vec![
            maker(1, MakerStep::Ready),
            maker(2, MakerStep::Asked),
            maker(3, MakerStep::Dropped(failure)),
        ],
        fees: Some(FeeProgress { rate: 2_000, coinjoin_fee: 450, miner_fee: 900, limit: 5_000 }),
        txid: None,
        last: None,
        stopping: false,
    }
}

fn outcome(reason: Reason) -> Outcome {
    Outcome {
        verdict: Verdict::new(reason, "too few makers answered"),
        txid: None,
        transaction: None,
        sums: None,
        rounds: Vec::new(),
        attempts: 1,
        failed: BTreeMap::default(),
        honest: Vec::new(),
    }
}

#[tokio::test]
async fn a_coinjoin_is_started_shown_and_ended() {
    let (rig, _chain, login) = funded().await;
    let recorder = Arc::new(Recorder::default());
    rig.app.set_roles(recorder.clone());
    for (field, value) in
        [("max_cj_fee_abs", "5000"), ("max_cj_fee_rel", "3e-4"), ("taker_utxo_age", "1")]
    {
        let body = json!({"section": "POLICY", "field": field, "value": value});
        rig.wallet_post(&login, "/configset", &body).await.expect(200);
    }
    // What cannot work is refused at once, with the reason, and starts nothing.
    let mut dear = coinjoin();
    dear["amount_sats"] = json!(90_000_000_000_u64);
    let refused = rig.wallet_post(&login, "/taker/coinjoin", &dear).await;
    refused.expect(409);
    assert_eq!(refused.json()["error_code"], "insufficient_funds");
    let mut dust = coinjoin();
    dust["amount_sats"] = json!(27_299);
    let refused = rig.wallet_post(&login, "/taker/coinjoin", &dust).await;
    assert_eq!((refused.expect(409), &refused.json()["error_code"]), ((), &json!("bad_amount")));
    assert_eq!(rig.app.activity().coinjoin_state(), 2);

    let reply = rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await;
    reply.expect(202);
    assert_eq!(reply.json(), json!({}));
    assert_eq!(rig.app.activity().coinjoin_state(), 0);
    rig.wallet_post(&login, "/taker/coinjoin", &coinjoin())
        .await
        .expect_error(401, "Service already started.");
    let run = recorder.takers.lock().unwrap().pop().unwrap();
    assert_eq!((run.request.amount, run.request.counterparties), (500_000, 3));
    assert_eq!(run.request.destination, Destination::Internal);
    assert_eq!(run.policy.fee_limits.absolute, 5_000);
    assert_eq!(run.policy.commitment.age, 1);

    run.desk.progress(progress(), Duration::from_secs(10));
    let status = rig.wallet_get(&login, "/taker/status").await.json();
    assert_eq!((&status["status"], &status["phase"]), (&json!("running"), &json!("fill")));
    assert_eq!(
        ["makers_asked", "makers_answered", "makers_dropped"].map(|key| status[key].clone()),
        [json!(3), json!(1), json!(1)]
    );
    assert_eq!(status["makers"][2]["dropped"]["reason"], "timed_out");
    assert_eq!(status["fees"]["limit"], 5_000);
    let left = status["deadline_seconds"].as_u64().unwrap();
    assert!((50..=60).contains(&left), "{left}");

    run.desk.finished(outcome(Reason::NotEnoughMakers));
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
    let status = rig.wallet_get(&login, "/taker/status").await.json();
    assert_eq!(
        (&status["status"], &status["reason"]),
        (&json!("failed"), &json!("not_enough_makers"))
    );
    assert_eq!(status["error"], "too few makers answered");

    // One whose task dies without a word is over, too.
    rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await.expect(202);
    drop(recorder.takers.lock().unwrap().pop().unwrap());
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
    let status = rig.wallet_get(&login, "/taker/status").await.json();
    assert_eq!((&status["status"], &status["reason"]), (&json!("failed"), &json!("internal")));

    // A person stops it: the state is idle at once, and the role hears of it.
    rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await.expect(202);
    let run = recorder.takers.lock().unwrap().pop().unwrap();
    rig.wallet_get(&login, "/taker/stop").await.expect(202);
    assert!(run.desk.stopped().is_cancelled());
    let status = rig.wallet_get(&login, "/taker/status").await.json();
    assert_eq!(status["status"], "cancelled");
    // What an old one says afterwards is not taken for the new one's word.
    rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await.expect(202);
    run.desk.progress(progress(), Duration::ZERO);
    run.desk.finished(outcome(Reason::Stopped));
    let status = rig.wallet_get(&login, "/taker/status").await.json();
    assert_eq!((&status["status"], &status["phase"]), (&json!("running"), &Value::Null));
    assert_eq!(rig.wallet_get(&login, "/rounds").await.json(), json!({"rounds": []}));
}

#[tokio::test]
async fn a_maker_is_started_shown_and_ended() {
    let (rig, _chain, login) = funded().await;
    let recorder = Arc::new(Recorder::default());
    rig.app.set_roles(recorder.clone());
    let terms = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
        "ordertype": "sw0reloffer", "minsize": "100000"});
    rig.wallet_post(&login, "/maker/start", &terms).await.expect(202);
    assert_eq!(rig.app.activity().coinjoin_state(), 1);
    let session = rig.session(&login).await;
    assert_eq!((&session["maker_running"], &session["offer_list"]), (&json!(true), &Value::Null));
    let run = recorder.makers.lock().unwrap().pop().unwrap();
    assert_eq!(run.terms.min_size, 100_000);
    let offer = OfferView {
        oid: 0,
        ordertype: "sw0reloffer",
        minsize: 100_000,
        maxsize: 2_000_000,
        txfee: 0,
        cjfee: "0.0003".to_owned(),
    };
    let problem = MakerProblem { code: "chain", text: "the server was away".to_owned() };
    let state = MakerState {
        nick: nick(1),
        offers: vec![offer],
        bond: None,
        sessions_open: 2,
        signed: 1,
        directories_up: 3,
        reachable: true,
        last_error: Some(problem),
        stopping: false,
    };
    run.desk.state(Arc::new(state));
    let session = rig.session(&login).await;
    assert_eq!(
        session["offer_list"],
        json!([{"oid": 0, "ordertype": "sw0reloffer", "minsize": 100_000, "maxsize": 2_000_000,
            "txfee": 0, "cjfee": "0.0003"}])
    );
    assert_eq!(session["nickname"], nick(1).to_string());
    assert_eq!(session["maker_last_error"], "the server was away");
    // What stands in the way of takers comes first.
    run.desk.reach().trouble(Some("Tor cannot be reached"));
    assert_eq!(rig.session(&login).await["maker_last_error"], "Tor cannot be reached");
    // Without a token nothing of it is told.
    let public = rig.get("/api/v1/session").send().await.json();
    for key in ["offer_list", "nickname", "maker_reachable", "maker_last_error"] {
        assert_eq!(public[key], Value::Null, "{key}");
    }
    run.desk.finished(&MakerEnd::Storage("no space".to_owned()));
    let session = rig.session(&login).await;
    assert_eq!((&session["maker_running"], &session["offer_list"]), (&json!(false), &Value::Null));
    assert!(session["maker_last_error"].as_str().unwrap().contains("no space"));
}
