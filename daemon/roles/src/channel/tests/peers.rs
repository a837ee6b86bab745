//! Direct connections.

use super::*;
use crate::channel::{Cause, LogFact};

const WORD: PrivateWord = PrivateWord::Push;

fn misbehaved(outputs: &[Output], expected: Cause) -> bool {
    let is_it = |output: &Output| match output {
        Output::Log(LogFact::Misbehaviour { cause, .. }) => *cause == expected,
        _ => false,
    };
    outputs.iter().any(is_it)
}

#[test]
fn handshake_is_answered_with_our_own_and_only_then() {
    let mut rig = Rig::up(1, &[]);
    let link = rig.channel.accepted(rig.now);
    assert!(rig.drain().is_empty(), "who scans learns nothing");
    rig.receive(link, MessageType::Handshake, &peer_handshake(2));
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1.kind), (link, MessageType::Handshake), "793, never 795");
    PeerHandshake::parse(&sent[0].1.line, "testnet").unwrap();
}

#[test]
fn inbound_connection_serves_a_nick_only_after_it_proved_it() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    rig.receive(LinkId(0), MessageType::Private, &private(2, key(1).nick(), WORD, "AAAA"));
    let link = rig.channel.accepted(rig.now);
    rig.receive(link, MessageType::Handshake, &peer_handshake(2));
    rig.drain();
    rig.channel.send_private(to, WORD, "A", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(0), "everybody can claim a nick");
    // Nor does a line that a directory has seen and sends again.
    rig.receive(link, MessageType::Private, &private(2, key(1).nick(), WORD, "AAAA"));
    rig.channel.send_private(to, WORD, "B", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(0));
    rig.receive(link, MessageType::Private, &private(2, key(1).nick(), WORD, "BBBB"));
    let via = Source::Direct(link);
    assert!(rig.events().contains(&ChannelEvent::Seen { nick: to, via }));
    rig.channel.send_private(to, WORD, "C", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, link);
    rig.channel.closed(link, "gone", rig.now);
    assert!(rig.events().contains(&ChannelEvent::Left { nick: to, via }));
    rig.channel.send_private(to, WORD, "D", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(0));
}

#[test]
fn bound_connection_may_not_speak_for_others() {
    let mut rig = Rig::up(1, &[]);
    let link = rig.direct_to(2);
    rig.receive(link, MessageType::Private, &private(2, key(1).nick(), WORD, "AAAA"));
    rig.drain();
    rig.receive(link, MessageType::Private, &private(3, key(1).nick(), WORD, "AAAA"));
    let outputs = rig.drain();
    assert!(misbehaved(&outputs, Cause::ForeignNick) && outputs.len() == 1, "{outputs:?}");
    let spoof = format!("{}!PUBLIC!cancel 0", key(3).nick());
    for _ in 0..9 {
        rig.receive(link, MessageType::Public, &spoof);
    }
    assert!(rig.drain().contains(&Output::Close { link }), "ten strikes");
}

/// Defect 41: that a nick serves at an address is a claim of a directory.
#[test]
fn location_is_a_hint() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    // Somebody else answers there, in the right name, and takes the message.
    let link = rig.direct_to(2);
    rig.channel.send_private(to, WORD, "A", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, link);
    rig.run_until(at(59));
    assert!(rig.drain().is_empty());
    rig.run_until(at(60));
    assert!(rig.drain().contains(&Output::Close { link }), "it has proved nothing");
    rig.channel.send_private(to, WORD, "B", None, rig.now).unwrap();
    let outputs = rig.drain();
    assert!(outputs.iter().any(|o| matches!(o, Output::Send { link: LinkId(0), .. })));
    assert!(!outputs.iter().any(|output| is_dial_to(output, to)), "nor is it dialled again soon");
}

#[test]
fn peer_that_answers_in_another_name_is_of_no_use() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};{ONION}"));
    rig.channel.connect_peer(to, rig.now);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    rig.receive(link, MessageType::Handshake, &peer_handshake(3));
    assert!(rig.drain().contains(&Output::Close { link }));
}

#[test]
fn watcher_is_answered_on_its_own_connection() {
    let mut rig = Rig::up(1, &[]);
    let (nick, link) = (key(2).nick(), rig.channel.accepted(rig.now));
    rig.receive(link, MessageType::Public, &format!("{nick}!PUBLIC!orderbook"));
    assert!(rig.events().is_empty(), "nothing before a handshake");
    rig.receive(link, MessageType::Handshake, &peer_handshake(2));
    rig.drain();
    rig.receive(link, MessageType::Public, &format!("{nick}!PUBLIC!orderbook"));
    let via = Source::Direct(link);
    assert!(matches!(&rig.events()[..], [ChannelEvent::Public { via: from, .. }] if *from == via));
    rig.channel.send_private(nick, WORD, "A", Some(via), rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, link);
}

