//! A hostile IRC server: the input is a script of what it and the clock do in which order, and of what a peer with a
//! key of its own signs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::irc::{MAX_LINE_IN, private_lines};
use joinery_proto::nick::Nick;
use joinery_proto::private_message::{NickKey, PrivateWord};
use joinery_roles::event::{ChannelEvent, LinkId, Source};
use joinery_roles::irc_channel::{
    Audience, IrcChannel, IrcConfig, IrcServer, IrcTiming, MAX_PRESENT, Output,
};

const CHANNEL: &str = "#joinmarket-pit";
/// Longest script, lines: enough for every state and every budget.
const MAX_STEPS: usize = 4_000;

fn key(byte: u8) -> NickKey {
    NickKey::new(SecretKey::from_slice(&[byte; 32]).expect("below the group order"))
}

struct Rig {
    channel: IrcChannel,
    peer: NickKey,
    now: Duration,
    link: Option<LinkId>,
    /// What the peer signed: nothing else may be believed.
    signed: HashSet<String>,
    present: BTreeSet<Nick>,
    up: bool,
    was_up: bool,
    last_line: Option<(LinkId, Duration)>,
}

impl Rig {
    fn new() -> Self {
        let mut config = IrcConfig::new(Arc::new(key(1)));
        let server = IrcServer::new("irc.example", 6667, "joinmarket-pit", "mainnet", false);
        config.servers = vec![server.expect("a good server")];
        let channel = IrcChannel::new(config, [7; 32]).expect("one server");
        Self {
            channel,
            peer: key(2),
            now: Duration::ZERO,
            link: None,
            signed: HashSet::new(),
            present: BTreeSet::new(),
            up: false,
            was_up: false,
            last_line: None,
        }
    }

    /// One line of the script.
    fn step(&mut self, line: &[u8]) {
        let (kind, rest) = line.split_first().map_or((b'.', line), |(kind, rest)| (*kind, rest));
        match kind {
            // The server speaks. `%` stands for our nick, `$` for the peer's, so that scripts find them.
            b'<' => self.hear(rest),
            // Time passes, to a tenth of a second or to the next deadline.
            b'+' => {
                let tenths = rest
                    .iter()
                    .take(5)
                    .fold(0_u64, |sum, byte| sum * 10 + u64::from(byte.wrapping_sub(b'0').min(9)));
                self.pass(Duration::from_millis(tenths * 100));
            }
            b'n' => {
                let wake = self.channel.next_wake().unwrap_or(self.now);
                self.pass(wake.saturating_sub(self.now));
            }
            b'x' => {
                if let Some(link) = self.link.take() {
                    self.channel.closed(link, &String::from_utf8_lossy(rest), self.now);
                }
            }
            // The peer says something that it signed, for a host id of the script's choice.
            b'!' => {
                let text = String::from_utf8_lossy(rest).into_owned();
                let (hostid, payload) = text.split_once(' ').unwrap_or(("TestNet", &text));
                if payload.is_empty() || payload.contains(['\r', '\n']) {
                    return;
                }
                let whole = self.peer.sign_message(PrivateWord::Tx, payload, hostid);
                if let Some((_, message)) = whole.split_once(' ') {
                    let lines = private_lines(&key(1).nick(), PrivateWord::Tx, message);
                    self.signed.insert(whole.clone());
                    for line in lines {
                        self.hear(format!(":{}!u@h {line}", self.peer.nick()).as_bytes());
                    }
                }
            }
            b's' => {
                let payload = String::from_utf8_lossy(rest);
                let (to, now) = (self.peer.nick(), self.now);
                let _ = self.channel.send_private(0, to, PrivateWord::Push, &payload, now);
            }
            b'a' => {
                let _ =
                    self.channel.announce(&String::from_utf8_lossy(rest), Audience::All, self.now);
            }
            b'o' => self.channel.request_orderbook(Audience::All, self.now),
            _ => self.pass(Duration::from_millis(1_300)),
        }
        self.drain();
    }

