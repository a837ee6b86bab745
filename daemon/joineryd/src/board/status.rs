//! What the board is told: whole snapshots (`docs/board-link.md`, "status").

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use joinery_api::{Asked, Glance, MarketView, PendingRequest, TakerGlance, TransactionGlance};
use joinery_wallet::chain::ChainTip;
use joinery_wallet::service::Effect;
use joinery_wallet::types::Network;
use serde::Serialize;
use tokio::time::Instant;

use super::machine::Facts;
use crate::certificate::Certificate;

/// Longest quick-connect URI, characters.
const MAX_PAIRING: usize = 1024;
/// Longest name of a wallet, characters.
const MAX_NAME: usize = 255;
/// Longest host name, characters.
const MAX_HOST: usize = 64;
/// A clock that shows less is wrong: start of 2026, seconds since epoch.
const BUILT: u64 = 1_767_225_600;
/// How far the newest block may be ahead of our clock, seconds: as far as nodes allow.
const AHEAD: u64 = 2 * 60 * 60;
/// All coins there can be, satoshi.
const MOST: i64 = 21_000_000 * 100_000_000;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    network: Network,
    hostname: Option<String>,
    fingerprint: Option<String>,
    /// The certificate for the phone app, base64url.
    certificate: Option<String>,
    /// Where the API listens.
    listen: SocketAddr,
    tls: bool,
    show_balance: bool,
    market: Option<MarketView>,
}

impl Fixed {
    pub(crate) fn new(
        network: Network,
        certificate: Option<&Certificate>,
        listen: SocketAddr,
        show_balance: bool,
        market: Option<MarketView>,
    ) -> Self {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let short = node.split('.').next().unwrap_or_default();
        Self {
            network,
            hostname: (!short.is_empty() && short != "localhost").then(|| cut(short, MAX_HOST)),
            fingerprint: certificate.map(|own| own.fingerprint().replace(':', "")),
            certificate: certificate
                .and_then(Certificate::der)
                .map(|der| URL_SAFE_NO_PAD.encode(der)),
            listen,
            tls: certificate.is_some(),
            show_balance,
            market,
        }
    }

    /// Where others reach the API, as far as is known.
    fn reached_at(&self, lan: Option<IpAddr>) -> Option<SocketAddr> {
        let address = self.listen.ip();
        let address = if address.is_unspecified() { lan? } else { address };
        Some(SocketAddr::new(address, self.listen.port()))
    }
}

/// What changes besides what the API sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now<'a> {
    pub(super) facts: &'a Facts,
    pub(super) switching_off: bool,
    pub(super) paired: bool,
    /// Seconds since epoch.
    pub(super) wall: u64,
    pub(super) steady: Instant,
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    v: u32,
    r#type: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    switching_off: bool,
    paired: bool,
    locked: bool,
    wallet: Option<String>,
    coinjoin_state: u8,
    phase: Option<&'static str>,
    round: Option<Round>,
    maker: Option<Maker>,
    sync: Option<u8>,
    backend: &'static str,
    tor: &'static str,
    directories: Option<u16>,
    height: Option<u32>,
    network: &'static str,
    hostname: Option<&'a str>,
    url: Option<String>,
    pairing: Option<String>,
    fingerprint: Option<&'a str>,
    warnings: Vec<Warning>,
    transaction: Option<Transaction>,
    balance_sat: Option<u64>,
    pending: Option<Pending>,
}

#[derive(Debug, Serialize)]
struct Transaction {
    txid: String,
    direction: &'static str,
    confirmations: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_sat: Option<u64>,
}

impl Transaction {
    fn new(seen: &TransactionGlance, show_amount: bool) -> Self {
        let (direction, amount) = match seen.effect {
            Effect::In { amount } => ("in", amount),
            Effect::Out { amount } => ("out", amount),
            Effect::Coinjoin { amount } => ("coinjoin", amount),
        };
        Self {
            txid: seen.txid.to_string(),
            direction,
            confirmations: seen.confirmations,
            amount_sat: show_amount.then_some(amount),
        }
    }
}

#[derive(Debug, Serialize)]
struct Round {
    asked: u16,
    answered: u16,
    deadline_s: u64,
    of_s: u64,
}

#[derive(Debug, Serialize)]
struct Maker {
    offers: u16,
    makers: Option<u16>,
    earned_today_sat: i64,
    rounds_today: u32,
}

/// How long the phase of a coinjoin may take in all: what was left when it was first seen.
#[derive(Debug, Default)]
pub(super) struct PhaseLength {
    phase: &'static str,
    end: Option<std::time::Instant>,
    length: Duration,
}

