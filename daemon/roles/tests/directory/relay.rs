//! Messages, peer lists, departures and signs of life.

use std::time::Duration;

use joinery_proto::onion::envelope::MessageType::{
    GetPeerList, Handshake, PeerList, Ping, Pong, Private, Public, Unknown,
};
use joinery_proto::onion::peerlist;
use joinery_roles::directory::{Incident, Settings};

use crate::room::{NETWORK, Player, Room, handshake, key, onion};

#[test]
fn public_messages_reach_everybody_but_their_sender() {
    let mut room = Room::new();
    let (a, b, c) = (room.taker(1), room.maker(2), room.maker(3));
    let stranger = room.connect();
    let offer = b.public("sw0reloffer 0 27300 100000000 0 0.00002!sw0absoffer 1 27300 1000 0 500");
    room.say(b.link, Public, &offer);
    assert_eq!(room.lines(a.link), [format!("687 {offer}")]);
    assert_eq!(room.lines(c.link), [format!("687 {offer}")]);
    assert!(room.lines(b.link).is_empty());
    assert!(room.lines(stranger).is_empty());
    assert_eq!(room.directory.counters().public_recipients, 2);
}

#[test]
fn private_messages_reach_one_peer_who_learns_where_the_sender_is() {
    let mut room = Room::new();
    let (taker, maker, other) = (room.taker(1), room.maker(2), room.taker(3));
    let line = maker.private(&taker, "pubkey aa pub sig");
    room.say(maker.link, Private, &line);
    let location = format!("789 {};{}", maker.nick(), onion(2));
    assert_eq!(room.lines(taker.link), [format!("685 {line}"), location.clone()]);
    // The location is told once as long as nobody else was told in between.
    room.say(maker.link, Private, &line);
    assert_eq!(room.lines(taker.link), [format!("685 {line}")]);
    room.say(maker.link, Private, &maker.private(&other, "error x pub sig"));
    assert_eq!(room.lines(other.link).len(), 2);
    room.say(maker.link, Private, &line);
    assert_eq!(room.lines(taker.link), [format!("685 {line}"), location]);
    // A taker serves nothing: there is nothing to tell.
    let line = taker.private(&maker, "fill 0 1 2 P3 pub sig");
    room.say(taker.link, Private, &line);
    assert_eq!(room.lines(maker.link), [format!("685 {line}")]);
    assert!(room.lines(other.link).is_empty());
}

#[test]
fn private_messages_to_nobody_vanish_and_keep_their_sender() {
    let mut room = Room::new();
    let maker = room.maker(1);
    let own = room.directory.nick().to_string();
    for to in ["J5CdDnhVDhc5R7Gg", own.as_str(), maker.nick().as_str()] {
        room.say(maker.link, Private, &format!("{}!{to}!pubkey aa pub sig", maker.nick()));
    }
    assert_eq!((room.lines(maker.link).len(), room.closed(maker.link)), (0, None));
    assert_eq!(room.directory.counters().private_unknown, 3);
}

/// Defects row 12: a directory that does not check the sender lets anybody speak as anybody.
#[test]
fn sender_auth() {
    for kind in [Public, Private] {
        let mut room = Room::new();
        let (thief, maker, witness) = (room.taker(1), room.maker(2), room.taker(3));
        let line = match kind {
            Public => maker.public("cancel 0"),
            _ => maker.private(&witness, "pubkey aa pub sig"),
        };
        room.say(thief.link, kind, &line);
        assert_eq!(room.closed(thief.link), Some(Incident::SpoofedSender));
        assert_eq!(room.closed(maker.link), None);
        let gone = format!("789 {};NOT-SERVING-ONION;D", thief.nick());
        assert_eq!(room.lines(witness.link), [gone]);
    }
}

#[test]
fn what_would_close_a_reference_peer_is_never_passed_on() {
    let mut room = Room::new();
    let (sender, witness) = (room.taker(1), room.taker(2));
    let (public, private) = (sender.public("x"), sender.private(&witness, "x"));
    for (kind, line) in [
        (Public, "no separators".to_owned()),
        (Public, sender.nick()),
        (Public, sender.public("")),
        (Public, sender.public("!orderbook")),
        (Public, sender.public("cancel 0\r\n{}")),
        (Public, sender.public(&"x".repeat(9_000))),
        // The number and the recipient contradict each other.
        (Public, private.clone()),
        (Private, public.clone()),
        (Private, sender.private(&witness, "")),
        (Private, format!("{}!nobody!x", sender.nick())),
        // Longer than what reference peers take once it is escaped.
        (Private, sender.private(&witness, &"\u{20bf}".repeat(10_000))),
        // Numbers that the reference believes, whoever sends them.
        (Unknown(785), onion(2)),
        (Unknown(787), onion(2)),
        (Unknown(797), String::new()),
        (PeerList, format!("{};{};D", witness.nick(), onion(2))),
        (Pong, String::new()),
        (Handshake, handshake(&key(5), "NOT-SERVING-ONION", &[])),
    ] {
        room.say(sender.link, kind, &line);
        assert!(room.lines(witness.link).is_empty(), "{kind:?} {}", line.len());
        assert_eq!(room.closed(sender.link), None, "{kind:?} {}", line.len());
    }
}

