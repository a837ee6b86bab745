//! Who takes part: real daemons with funded wallets, a directory over TCP, a real chain.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bdk_wallet::bitcoin::{Address, Amount, Network};
use joinery_testkit::{Bench, DirectoryNode};

use crate::client::Request;
use crate::events::Events;
use crate::process::{Daemon, Home, PATIENCE};
use crate::tap::Tap;

/// Blocks after which change may back commitments again.
pub(super) const DEPTH: u64 = 6;

/// What is special about a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Usual,
    /// Takers reach it through the directory only, and its messages are timed there.
    Tapped,
    /// It keeps no order book.
    Blind,
}

/// A daemon with a funded wallet.
pub(super) struct Participant {
    pub(super) daemon: Daemon,
    /// Coins that it was given.
    coins: usize,
    /// Between a maker and the directory.
    pub(super) tap: Option<Tap>,
    // Removed when the daemon is gone.
    _home: Home,
}

/// What a coinjoin took.
#[derive(Debug)]
pub(super) struct Timeline {
    /// When it was asked for.
    pub(super) begin: Instant,
    /// When the client heard of each phase for the first time, in that order.
    pub(super) phases: Vec<(String, Instant)>,
    /// When the client heard that it is over.
    pub(super) end: Instant,
    /// Whether it succeeded; else the reason.
    pub(super) outcome: Result<(), String>,
}

impl Timeline {
    /// When a phase began.
    pub(super) fn at(&self, phase: &str) -> Option<Instant> {
        self.phases.iter().find(|(name, _)| name == phase).map(|(_, at)| *at)
    }
}

impl Participant {
    /// With coins of these values in each of the first `mixdepths` accounts.
    pub(super) async fn new(
        bench: &Bench,
        directory: &DirectoryNode,
        name: &str,
        coins: &[u64],
        mixdepths: usize,
        kind: Kind,
    ) -> Result<Self> {
        let tap =
            if kind == Kind::Tapped { Some(Tap::start(directory.address()).await?) } else { None };
        let way = tap.as_ref().map_or_else(|| directory.address(), Tap::address);
        let mut home = Home::new(&bench.endpoints().electrum)?.directory(way);
        match kind {
            Kind::Usual => {}
            Kind::Tapped => home = home.settings("[joinmarket]\nservice = \"off\"\n")?,
            Kind::Blind => home = home.settings("[order_book]\nwatch = \"off\"\n")?,
        }
        let (mut daemon, _) = home.start().await?;
        daemon.client.create(&format!("{name}.jmdat")).await?;
        let mut outputs = Vec::new();
        for mixdepth in 0..mixdepths {
            for satoshi in coins {
                let (address, _) = daemon.client.address(mixdepth).await?;
                let address = address.parse::<Address<_>>()?.require_network(Network::Regtest)?;
                outputs.push((address.script_pubkey(), Amount::from_sat(*satoshi)));
            }
        }
        bench.fund_many(&outputs)?;
        Ok(Self { daemon, coins: outputs.len(), tap, _home: home })
    }

    /// What the daemon tells clients, from now on.
    pub(super) async fn events(&self) -> Result<Events> {
        Events::open(&self.daemon).await
    }

    /// Waits until the wallet has the best block.
    pub(super) async fn catch_up(&self, bench: &Bench) -> Result<()> {
        let height = bench.height()?;
        wait("a wallet catches up", async || self.daemon.client.is_synced(height).await).await
    }

    /// Waits until the order book has offers of so many makers.
    pub(super) async fn sees(&self, makers: usize) -> Result<()> {
        wait("the offers arrive", async || Ok(self.daemon.client.order_book().await?.0 == makers))
            .await
    }

    /// Makers that took no part in the end, and why.
    pub(super) async fn dropped(&self) -> Result<String> {
        let (status, _) = self.daemon.client.get("/taker/status").await?;
        let makers = status["makers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let dropped = makers.iter().filter(|maker| maker["dropped"].is_object());
        Ok(dropped.map(|maker| maker["dropped"].to_string()).collect::<Vec<_>>().join(", "))
    }

    /// The last round of its journal.
    pub(super) async fn last_round(&self) -> Result<String> {
        let (rounds, _) = self.daemon.client.get("/rounds").await?;
        Ok(rounds["rounds"]
            .as_array()
            .and_then(|rounds| rounds.first().cloned())
            .unwrap_or_default()
            .to_string())
    }

    /// Does a coinjoin and follows it on the websocket.
    pub(super) async fn coinjoin(&self, events: &mut Events, request: Request) -> Result<Timeline> {
        events.forget();
        let begin = Instant::now();
        self.daemon.client.coinjoin(request).await?;
        let mut phases: Vec<(String, Instant)> = Vec::new();
        loop {
            let (at, event) = events.next("taker").await?;
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            if event["event"] == "finished" {
                let success = event["success"] == true;
                let outcome = if success { Ok(()) } else { Err(text("reason")) };
                return Ok(Timeline { begin, phases, end: at, outcome });
            }
            let phase = text("phase");
            if phases.last().is_none_or(|(last, _)| *last != phase) {
                phases.push((phase, at));
            }
        }
    }
}

/// Awaits a condition.
pub(super) async fn wait(what: &str, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !done().await? {
        ensure!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Buries what is in the mempool, starts the makers and waits until the takers see their offers.
pub(super) async fn open(
    bench: &Bench,
    makers: &[Participant],
    takers: &[Participant],
    offers: usize,
) -> Result<()> {
    bench.mine(DEPTH, None)?;
    for participant in makers.iter().chain(takers) {
        participant.catch_up(bench).await?;
        let coins = participant.coins;
        let client = &participant.daemon.client;
        wait("coins arrive", async || Ok(client.confirmed_coins().await? == coins)).await?;
    }
    for maker in makers {
        maker.daemon.client.start_maker().await?;
    }
    for taker in takers {
        taker.sees(offers).await?;
    }
    Ok(())
}

/// The middle of several sizes.
pub(super) fn median(mut sizes: Vec<u64>) -> u64 {
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied().unwrap_or_default()
}