    fn hear(&mut self, line: &[u8]) {
        let Some(link) = self.link else { return };
        let mut said = Vec::with_capacity(line.len());
        for byte in line {
            match byte {
                b'%' => said.extend(key(1).nick().as_str().bytes()),
                b'$' => said.extend(self.peer.nick().as_str().bytes()),
                byte => said.push(*byte),
            }
        }
        said.truncate(MAX_LINE_IN);
        self.channel.received(link, &said, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        // One thing that is due may be followed by another one at once, but not without end.
        for _ in 0..4 {
            self.channel.tick(self.now);
            self.drain();
            if self.channel.next_wake().is_none_or(|wake| wake > self.now) {
                return;
            }
        }
        panic!("the machine spins");
    }

    fn drain(&mut self) {
        while let Some(output) = self.channel.poll() {
            match output {
                Output::Dial { link, .. } => {
                    assert!(self.link.is_none(), "one connection at a time");
                    self.link = Some(link);
                    self.channel.opened(link, self.now);
                }
                Output::Send { link, line } => {
                    assert_eq!(Some(link), self.link);
                    let body = line.strip_suffix("\r\n").expect("lines end with CR LF");
                    assert!(!body.is_empty() && line.len() <= 512);
                    assert!(!body.contains(['\r', '\n', '\0']), "nothing is smuggled in");
                    // The goodbye does not wait.
                    if let Some((last, at)) = self.last_line
                        && last == link
                        && body != "QUIT :"
                    {
                        assert!(self.now >= at + IrcTiming::default().line_gap, "no flood");
                    }
                    self.last_line = Some((link, self.now));
                }
                Output::Close { link } => {
                    assert_eq!(self.link.take(), Some(link));
                }
                Output::Event(event) => self.event(event),
                Output::Pause { .. } | Output::Log(_) => {}
            }
        }
        assert!(self.present.len() <= MAX_PRESENT);
        for nick in &self.present {
            assert!(self.channel.is_present(nick, 0));
        }
    }

    fn event(&mut self, event: ChannelEvent) {
        let irc = Source::Irc(0);
        match event {
            ChannelEvent::Up(via) => {
                assert!(via == irc && !self.up);
                (self.up, self.was_up) = (true, true);
            }
            ChannelEvent::Down(via) => {
                assert!(via == irc && self.up);
                self.up = false;
                self.present.clear();
            }
            ChannelEvent::Seen { nick, via } => {
                // Who was there before us is told just before we are up.
                assert!(via == irc && self.present.insert(nick));
            }
            ChannelEvent::Left { nick, via } => {
                assert!(via == irc && self.up && self.present.remove(&nick));
            }
            ChannelEvent::Public { from, via, text } => {
                assert!(via == irc && self.up && from != key(1).nick() && !text.is_empty());
            }
            ChannelEvent::Lists(_) | ChannelEvent::Serves { .. } => {
                unreachable!("IRC has no peer lists")
            }
            ChannelEvent::Private { from, via, text } => {
                assert!(via == irc && self.up && from == self.peer.nick());
                // Words are not signed: a relay may change the first one, and nothing else.
                let payload = |text: &str| text.split_once(' ').map(|(_, rest)| rest.to_owned());
                let said = payload(&text);
                assert!(self.signed.iter().any(|signed| payload(signed) == said), "forged");
            }
        }
    }
}

/// Runs a script; whether the channel was joined at some time.
pub fn irc(data: &[u8]) -> bool {
    let mut rig = Rig::new();
    rig.pass(Duration::ZERO);
    rig.drain();
    for line in data.split(|byte| *byte == b'\n').take(MAX_STEPS) {
        rig.step(line);
    }
    rig.channel.stop(rig.now);
    rig.drain();
    assert!(!rig.up && rig.channel.next_wake().is_none());
    rig.was_up
}

/// A script in which everything goes well and something of everything happens.
pub(super) fn honest() -> Vec<u8> {
    let script = [
        "<:x 433 * % :in use",
        "+00100",
        "<:x 001 % :Welcome %!u@h",
        "<:x 005 % NETWORK=TestNet NICKLEN=30 :are supported",
        "+00020",
        &format!("<:%!u@h JOIN {CHANNEL}"),
        &format!("<:x 353 % = {CHANNEL} :@% +$"),
        &format!("<:x 366 % {CHANNEL} :End"),
        "!TestNet QUJDRA==",
        &format!("!TestNet {}", "QUJD".repeat(300)),
        &format!("<:$!u@h PRIVMSG {CHANNEL} :!sw0reloffer 0 27300 500000 0 0.00002 ~"),
        "o",
        "acancel 0",
        "sAAAA",
        "+00050",
        "<PING :token",
        "n",
        "<:$!u@h NICK other",
        "<:$!u@h QUIT :bye",
        &format!("<:op!u@h KICK {CHANNEL} % :out"),
        "n",
        "x",
    ];
    script.join("\n").into_bytes()
}