#[test]
fn lines_that_are_no_messages_close_the_connection() {
    for (line, incident) in [
        (&b""[..], Incident::MalformedLine),
        (b"{\"type\": \"687\", \"line\": \"x\"}", Incident::MalformedLine),
        (b"\xff\xfe", Incident::MalformedLine),
        (b"{\"type\": 687, \"line\": {}}", Incident::MalformedLine),
        (&[b' '; 40_001], Incident::LineTooLong),
        (b"{\"type\": 801, \"line\": \"\"}", Incident::Goodbye),
    ] {
        let mut room = Room::new();
        let player = room.taker(1);
        room.raw(player.link, line);
        assert_eq!(room.closed(player.link), Some(incident));
        assert!(room.lines(player.link).is_empty());
    }
}

#[test]
fn departures_are_told_once_and_together() {
    let mut room = Room::new();
    let witness = room.taker(1);
    let players: Vec<Player> = (10..15).map(|number| room.maker(number)).collect();
    for player in &players {
        room.leave(player.link);
    }
    // The first at once, the others after a second in one line.
    let entry = |player: &Player, number| format!("{};{};D", player.nick(), onion(number));
    assert_eq!(room.lines(witness.link), [format!("789 {}", entry(&players[0], 10))]);
    room.pass(Duration::from_secs(1));
    let rest: Vec<_> = (11..15).zip(&players[1..]).map(|(n, player)| entry(player, n)).collect();
    assert_eq!(room.lines(witness.link), [format!("789 {}", rest.join(","))]);
    room.pass(Duration::from_secs(100));
    assert!(room.lines(witness.link).is_empty());
}

#[test]
fn departure_of_thousands_makes_nobody_a_slow_reader() {
    let mut room = Room::with(Settings { max_peers: 20_000, ..Settings::new(NETWORK) });
    let witness = room.taker(50_000);
    let crowd: Vec<Player> =
        (0..12_000).map(|number| room.enter(number, &onion(number), &[])).collect();
    room.deafen(witness.link);
    for player in &crowd {
        room.leave(player.link);
    }
    room.pass(Duration::from_secs(10));
    assert_eq!(room.closed(witness.link), None);
    assert_eq!(listed(&mut room, &witness).len(), crowd.len());
}

#[test]
fn whoever_returns_at_once_has_not_left() {
    let mut room = Room::new();
    let witness = room.taker(1);
    let (first, second) = (room.maker(2), room.maker(3));
    room.leave(first.link);
    room.leave(second.link);
    room.maker(3);
    room.pass(Duration::from_secs(2));
    let lines = room.lines(witness.link);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(&first.nick()));
}

#[test]
fn a_peer_that_comes_and_goes_all_the_time_costs_one_line_a_second() {
    let mut room = Room::new();
    let witness = room.taker(1);
    for _ in 0..500 {
        let visitor = room.taker(2);
        room.leave(visitor.link);
        room.pass(Duration::from_millis(20));
    }
    let lines = room.lines(witness.link).len();
    assert!((1..=11).contains(&lines), "{lines} lines in 10 s");
}

/// Everything that is in the peer lists a player got.
fn listed(room: &mut Room, player: &Player) -> Vec<peerlist::PeerEntry> {
    let lines = room.take(player.link).into_iter().filter(|line| line.kind == PeerList);
    lines.flat_map(|line| peerlist::parse(&line.line)).collect()
}