#[test]
fn half_open_connections_give_way_and_end_after_15_seconds() {
    let mut rig = Rig::up(1, &[]);
    let first = rig.channel.accepted(rig.now);
    let rest: Vec<LinkId> = (1..64).map(|_| rig.channel.accepted(rig.now)).collect();
    for link in &rest[..62] {
        rig.receive(*link, MessageType::Handshake, &peer_handshake(2));
    }
    rig.drain();
    let new = rig.channel.accepted(rig.now);
    let outputs = rig.drain();
    assert!(outputs.contains(&Output::Close { link: first }), "the oldest silent one");
    assert!(misbehaved(&outputs, Cause::TooManyConnections));
    rig.receive(rest[62], MessageType::Handshake, &peer_handshake(2));
    rig.receive(new, MessageType::Handshake, &peer_handshake(2));
    rig.drain();
    rig.run_until(at(600));
    let closed = rig.drain().iter().filter(|o| matches!(o, Output::Close { .. })).count();
    assert_eq!(closed, 64, "idle");
    let slow = rig.channel.accepted(rig.now);
    rig.run_until(at(614));
    assert!(!rig.drain().contains(&Output::Close { link: slow }));
    rig.run_until(at(615));
    assert!(rig.drain().contains(&Output::Close { link: slow }));
}

#[test]
fn who_has_proved_a_nick_stays_and_the_others_make_room() {
    let mut rig = Rig::up(1, &[]);
    let links: Vec<LinkId> = (0..64).map(|_| rig.channel.accepted(rig.now)).collect();
    for (link, byte) in links.iter().zip(2..) {
        rig.receive(*link, MessageType::Handshake, &peer_handshake(byte));
    }
    let prove = |rig: &mut Rig, link: LinkId, byte: u8| {
        rig.receive(link, MessageType::Private, &private(byte, key(1).nick(), WORD, "AAAA"));
    };
    prove(&mut rig, links[0], 2);
    rig.drain();
    let new = rig.channel.accepted(rig.now);
    assert!(rig.drain().contains(&Output::Close { link: links[1] }), "the oldest without proof");
    rig.receive(new, MessageType::Handshake, &peer_handshake(66));
    prove(&mut rig, new, 66);
    for (link, byte) in links.iter().zip(2..).skip(2) {
        prove(&mut rig, *link, byte);
    }
    rig.drain();
    let refused = rig.channel.accepted(rig.now);
    let closed = rig.drain().into_iter().filter_map(|output| match output {
        Output::Close { link } => Some(link),
        _ => None,
    });
    assert_eq!(closed.collect::<Vec<_>>(), [refused], "everybody is somebody");
}

#[test]
fn flood_on_a_direct_connection_is_dropped() {
    let mut rig = Rig::up(1, &[]);
    let link = rig.direct_to(2);
    let mut events = 0;
    for _ in 0..10_000 {
        let line = format!("{}!PUBLIC!orderbook", key(2).nick());
        rig.receive(link, MessageType::Public, &line);
        events += rig.events().len();
    }
    assert_eq!(events, 99, "the handshake was the first of 100");
}

#[test]
fn forged_messages_end_a_direct_connection() {
    let mut rig = Rig::up(1, &[]);
    let link = rig.channel.accepted(rig.now);
    rig.receive(link, MessageType::Handshake, &peer_handshake(2));
    rig.drain();
    let line = private(2, key(1).nick(), WORD, "AAAA").replace("AAAA", "BBBB");
    for _ in 0..10 {
        assert!(rig.events().is_empty());
        rig.receive(link, MessageType::Private, &line);
    }
    assert!(rig.drain().contains(&Output::Close { link }));
}

#[test]
fn peers_send_neither_peer_lists_nor_directory_handshakes_nor_pings() {
    let mut rig = Rig::up(1, &[]);
    let link = rig.direct_to(2);
    rig.receive(link, MessageType::PeerList, &format!("{};{ONION}", key(3).nick()));
    rig.receive(link, MessageType::DirectoryHandshake, &directory_answer(&[], true));
    rig.receive(link, MessageType::Ping, "");
    assert!(rig.drain().is_empty());
    assert!(rig.channel.peer(&key(3).nick()).is_none());
}

/// Defect 28, as far as it is decided here: names are handed to the proxy as they are, and nothing but an
/// onion name is ever dialled.
#[test]
fn no_udp53_ever() {
    let mut rig = Rig::with(1, |config| {
        config.allow_plain = false;
        config.directories = vec![DirectoryAddress::new(ONION.parse().unwrap())];
    });
    rig.bring_up(&[]);
    let to = key(2).nick();
    for location in ["example.org:5222", "127.0.0.1:5222", "localhost:80", "x.onion:5222"] {
        rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};{location}"));
        rig.drain();
        assert!(!rig.channel.connect_peer(to, rig.now), "{location}");
        assert!(rig.dialled().is_empty());
    }
}
