//! What has to be approved at the box: every answer that a client can get, and what is bound to a press.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use joinery_api::{ApiConfig, Asked, ConsentRules, Payment, PendingRequest, Role, Seat};
use joinery_roles::taker::Destination;
use joinery_wallet::bitcoin::Amount;
use joinery_wallet::chain::NoServer;
use joinery_wallet::types::Network;
use serde_json::{Value, json};

use crate::fake_chain::FakeChain;
use crate::money::{ELSEWHERE, coins, fund, payment, script_of};
use crate::rig::{Login, PASSWORD, PATIENCE, Reply, Rig, WALLET, until};
use crate::roles::{Recorder, coinjoin};

const CLIENT: &str = "192.168.178.20";

/// Everything is to be approved, payments above 10 000 satoshi.
fn rules() -> ConsentRules {
    ConsentRules {
        unlock: true,
        send: true,
        send_above: Amount::from_sat(10_000),
        ..ConsentRules::default()
    }
}

fn strict(config: &mut ApiConfig) {
    config.consent = rules();
}

fn rig_with(change: impl FnOnce(&mut ApiConfig)) -> Rig {
    Rig::with(Network::Regtest, Arc::new(NoServer::default()), change)
}

/// A wallet with 1 000 000 and 2 000 000 satoshi in mixdepth 0, and a board with a panel.
async fn funded() -> (Rig, Arc<FakeChain>, Login, Seat) {
    let (_, chain) = Rig::on_chain();
    let rig = Rig::with(Network::Regtest, chain.clone(), strict);
    let login = rig.recover().await;
    fund(&rig, &chain, &login, 0, &[1_000_000, 2_000_000]).await;
    let seat = board(&rig);
    (rig, chain, login, seat)
}

/// A board with a panel.
fn board(rig: &Rig) -> Seat {
    let seat = rig.app.consent().seat().unwrap();
    seat.panel(true);
    seat
}

/// What the panel shows, once it shows something.
async fn shown(rig: &Rig) -> Arc<PendingRequest> {
    let mut pending = rig.app.consent().pending();
    let shown = tokio::time::timeout(PATIENCE, pending.wait_for(Option::is_some)).await;
    shown.expect("a request is shown").unwrap().clone().unwrap()
}

fn nothing_is_shown(rig: &Rig) -> bool {
    rig.app.consent().pending().borrow().is_none()
}