#[test]
fn peer_list_has_makers_with_features_for_those_who_read_them() {
    let mut room = Room::new();
    room.enter(1, &onion(1), &["ping", "neutrino_compat"]);
    room.maker(2);
    let offering = room.taker(3);
    room.say(offering.link, Public, &offering.public("sw0absoffer 0 27300 100000 0 500"));
    let plain = room.taker(4);
    let modern = room.enter(5, "NOT-SERVING-ONION", &["peerlist_features"]);
    for player in [&plain, &modern] {
        room.take(player.link);
        room.say(player.link, GetPeerList, "");
    }
    let texts = |entries: Vec<peerlist::PeerEntry>| {
        entries.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let nick = |number| key(number).nick();
    let expected = |features: &str| {
        [
            format!("{};{}{features}", nick(1), onion(1)),
            format!("{};{}", nick(2), onion(2)),
            format!("{};NOT-SERVING-ONION", nick(3)),
        ]
    };
    assert_eq!(texts(listed(&mut room, &plain)), expected(""));
    assert_eq!(texts(listed(&mut room, &modern)), expected(";F:neutrino_compat+ping"));
    // The same difference in what is told of a sender.
    let chatty = room.enter(6, &onion(6), &["ping"]);
    for player in [&plain, &modern] {
        room.say(chatty.link, Private, &chatty.private(player, "x a b c"));
    }
    assert!(room.lines(plain.link)[1].ends_with(":5222"));
    assert!(room.lines(modern.link)[1].ends_with(";F:ping"));
}

#[test]
fn empty_peer_list_is_an_answer_too_and_the_directory_lists_itself_where_it_serves() {
    let mut room = Room::new();
    let player = room.taker(1);
    room.say(player.link, GetPeerList, "");
    assert_eq!(room.lines(player.link), ["789 "]);
    let address = onion(77).parse().unwrap();
    let mut room = Room::with(Settings { address: Some(address), ..Settings::new(NETWORK) });
    let (player, maker) = (room.taker(1), room.maker(2));
    room.say(player.link, GetPeerList, "");
    let own = format!("{};{}", room.directory.nick(), onion(77));
    let entry = format!("{};{}", maker.nick(), onion(2));
    assert_eq!(room.lines(player.link), [format!("789 {own},{entry}")]);
    room.say(maker.link, Private, &maker.private(&player, "x a b c"));
    assert_eq!(room.lines(player.link)[1], format!("789 {entry},{own}"));
}

#[test]
fn long_peer_list_comes_in_lines_that_fit_as_they_are_taken() {
    let mut room = Room::new();
    for number in 0..950 {
        room.maker(number);
    }
    let reader = room.taker(5_000);
    room.deafen(reader.link);
    room.say(reader.link, GetPeerList, "");
    assert_eq!(
        listed(&mut room, &reader).len(),
        100,
        "the next line waits for the first to be taken"
    );
    let hasty = room.taker(5_001);
    room.say(hasty.link, GetPeerList, "");
    let lines = room.take(hasty.link);
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|line| line.line.len() < 39_000));
    let mut nicks: Vec<_> =
        lines.iter().flat_map(|line| peerlist::parse(&line.line)).map(|entry| entry.nick).collect();
    nicks.sort();
    nicks.dedup();
    assert_eq!(nicks.len(), 950);
}

#[test]
fn huge_peer_list_is_a_random_sample() {
    let mut room = Room::with(Settings { max_peers: 30_000, ..Settings::new(NETWORK) });
    for number in 0..25_000 {
        room.enter(number, &onion(number), &[]);
    }
    let reader = room.taker(90_000);
    let mut ask = || {
        room.say(reader.link, GetPeerList, "");
        listed(&mut room, &reader).into_iter().map(|entry| entry.nick).collect::<Vec<_>>()
    };
    let (first, second) = (ask(), ask());
    // 4 000 on average; the deviation is 58.
    assert!((3_600..4_400).contains(&first.len()), "{}", first.len());
    assert_ne!(first, second, "another sample each time");
}

#[test]
fn pings_are_answered() {
    let mut room = Room::new();
    let player = room.taker(1);
    room.say(player.link, Ping, "");
    assert_eq!(room.lines(player.link), ["799 "]);
}

#[test]
fn silent_peers_are_asked_and_evicted() {
    let mut room = Room::new();
    let pinged = room.enter(1, "NOT-SERVING-ONION", &["ping"]);
    let deaf = room.enter(2, "NOT-SERVING-ONION", &["ping"]);
    let maker = room.maker(3);
    let quiet_maker = room.maker(4);
    let taker = room.taker(5);
    for player in [&pinged, &deaf] {
        room.take(player.link);
    }
    room.pass(Duration::from_secs(599));
    for player in [&pinged, &deaf, &maker, &taker] {
        assert!(room.lines(player.link).is_empty(), "asked too early");
    }
    room.pass(Duration::from_secs(61));
    assert_eq!(room.lines(pinged.link), ["798 "]);
    assert_eq!(room.lines(deaf.link), ["798 "]);
    let request = format!("687 {}!PUBLIC!orderbook", room.directory.nick());
    assert_eq!(room.lines(maker.link), std::slice::from_ref(&request));
    assert_eq!(room.lines(quiet_maker.link), [request]);
    assert!(room.lines(taker.link).is_empty());
    room.say(pinged.link, Pong, "");
    let own = room.directory.nick();
    room.say(maker.link, Private, &format!("{}!{own}!sw0absoffer 0 1 2 3 4 a b", maker.nick()));
    room.pass(Duration::from_secs(30));
    assert_eq!(room.closed(deaf.link), Some(Incident::NoPong));
    assert_eq!(room.closed(pinged.link), None);
    room.pass(Duration::from_secs(630));
    // Asked again, because it was heard and is silent again.
    assert!(room.lines(pinged.link).contains(&"798 ".to_owned()));
    room.say(pinged.link, Pong, "");
    room.pass(Duration::from_secs(300));
    assert_eq!(room.closed(quiet_maker.link), Some(Incident::Idle));
    assert_eq!(room.closed(taker.link), Some(Incident::Idle));
    assert_eq!((room.closed(pinged.link), room.closed(maker.link)), (None, None));
}
