//! A market of real daemons on one private chain: a directory in the test's process, makers and takers as processes.

use bdk_wallet::bitcoin::Amount;
use joinery_testkit::{Bench, DirectoryNode};
use serde_json::{Value, json};

use super::client::parse_address;
use super::{Client, Daemon, Home, Socket, until};

/// A daemon with a funded wallet.
#[derive(Debug)]
pub struct Participant {
    // The daemon ends before its directory goes away.
    pub daemon: Option<Daemon>,
    pub home: Home,
    pub client: Client,
    /// Words of the wallet.
    pub words: String,
}

/// The chain, the directory, and who meets there.
#[derive(Debug)]
pub struct Market {
    pub bench: Bench,
    pub directory: DirectoryNode,
}

impl Market {
    pub fn start() -> Self {
        let directory = DirectoryNode::start("regtest").unwrap();
        Self { bench: Bench::start().unwrap(), directory }
    }

    /// A home whose daemons know chain and directory.
    pub fn home(&self) -> Home {
        Home::with_electrum(&self.bench.endpoints().electrum)
            .argument(&format!("--directory={}", self.directory.address()))
    }

    /// A daemon with a wallet that has one confirmed coin for each entry: mixdepth and satoshi.
    pub async fn participant(&self, name: &str, coins: &[(u8, u64)]) -> Participant {
        self.participant_at(self.home(), name, coins).await
    }

    /// The same with a home of the caller's.
    pub async fn participant_at(&self, home: Home, name: &str, coins: &[(u8, u64)]) -> Participant {
        let daemon = home.start();
        let mut client = daemon.client();
        let words = client.create(&format!("{name}.jmdat")).await;
        for (mixdepth, satoshi) in coins {
            let address = client.address(*mixdepth).await;
            self.bench.fund(&parse_address(&address), Amount::from_sat(*satoshi)).unwrap();
        }
        Participant { daemon: Some(daemon), home, client, words }
    }

    /// Buries all payments deep enough for commitments, and waits until everybody knows.
    pub async fn settle(&self, participants: &[&Participant]) {
        self.bench.mine(6, None).unwrap();
        let height = self.bench.height().unwrap();
        for participant in participants {
            participant.client.synced(height).await;
            let known = "the coins are confirmed";
            participant
                .client
                .utxos_when(known, |coins| {
                    coins.iter().all(|coin| coin["confirmations"].as_u64() >= Some(5))
                })
                .await;
        }
    }
}

impl Participant {
    /// A websocket that is logged in.
    pub async fn socket(&self) -> Socket {
        let daemon = self.daemon.as_ref().expect("the daemon runs");
        let mut socket = Socket::open(&daemon.listening, "/").await.unwrap();
        socket.say(&self.client.token).await;
        socket
    }

    /// Starts a maker with a relative fee of 0.0003 and waits until its offer stands.
    pub async fn make(&self) -> Value {
        let terms = json!({"txfee": "0", "cjfee_a": "0", "cjfee_r": "0.0003",
            "ordertype": "sw0reloffer", "minsize": "100000"});
        assert_eq!(self.client.wallet_post("/maker/start", terms).await.expect(202), json!({}));
        until("the maker has an offer and is on the directory", || async {
            let session = self.client.get("/session").await.expect(200);
            let offers = session["offer_list"].as_array().is_some_and(|list| !list.is_empty());
            (offers && session["nickname"].is_string()).then_some(session)
        })
        .await
    }

    /// Waits until the order book of this daemon has offers of so many makers.
    pub async fn sees_makers(&self, count: usize) {
        until(&format!("{count} makers in the order book"), || async {
            let path = "/obwatch/orderbook.json";
            let book = self.client.request(reqwest::Method::GET, path, None).await.expect(200);
            let nicks: std::collections::BTreeSet<String> = book["offers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|offer| offer["counterparty"].as_str().unwrap().to_owned())
                .collect();
            (nicks.len() >= count).then_some(())
        })
        .await;
    }

    /// Asks for a coinjoin.
    pub async fn coinjoin(&self, mixdepth: u8, amount: u64, makers: u8, destination: &str) {
        let body = json!({"mixdepth": mixdepth, "amount_sats": amount, "counterparties": makers,
            "destination": destination});
        assert_eq!(self.client.wallet_post("/taker/coinjoin", body).await.expect(202), json!({}));
    }

    /// Waits for the end of the coinjoin that runs, and gives what `/taker/status` says of it.
    pub async fn coinjoin_ended(&self) -> Value {
        until("the coinjoin ends", || async {
            let status = self.client.wallet_get("/taker/status").await.expect(200);
            (status["status"] != json!("running") && status["reason"].is_string()).then_some(status)
        })
        .await
    }

    /// `coinjoin_state` as `/session` tells it.
    pub async fn state(&self) -> u8 {
        let session = self.client.get("/session").await.expect(200);
        match (session["maker_running"].as_bool(), session["coinjoin_in_process"].as_bool()) {
            (Some(true), _) => 1,
            (_, Some(true)) => 0,
            _ => 2,
        }
    }

    /// The rounds.
    pub async fn rounds(&self) -> Vec<Value> {
        let answer = self.client.wallet_get("/rounds").await.expect(200);
        answer["rounds"].as_array().unwrap().clone()
    }
}
