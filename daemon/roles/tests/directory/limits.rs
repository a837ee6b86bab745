//! Floods and slow readers: what one peer does must not hurt others, and the log stays readable.

use std::time::Duration;

use joinery_proto::onion::envelope::MessageType::{GetPeerList, Ping, Private, Public};
use joinery_roles::directory::{Incident, Settings, limits};

use crate::room::{NETWORK, Player, Room};

/// Sends `text` in public until the connection is closed; how many lines got through.
fn flood(room: &mut Room, player: &Player, witness: &Player, text: &str) -> usize {
    for _ in 0..100 {
        room.say(player.link, Public, &player.public(text));
    }
    let prefix = format!("687 {}", player.nick());
    room.lines(witness.link).iter().filter(|line| line.starts_with(&prefix)).count()
}

#[test]
fn flood_of_orderbook_requests_is_cut_at_three() {
    let mut room = Room::new();
    let (player, witness) = (room.taker(1), room.taker(2));
    assert_eq!(flood(&mut room, &player, &witness, "orderbook"), 3);
    assert_eq!(room.closed(player.link), Some(Incident::OrderbookFlood));
}

#[test]
fn flood_of_used_commitments_is_cut_at_thirty() {
    let mut room = Room::new();
    let (player, witness) = (room.taker(1), room.taker(2));
    let hp2 = format!("hp2 {}", "ab".repeat(32));
    assert_eq!(flood(&mut room, &player, &witness, &hp2), 30);
    assert_eq!(room.closed(player.link), Some(Incident::PublicFlood));
}

#[test]
fn malformed_public_lines_count() {
    let mut room = Room::new();
    let player = room.taker(1);
    for _ in 0..31 {
        assert_eq!(room.closed(player.link), None);
        room.say(player.link, Public, "junk");
    }
    assert_eq!(room.closed(player.link), Some(Incident::PublicFlood));
}

#[test]
fn a_maker_that_keeps_the_rates_of_the_network_is_never_closed() {
    let mut room = Room::new();
    let (maker, witness) = (room.maker(1), room.taker(2));
    for _ in 0..100 {
        for offer in 0..12 {
            let text = format!("sw0absoffer {offer} 27300 1000000 0 500");
            room.say(maker.link, Public, &maker.public(&text));
        }
        for _ in 0..2 {
            room.say(maker.link, Public, &maker.public("orderbook"));
        }
        room.say(maker.link, GetPeerList, "");
        for _ in 0..6 {
            room.say(maker.link, Ping, "");
        }
        room.pass(Duration::from_secs(60));
        room.say(witness.link, Ping, "");
        assert_eq!(room.closed(maker.link), None);
    }
}

#[test]
fn floods_of_pings_and_peer_list_requests_are_cut() {
    for (kind, limit, incident) in
        [(Ping, 6, Incident::PingFlood), (GetPeerList, 3, Incident::PeerListFlood)]
    {
        let mut room = Room::new();
        let player = room.taker(1);
        for _ in 0..limit {
            room.say(player.link, kind, "");
        }
        assert_eq!(room.lines(player.link).len(), limit);
        assert_eq!(room.closed(player.link), None);
        room.say(player.link, kind, "");
        assert_eq!(room.closed(player.link), Some(incident));
    }
}

#[test]
fn lines_beyond_the_rate_are_dropped() {
    let mut room = Room::new();
    let (player, other) = (room.taker(1), room.taker(2));
    for _ in 0..5_000 {
        room.say(player.link, Private, &player.private(&other, "x a b c"));
    }
    // The handshake was one of the thousand.
    assert_eq!(room.lines(other.link).len(), 999);
    room.pass(Duration::from_secs(1));
    room.say(player.link, Private, &player.private(&other, "x a b c"));
    assert_eq!(room.lines(other.link).len(), 1);
}

#[test]
fn peer_list_with_a_million_entries_is_ignored() {
    let mut room = Room::new();
    let (player, witness) = (room.taker(1), room.taker(2));
    let line = vec!["J5DdKBhSf2Ykxqqy;NOT-SERVING-ONION;D"; 1_000_000].join(",");
    let text = format!("{{\"type\": 789, \"line\": \"{line}\"}}");
    room.raw(player.link, text.as_bytes());
    assert_eq!(room.closed(player.link), Some(Incident::LineTooLong));
    assert_eq!(room.lines(witness.link).len(), 1, "only that the sender is gone");
}

#[test]
fn slow_reader_is_closed_and_others_get_everything() {
    let mut room = Room::new();
    let (slow, quick) = (room.taker(1), room.taker(2));
    room.deafen(slow.link);
    let mut sent = 0;
    'all: for number in 10.. {
        let speaker = room.taker(number);
        for _ in 0..30 {
            room.say(speaker.link, Public, &speaker.public("cancel 0"));
            sent += 1;
            if room.closed(slow.link).is_some() {
                break 'all;
            }
        }
    }
    assert_eq!(room.closed(slow.link), Some(Incident::SlowReader));
    assert_eq!(sent, limits::QUEUE as usize + 1);
    let prefix = "687 ";
    let got = room.lines(quick.link).iter().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(got, sent);
}

#[test]
fn private_messages_that_nobody_takes_are_dropped_and_their_memory_is_bounded() {
    let mut room = Room::with(Settings::new(NETWORK));
    let deaf: Vec<Player> = (0..15).map(|number| room.taker(number)).collect();
    for player in &deaf {
        room.deafen(player.link);
    }
    for number in 0..24 {
        let speaker = room.taker(100 + number);
        for player in &deaf {
            for _ in 0..5 {
                let text = format!("x {}", "a".repeat(39_000));
                room.say(speaker.link, Private, &speaker.private(player, &text));
            }
        }
        room.pass(Duration::from_secs(10));
    }
    assert!(room.directory.waiting_bytes() <= limits::DIRECTED_BYTES);
    assert!(room.directory.incidents(Incident::QueueFull) > 50);
    for player in &deaf {
        assert!(room.take(player.link).len() <= limits::QUEUE as usize);
        room.leave(player.link);
    }
    assert_eq!(room.directory.waiting_bytes(), 0, "nothing is lost track of");
}

#[test]
fn floods_are_logged_once_a_minute_each() {
    let mut room = Room::new();
    room.taker(1);
    for number in 0..600 {
        // Ten a second for a minute: a spoofed sender, a line that is none, an onion that is none.
        let spoofer = room.taker(1_000 + number);
        room.say(spoofer.link, Public, "J5CdDnhVDhc5R7Gg!PUBLIC!cancel 0");
        let junk = room.taker(2_000 + number);
        room.raw(junk.link, b"junk");
        room.enter(3_000 + number, "127.0.0.1:1", &[]);
        room.pass(Duration::from_millis(100));
    }
    for incident in [Incident::SpoofedSender, Incident::MalformedLine, Incident::BadLocation] {
        let logged: Vec<_> = room.facts.iter().filter(|fact| fact.incident == incident).collect();
        assert!(logged.len() <= 2, "{logged:?}");
        assert_eq!(room.directory.incidents(incident), 600);
    }
    room.pass(Duration::from_secs(120));
    for incident in [Incident::SpoofedSender, Incident::MalformedLine, Incident::BadLocation] {
        let logged = room.facts.iter().filter(|fact| fact.incident == incident);
        assert_eq!(logged.map(|fact| fact.count).sum::<u64>(), 600, "none is lost");
    }
}