fn shown_payment(request: &PendingRequest) -> Payment {
    match &request.asked {
        Asked::Send(payment) => (**payment).clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn expect_refusal(reply: &Reply, code: &str) {
    reply.expect(409);
    assert_eq!(reply.json()["error_code"], code, "{}", reply.json());
    assert!(reply.message().ends_with('.'));
}

async fn unlock(rig: &Rig) -> Reply {
    let path = format!("/api/v1/wallet/{WALLET}/unlock");
    rig.post(path, &json!({"password": PASSWORD})).peer(CLIENT).send().await
}

/// A locked wallet on a box that asks.
async fn locked() -> Rig {
    let rig = rig_with(strict);
    let login = rig.create().await;
    rig.wallet_get(&login, "/lock").await.expect(200);
    rig
}

async fn is_open(rig: &Rig) -> bool {
    rig.get("/api/v1/session").send().await.json()["session"] == true
}

#[tokio::test]
async fn an_unlock_waits_for_the_press_after_the_password_was_right() {
    let rig = locked().await;
    let seat = board(&rig);
    let wrong = rig.unlock(WALLET, "wrong").await;
    wrong.expect_error(401, "Invalid credentials.");
    assert!(nothing_is_shown(&rig), "nobody is asked about a wrong password");
    let press = async {
        let request = shown(&rig).await;
        assert_eq!(request.asked, Asked::Unlock { wallet: WALLET.to_owned() });
        assert_eq!(request.from, Some(CLIENT.parse::<IpAddr>().unwrap()));
        assert!(request.id.starts_with("unlock-") && request.id.len() <= 64);
        assert!(!is_open(&rig).await);
        // The box can be used meanwhile.
        rig.unlock("other.jmdat", PASSWORD).await.expect(404);
        assert!(seat.approve(&request.id));
    };
    let (reply, ()) = tokio::join!(unlock(&rig), press);
    reply.expect(200);
    let login = Login::of(&reply.json());
    assert_eq!(rig.session(&login).await["wallet_name"], WALLET);

    // Another browser logs in to the open wallet: that is an unlock, too.
    let refuse = async { assert!(seat.refuse(&shown(&rig).await.id)) };
    let (reply, ()) = tokio::join!(unlock(&rig), refuse);
    expect_refusal(&reply, "approval_refused");
    assert_eq!(rig.session(&login).await["session"], true, "the first one stays");
    let press = async { assert!(seat.approve(&shown(&rig).await.id)) };
    let (reply, ()) = tokio::join!(unlock(&rig), press);
    rig.session(&Login::of(&reply.json())).await;
    rig.session(&login).await;
}

#[tokio::test]
async fn an_unlock_that_is_not_approved_opens_nothing() {
    let rig = locked().await;
    expect_refusal(&unlock(&rig).await, "approval_no_board");
    let seat = rig.app.consent().seat().unwrap();
    expect_refusal(&unlock(&rig).await, "approval_no_panel");
    seat.panel(true);
    let (reply, ()) = tokio::join!(unlock(&rig), async {
        assert!(seat.refuse(&shown(&rig).await.id));
    });
    expect_refusal(&reply, "approval_refused");
    let (reply, ()) = tokio::join!(unlock(&rig), async {
        shown(&rig).await;
        seat.panel(false);
    });
    expect_refusal(&reply, "approval_no_panel");
    seat.panel(true);
    let (reply, ()) = tokio::join!(unlock(&rig), async {
        shown(&rig).await;
        rig.app.lock_at_the_box().await;
    });
    expect_refusal(&reply, "approval_refused");
    let (reply, ()) = tokio::join!(unlock(&rig), async {
        let request = shown(&rig).await;
        drop(seat);
        let seat = board(&rig);
        assert!(!seat.approve(&request.id), "an old id on a new connection");
    });
    expect_refusal(&reply, "approval_no_board");
    assert!(!is_open(&rig).await);
    assert!(nothing_is_shown(&rig));
}

#[tokio::test]
async fn a_request_ends_by_itself() {
    let short = Duration::from_millis(200);
    let rig = rig_with(|config| config.consent = ConsentRules { patience: short, ..rules() });
    let login = rig.create().await;
    rig.wallet_get(&login, "/lock").await.expect(200);
    let seat = board(&rig);
    let (reply, request) = tokio::join!(unlock(&rig), shown(&rig));
    expect_refusal(&reply, "approval_timed_out");
    assert!(!seat.approve(&request.id));
    assert!(!is_open(&rig).await);
    // And no password was lost on it.
    let (reply, ()) = tokio::join!(unlock(&rig), async {
        assert!(seat.approve(&shown(&rig).await.id));
    });
    reply.expect(200);
}

#[tokio::test]
async fn a_repeated_unlock_joins_and_a_strangers_does_not() {
    let rig = locked().await;
    let seat = board(&rig);
    let press = async {
        let request = shown(&rig).await;
        let stranger = rig.unlock(WALLET, PASSWORD).await;
        expect_refusal(&stranger, "approval_busy");
        // Repeated by the same client until it hears something; the first is still on the panel.
        let again = unlock(&rig);
        let (again, ()) = tokio::join!(again, async {
            assert_eq!(shown(&rig).await.id, request.id);
            // Long enough for the password of the second one to have been looked at.
            until("the second has joined", || async { rig.app.consent().waiters() == 2 }).await;
            assert!(seat.approve(&request.id));
        });
        again.expect(200);
        again
    };
    let (first, again) = tokio::join!(unlock(&rig), press);
    first.expect(200);
    for reply in [first, again] {
        rig.session(&Login::of(&reply.json())).await;
    }
}

#[tokio::test]
async fn a_hold_locks_whatever_is_open() {
    let rig = rig_with(strict);
    let login = rig.create().await;
    let guard = rig.app.activity().begin(Role::Maker).unwrap();
    rig.app.lock_at_the_box().await;
    assert!(guard.stopped().is_cancelled());
    assert!(!is_open(&rig).await);
    rig.get("/api/v1/session").token(&login.access).send().await.expect(401);
    // Nothing is open: nothing to do.
    rig.app.lock_at_the_box().await;
}

fn body(sats: u64) -> Value {
    json!({"mixdepth": 0, "amount_sats": sats, "destination": ELSEWHERE, "txfee": 2000})
}

async fn send(rig: &Rig, login: &Login, body: &Value) -> Reply {
    rig.wallet_post(login, "/taker/direct-send", body).await
}

#[tokio::test]
async fn a_payment_is_what_was_shown() {
    let (rig, chain, login, seat) = funded().await;
    let press = async {
        let request = shown(&rig).await;
        let payment = shown_payment(&request);
        assert_eq!((payment.mixdepth.0, payment.amount.to_sat()), (0, 1_500_000));
        assert_eq!(payment.destination.to_string(), ELSEWHERE);
        assert!(!payment.sweep && !payment.own && payment.makers.is_none());
        assert!(chain.broadcasts().is_empty(), "nothing is signed before");
        assert!(coins(&rig, &login).await.iter().all(|coin| coin["frozen"] == false));
        assert!(seat.approve(&request.id));
        payment.fee_max.to_sat()
    };
    let asked = body(1_500_000);
    let (reply, most) = tokio::join!(send(&rig, &login, &asked), press);
    reply.expect(200);
    let fee = reply.json()["details"]["fee_sats"].as_u64().unwrap();
    assert!(fee <= most && most < 2 * fee, "{fee} of at most {most}");
    assert_eq!(chain.broadcasts().len(), 1);
}

#[tokio::test]
async fn a_payment_that_is_not_approved_is_not_made() {
    let (rig, chain, login, seat) = funded().await;
    let asked = body(1_500_000);
    let (reply, ()) = tokio::join!(send(&rig, &login, &asked), async {
        assert!(seat.refuse(&shown(&rig).await.id));
    });
    expect_refusal(&reply, "approval_refused");
    // A role that starts meanwhile needs the coins.
    let (reply, guard) = tokio::join!(send(&rig, &login, &asked), async {
        let request = shown(&rig).await;
        let guard = rig.app.activity().begin(Role::Maker).unwrap();
        assert!(seat.approve(&request.id));
        guard
    });
    reply.expect_error(400, "Action not allowed");
    drop(guard);
    // One that cannot be made is not shown.
    let reply = send(&rig, &login, &body(5_000_000)).await;
    reply.expect_error(409, "Transaction failed.");
    // While one waits another one is sent away, whoever asks.
    let (reply, ()) = tokio::join!(send(&rig, &login, &asked), async {
        let request = shown(&rig).await;
        expect_refusal(&send(&rig, &login, &body(1_500_001)).await, "approval_busy");
        expect_refusal(&unlock(&rig).await, "approval_busy");
        rig.wallet_get(&login, "/lock").await.expect(200);
        assert!(!seat.approve(&request.id));
    });
    expect_refusal(&reply, "approval_withdrawn");
    drop(seat);
    assert!(chain.broadcasts().is_empty());
}

#[tokio::test]
async fn without_a_board_only_small_payments_are_made() {
    let (rig, chain, login, seat) = funded().await;
    drop(seat);
    expect_refusal(&send(&rig, &login, &body(10_001)).await, "approval_no_board");
    expect_refusal(&send(&rig, &login, &body(0)).await, "approval_no_board");
    assert!(chain.broadcasts().is_empty());
    send(&rig, &login, &body(10_000)).await.expect(200);
    assert_eq!(chain.broadcasts().len(), 1);
    // What needs no press is as it was.
    rig.wallet_get(&login, "/getseed").await.expect(200);
}

#[tokio::test]
async fn a_repeated_payment_waits_for_the_same_press() {
    let (rig, chain, login, seat) = funded().await;
    let asked = body(1_500_000);
    let (first, again) = tokio::join!(send(&rig, &login, &asked), async {
        let request = shown(&rig).await;
        let (again, ()) = tokio::join!(send(&rig, &login, &asked), async {
            tokio::task::yield_now().await;
            assert_eq!(shown(&rig).await.id, request.id);
            assert!(seat.approve(&request.id));
        });
        again
    });
    first.expect(200);
    again.expect(200);
    assert_eq!(first.json(), again.json());
    assert_eq!(chain.broadcasts().len(), 1);
}

#[tokio::test]
async fn a_sweep_takes_the_coins_that_were_shown_and_no_later_ones() {
    let (rig, chain, login, seat) = funded().await;
    let asked = body(0);
    let (reply, payment) = tokio::join!(send(&rig, &login, &asked), async {
        let request = shown(&rig).await;
        let shown = shown_payment(&request);
        let address = rig.wallet_get(&login, "/address/new/0").await.json()["address"].clone();
        chain.mine(&[&payment(77, script_of(address.as_str().unwrap()), 700_000)]);
        chain.look().await;
        until("the third coin is listed", || async { coins(&rig, &login).await.len() == 3 }).await;
        assert!(seat.approve(&request.id));
        shown
    });
    reply.expect(200);
    assert!(payment.sweep);
    assert_eq!(payment.amount.to_sat(), 3_000_000);
    let sent = reply.json();
    assert_eq!(sent["txinfo"]["inputs"].as_array().unwrap().len(), 2);
    let paid = sent["txinfo"]["outputs"][0]["value_sats"].as_u64().unwrap();
    assert!(paid >= 3_000_000 - payment.fee_max.to_sat());
    assert_eq!(coins(&rig, &login).await.len(), 1);
}

/// A box with money that can mix.
async fn mixing() -> (Rig, Login, Seat, Arc<Recorder>) {
    let (rig, _chain, login, seat) = funded().await;
    let recorder = Arc::new(Recorder::default());
    rig.app.set_roles(recorder.clone());
    for (field, value) in
        [("max_cj_fee_abs", "5000"), ("max_cj_fee_rel", "3e-4"), ("taker_utxo_age", "1")]
    {
        let body = json!({"section": "POLICY", "field": field, "value": value});
        rig.wallet_post(&login, "/configset", &body).await.expect(200);
    }
    (rig, login, seat, recorder)
}

async fn taker_status(rig: &Rig, login: &Login) -> Value {
    rig.wallet_get(login, "/taker/status").await.json()
}

#[tokio::test]
async fn a_coinjoin_waits_as_its_first_phase_and_is_bound_to_what_was_shown() {
    let (rig, login, seat, recorder) = mixing().await;
    rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await.expect(202);
    let request = shown(&rig).await;
    let payment = shown_payment(&request);
    assert_eq!((payment.amount.to_sat(), payment.makers, payment.sweep), (500_000, Some(3), false));
    assert!(payment.own, "INTERNAL is ours");
    // Three makers at 5000 satoshi each, and the miners.
    let most = payment.fee_max.to_sat();
    assert!((15_000..200_000).contains(&most), "{most}");
    let status = taker_status(&rig, &login).await;
    assert_eq!((&status["status"], &status["phase"]), (&json!("running"), &json!("approval")));
    assert!(status["deadline_seconds"].as_u64().unwrap() <= 60);
    let glance = rig.app.glance();
    assert_eq!((glance.coinjoin_state, glance.taker.unwrap().phase), (0, "approval"));
    assert!(recorder.takers.lock().unwrap().is_empty(), "nobody is asked before");
    assert!(seat.approve(&request.id));
    until("the taker runs", || async { !recorder.takers.lock().unwrap().is_empty() }).await;
    let run = recorder.takers.lock().unwrap().pop().unwrap();
    assert_eq!(run.request.destination, Destination::Address(payment.destination.clone()));
    assert_eq!((run.policy.max_cost, run.policy.destination_once), (Some(most), true));
    assert_eq!((run.request.amount, run.request.inputs.is_none()), (500_000, true));
    drop(run);

    // A sweep is bound to its coins, and to a stranger's address more than one attempt may be made.
    let mut sweep = coinjoin();
    sweep["amount_sats"] = json!(0);
    sweep["destination"] = json!(ELSEWHERE);
    rig.wallet_post(&login, "/taker/coinjoin", &sweep).await.expect(202);
    let request = shown(&rig).await;
    let payment = shown_payment(&request);
    assert_eq!((payment.amount.to_sat(), payment.sweep, payment.own), (3_000_000, true, false));
    assert!(seat.approve(&request.id));
    until("the taker runs", || async { !recorder.takers.lock().unwrap().is_empty() }).await;
    let run = recorder.takers.lock().unwrap().pop().unwrap();
    assert_eq!(run.request.inputs.as_ref().map(Vec::len), Some(2));
    assert!(run.request.is_sweep() && !run.policy.destination_once);
}

#[tokio::test]
async fn a_coinjoin_that_is_not_approved_asks_nobody() {
    let (rig, login, seat, recorder) = mixing().await;
    let start = || async { rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await };
    start().await.expect(202);
    let first = shown(&rig).await;
    assert!(seat.refuse(&first.id));
    until("it is over", || async { rig.app.activity().current().is_none() }).await;
    let status = taker_status(&rig, &login).await;
    assert_eq!((&status["status"], &status["reason"]), (&json!("failed"), &json!("not_approved")));
    assert_eq!(status["error"], "Refused at the box.");
    // Stopped while it waits; and the address that nobody but the panel saw is shown again.
    start().await.expect(202);
    let second = shown(&rig).await;
    assert_eq!(shown_payment(&first).destination, shown_payment(&second).destination);
    start().await.expect_error(401, "Service already started.");
    rig.wallet_get(&login, "/taker/stop").await.expect(202);
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
    until("it is taken off the panel", || async { nothing_is_shown(&rig) }).await;
    assert!(!seat.approve(&second.id));
    until("it is over", || async { taker_status(&rig, &login).await["reason"] == "stopped" }).await;
    // Held.
    start().await.expect(202);
    let third = shown(&rig).await;
    rig.app.lock_at_the_box().await;
    assert!(!seat.approve(&third.id));
    assert!(!is_open(&rig).await);
    drop(seat);
    assert!(recorder.takers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_coinjoin_that_cannot_be_shown_is_refused_at_once() {
    let (rig, login, seat, recorder) = mixing().await;
    drop(seat);
    let reply = rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await;
    expect_refusal(&reply, "approval_no_board");
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
    let seat = board(&rig);
    let asked = body(1_500_000);
    let (paid, ()) = tokio::join!(send(&rig, &login, &asked), async {
        let request = shown(&rig).await;
        let reply = rig.wallet_post(&login, "/taker/coinjoin", &coinjoin()).await;
        expect_refusal(&reply, "approval_busy");
        assert!(seat.refuse(&request.id));
    });
    expect_refusal(&paid, "approval_refused");
    assert_eq!(rig.app.activity().coinjoin_state(), 2);
    assert!(recorder.takers.lock().unwrap().is_empty());
}