impl PhaseLength {
    fn of(&mut self, taker: &TakerGlance, now: std::time::Instant) -> Option<(Duration, Duration)> {
        let end = taker.deadline?;
        let left = end.saturating_duration_since(now);
        if self.phase != taker.phase || self.end != Some(end) {
            *self = Self { phase: taker.phase, end: Some(end), length: left };
        }
        Some((left, self.length.max(left)))
    }
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Warning {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    celsius: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Pending {
    id: String,
    kind: &'static str,
    /// Not sent: it waits for as long as it takes.
    expires_s: Option<u64>,
    text: String,
    from: Option<String>,
    #[serde(flatten)]
    payment: Option<Payment>,
}

#[derive(Debug, Serialize)]
struct Payment {
    amount_sat: u64,
    sweep: bool,
    destination: String,
    own: bool,
    fee_max_sat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    makers: Option<u8>,
    jar: u8,
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// As people know the wallet.
fn wallet_name(file: &str) -> String {
    cut(file.strip_suffix(".jmdat").unwrap_or(file), MAX_NAME)
}

impl Pending {
    fn new(request: &PendingRequest, now: Instant) -> Self {
        let left = request.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let payment = match &request.asked {
            Asked::Send(payment) => Some(Payment {
                amount_sat: payment.amount.to_sat(),
                sweep: payment.sweep,
                destination: payment.destination.to_string(),
                own: payment.own,
                fee_max_sat: payment.fee_max.to_sat(),
                makers: payment.makers,
                jar: payment.mixdepth.0,
            }),
            Asked::Unlock { .. } | Asked::Resume { .. } => None,
        };
        Self {
            id: request.id.clone(),
            kind: request.asked.kind(),
            expires_s: left.map(up),
            text: wallet_name(request.asked.wallet()),
            from: request.from.filter(|from| !from.is_loopback()).map(|from| from.to_string()),
            payment,
        }
    }
}

/// Whole seconds, rounded up: 0 is over.
fn up(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn up_to_a_day(time: Duration) -> u64 {
    up(time).min(86_400)
}

/// A count as the link has it.
fn small(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// What `/session` warns of, in the words of the link; what the snapshot says elsewhere is left out.
fn warnings(codes: &[&'static str], now: &Now<'_>, tip: Option<ChainTip>) -> Vec<Warning> {
    let plain = |kind| Warning { kind, ..Warning::default() };
    let said = |kind, text| Warning { kind, text: Some(text), ..Warning::default() };
    let mut list = Vec::new();
    let tip = tip.map_or(0, |tip| u64::from(tip.time));
    if now.wall < BUILT || now.wall.saturating_add(AHEAD) < tip {
        list.push(plain("clock"));
    }
    if let Some(percent) = now.facts.disk {
        list.push(Warning { percent: Some(percent), ..plain("disk") });
    }
    if let Some(celsius) = now.facts.hot {
        list.push(Warning { celsius: Some(celsius), ..plain("hot") });
    }
    if now.facts.undervoltage {
        list.push(plain("undervoltage"));
    }
    list.extend(codes.iter().filter_map(|code| match *code {
        "public_server" | "foreign_server" => Some(plain(code)),
        "certificate_expires" => Some(said("certificate", "certificate ends soon: renew it")),
        "no_directories" => Some(said("market", "no directories: see settings")),
        "market_unreachable" => Some(said("market", "market cannot be reached")),
        // `backend` and `tor` say it.
        _ => None,
    }));
    list
}

/// A snapshot as a line with its line feed.
pub(super) fn line(
    glance: &Glance,
    fixed: &Fixed,
    now: &Now<'_>,
    phase: &mut PhaseLength,
) -> String {
    let book = fixed.market.as_ref().map(|market| market.book.borrow().clone());
    let connected = book.as_ref().map(|book| book.directories.iter().filter(|it| it.up).count());
    let has_market = fixed.market.as_ref().is_some_and(|market| !market.directories.is_empty());
    let makers = book
        .as_ref()
        .filter(|_| has_market)
        .map(|book| book.offers.iter().map(|entry| entry.nick).collect::<BTreeSet<_>>().len());
    let round = glance.taker.as_ref().and_then(|taker| {
        let (left, length) = phase.of(taker, now.steady.into_std())?;
        let (deadline_s, of_s) = (up_to_a_day(left), up_to_a_day(length));
        // Before makers are asked there is nothing to count.
        let counted =
            Round { asked: small(taker.asked), answered: small(taker.answered), deadline_s, of_s };
        (taker.asked > 0).then_some(counted)
    });
    let at = fixed.reached_at(now.facts.address).filter(|_| fixed.tls);
    let pairing = at.zip(fixed.certificate.as_ref());
    let pairing = pairing.map(|(at, certificate)| format!("http://{at}?cert={certificate}"));
    let status = Status {
        v: 1,
        r#type: "status",
        version: env!("CARGO_PKG_VERSION"),
        switching_off: now.switching_off,
        paired: now.paired,
        locked: glance.wallet.is_none(),
        wallet: glance.wallet.as_deref().map(wallet_name),
        coinjoin_state: glance.coinjoin_state,
        phase: glance.taker.as_ref().map(|taker| taker.phase),
        round,
        maker: glance.maker.as_ref().map(|maker| Maker {
            offers: small(maker.offers),
            makers: makers.map(small),
            earned_today_sat: maker.earned_today.clamp(-MOST, MOST),
            rounds_today: maker.rounds_today,
        }),
        sync: glance.sync,
        backend: match (glance.chain.configured, glance.chain.connected) {
            (false, _) => "none",
            (true, false) => "down",
            (true, true) => "ok",
        },
        tor: match has_market && fixed.network != Network::Regtest {
            false => "off",
            true if glance.warnings.contains(&"tor_unavailable") => "down",
            true => "ok",
        },
        directories: connected.map(small).filter(|_| has_market),
        height: glance.height,
        network: fixed.network.name(),
        hostname: fixed.hostname.as_deref(),
        url: at.map(|at| format!("https://{at}/")),
        pairing: pairing.filter(|text| text.len() <= MAX_PAIRING),
        fingerprint: fixed.fingerprint.as_deref(),
        warnings: warnings(&glance.warnings, now, glance.chain.tip),
        transaction: glance
            .transaction
            .as_ref()
            .map(|seen| Transaction::new(seen, fixed.show_balance)),
        balance_sat: glance.balance.map(|all| all.to_sat()).filter(|_| fixed.show_balance),
        pending: glance.pending.as_deref().map(|request| Pending::new(request, now.steady)),
    };
    let mut line = serde_json::to_string(&status).unwrap_or_default();
    line.push('\n');
    line
}
