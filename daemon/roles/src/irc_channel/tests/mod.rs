//! The channel against a hand-driven clock and scripted servers.

mod hostile;
mod talk;
mod vectors;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::secp256k1::SecretKey;
use joinery_proto::irc::private_lines;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::{NickKey, PrivateWord};

use super::{Audience, IrcChannel, IrcConfig, IrcServer, LogFact, Output, SendError, ServerState};
use crate::complaints::Cause;
use crate::event::{ChannelEvent, LinkId, Source};

const CHANNEL: &str = "#joinmarket-pit";
const NETWORK: &str = "TestNet";
const IRC: Source = Source::Irc(0);

fn key(byte: u8) -> NickKey {
    NickKey::new(SecretKey::from_slice(&[byte; 32]).unwrap())
}

fn nick(byte: u8) -> Nick {
    key(byte).nick()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A channel of nick key 1 with `count` servers, its links and its clock.
struct Rig {
    channel: IrcChannel,
    now: Duration,
    outputs: Vec<Output>,
}

impl Rig {
    fn new(count: u16) -> Self {
        let mut config = IrcConfig::new(Arc::new(key(1)));
        let server = |n| {
            IrcServer::new("irc.example", 6667 + n, "joinmarket-pit", "mainnet", false).unwrap()
        };
        config.servers = (0..count).map(server).collect();
        let channel = IrcChannel::new(config, [9; 32]).unwrap();
        Self { channel, now: Duration::ZERO, outputs: Vec::new() }
    }

    /// A rig whose one server is up, with its link.
    fn up() -> (Self, LinkId) {
        let mut rig = Self::new(1);
        rig.channel.tick(rig.now);
        let link = rig.dialled();
        rig.register(link);
        rig.pass(at(10));
        rig.drain();
        (rig, link)
    }

    /// Opens a link and lets it in.
    fn register(&mut self, link: LinkId) {
        self.channel.opened(link, self.now);
        let us = nick(1);
        self.says(link, &format!(":irc.example 001 {us} :Welcome {us}!~u@host"));
        self.says(
            link,
            &format!(":irc.example 005 {us} NETWORK={NETWORK} NICKLEN=30 :are supported"),
        );
        self.pass(at(5));
        self.says(link, &format!(":{us}!~u@host JOIN :{CHANNEL}"));
        self.says(link, &format!(":irc.example 353 {us} = {CHANNEL} :{us}"));
        self.says(link, &format!(":irc.example 366 {us} {CHANNEL} :End of NAMES list"));
    }

    /// Takes all outputs.
    fn drain(&mut self) -> Vec<Output> {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.extend(std::iter::from_fn(|| self.channel.poll()));
        outputs
    }

    /// Takes all outputs, returns the one link to dial.
    fn dialled(&mut self) -> LinkId {
        let links = self.drain().into_iter().filter_map(|output| match output {
            Output::Dial { link, .. } => Some(link),
            _ => None,
        });
        let links: Vec<_> = links.collect();
        assert_eq!(links.len(), 1, "one server is dialled");
        links[0]
    }

    /// Takes all outputs, returns the lines that are sent.
    fn sent(&mut self) -> Vec<String> {
        let sent = self.drain().into_iter().filter_map(|output| match output {
            Output::Send { line, .. } => {
                assert!(line.len() <= 512);
                Some(line.strip_suffix("\r\n").expect("lines end with CR LF").to_owned())
            }
            _ => None,
        });
        sent.collect()
    }

    /// Takes all outputs, returns the news.
    fn events(&mut self) -> Vec<ChannelEvent> {
        let events = self.drain().into_iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    fn says(&mut self, link: LinkId, line: &str) {
        self.channel.received(link, line.as_bytes(), self.now);
    }

    /// A user of the channel says something in private.
    fn whispers(&mut self, link: LinkId, name: &str, text: &str) {
        self.says(link, &format!(":{name}!~u@host PRIVMSG {} :{text}", nick(1)));
    }

    /// Key `byte` says something in private, signed for `hostid`, in as many lines as it takes.
    fn signed(&mut self, link: LinkId, byte: u8, word: PrivateWord, payload: &str, hostid: &str) {
        let (us, key) = (nick(1), key(byte));
        let text = key.sign_message(word, payload, hostid);
        let (_, message) = text.split_once(' ').unwrap();
        for line in private_lines(&us, word, message) {
            self.says(link, &format!(":{}!~u@host {line}", key.nick()));
        }
    }

    /// Lets time pass, doing what is due on the way; returns how often the machine woke up.
    fn pass(&mut self, time: Duration) -> usize {
        let (end, mut wakes) = (self.now + time, 0);
        while let Some(wake) = self.channel.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.channel.tick(self.now);
            let outputs: Vec<Output> = std::iter::from_fn(|| self.channel.poll()).collect();
            self.outputs.extend(outputs);
            wakes += 1;
            assert!(wakes < 10_000, "the machine spins at {:?}", self.now);
        }
        self.now = end;
        self.channel.tick(end);
        wakes
    }

    fn state(&self) -> ServerState {
        self.channel.servers().next().unwrap().state
    }
}

fn closes(outputs: &[Output], link: LinkId) -> bool {
    outputs.contains(&Output::Close { link })
}

fn complaint(outputs: &[Output], expected: Cause) -> bool {
    outputs.iter().any(|output| {
        matches!(output, Output::Log(LogFact::Misbehaviour { cause, .. }) if *cause == expected)
    })
}
