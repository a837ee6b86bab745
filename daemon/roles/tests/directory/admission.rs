//! Handshakes, proofs of nicks, and who may have which nick and onion name.

use std::time::Duration;

use joinery_proto::onion::envelope::MessageType::{
    Handshake, NickAuthChallenge, NickAuthProof, NickAuthResult, Public,
};
use joinery_proto::onion::nick_auth::Challenge;
use joinery_roles::directory::{Incident, Settings};

use crate::room::{NETWORK, Player, Room, handshake, key, onion};

const IDENTITY: &str = "nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion:5222";
const AUTH: &[&str] = &["nick_auth", "peerlist_features", "ping"];

#[test]
fn handshake_is_answered_with_features_and_message_of_the_day() {
    let mut room = Room::with(Settings { motd: "good day".into(), ..Settings::new(NETWORK) });
    let player = room.enter(1, "NOT-SERVING-ONION", &[]);
    let lines = room.lines(player.link);
    let nick = room.directory.nick();
    assert_eq!(
        lines,
        [format!(
            "795 {{\"app-name\": \"joinmarket\", \"directory\": true, \"proto-ver-min\": 5, \"proto-ver-max\": 5, \
             \"features\": {{\"peerlist_features\": true, \"ping\": true}}, \"accepted\": true, \
             \"nick\": \"{nick}\", \"network\": \"regtest\", \"motd\": \"good day\"}}"
        )]
    );
    assert_eq!((room.directory.members(), room.directory.makers()), (1, 0));
}

/// Sends a handshake; why it was refused, and whether that was said.
fn refusal(room: &mut Room, text: &str) -> (Option<Incident>, bool) {
    let link = room.connect();
    room.say(link, Handshake, text);
    let said = room.take(link).iter().any(|line| line.line.contains("\"accepted\": false"));
    (room.closed(link), said)
}

#[test]
fn handshakes_of_others_are_refused_and_answered_when_they_can_be_read() {
    let good = handshake(&key(1), "NOT-SERVING-ONION", &[]);
    let cases = [
        ("\"joinmarket\"", "\"JoinMarket\"", Incident::ForeignHandshake, true),
        ("\"proto-ver\": 5", "\"proto-ver\": 6", Incident::ForeignHandshake, true),
        ("\"regtest\"", "\"mainnet\"", Incident::ForeignHandshake, true),
        ("\"directory\": false", "\"directory\": true", Incident::ForeignHandshake, true),
        ("NOT-SERVING-ONION", "", Incident::BadLocation, true),
        ("NOT-SERVING-ONION", "127.0.0.1:5222", Incident::BadLocation, true),
        ("NOT-SERVING-ONION", "expyuzz4wqqyqhjn.onion:80", Incident::BadLocation, true),
        ("\"J5", "\"J6", Incident::BadNick, true),
        ("\"features\": {}, ", "", Incident::MalformedHandshake, false),
        ("\"features\": {}", "\"features\": {\"a\": {}}", Incident::MalformedHandshake, false),
        ("{\"app-name\"", "[\"app-name\"", Incident::MalformedHandshake, false),
    ];
    for (what, instead, incident, said) in cases {
        let text = good.replacen(what, instead, 1);
        assert_ne!(text, good);
        assert_eq!(refusal(&mut Room::new(), &text), (Some(incident), said), "{text}");
    }
    // One wrong character in an otherwise good name: the checksum does not match.
    let mistyped =
        onion(1).replacen(&onion(1)[..1], if onion(1).starts_with('a') { "b" } else { "a" }, 1);
    let text = handshake(&key(1), &mistyped, &[]);
    assert_eq!(refusal(&mut Room::new(), &text), (Some(Incident::BadLocation), true));
}

#[test]
fn loopback_locations_are_for_tests_only() {
    let text = handshake(&key(1), "127.0.0.1:5222", &[]);
    let mut room = Room::with(Settings { loopback_peers: true, ..Settings::new(NETWORK) });
    assert_eq!(refusal(&mut room, &text), (None, false));
    let text = handshake(&key(2), "192.168.1.1:5222", &[]);
    assert_eq!(refusal(&mut room, &text), (Some(Incident::BadLocation), true));
}

#[test]
fn whoever_does_not_shake_hands_is_closed() {
    let mut room = Room::new();
    let (silent, talker) = (room.connect(), room.connect());
    room.say(talker, Public, "J5CdDnhVDhc5R7Gg!PUBLIC!orderbook");
    assert_eq!(room.closed(talker), Some(Incident::NoHandshake));
    room.pass(Duration::from_millis(9_999));
    assert_eq!(room.closed(silent), None);
    room.pass(Duration::from_millis(1));
    assert_eq!(room.closed(silent), Some(Incident::HandshakeTimeout));
    assert_eq!(room.directory.connections(), 0);
}

#[test]
fn one_active_nick_and_one_nick_per_onion_name() {
    let mut room = Room::new();
    let first = room.maker(1);
    let again = handshake(&key(1), "NOT-SERVING-ONION", AUTH);
    assert_eq!(refusal(&mut room, &again), (Some(Incident::NickTaken), true));
    // The port does not matter.
    let same_onion = handshake(&key(2), &onion(1).replace(":5222", ":80"), &[]);
    assert_eq!(refusal(&mut room, &same_onion), (Some(Incident::OnionTaken), true));
    room.leave(first.link);
    assert_eq!(refusal(&mut room, &again), (None, false));
    assert_eq!(refusal(&mut room, &same_onion), (None, false));
}

#[test]
fn the_directorys_own_nick_cannot_be_taken() {
    let mut room = Room::new();
    let own = room.directory.nick().to_string();
    let text = handshake(&key(1), "NOT-SERVING-ONION", &[]).replace(key(1).nick().as_str(), &own);
    assert_eq!(refusal(&mut room, &text), (Some(Incident::NickTaken), true));
}

#[test]
fn full_directory_refuses_and_counts_connections_that_have_yet_to_shake_hands() {
    let mut room = Room::with(Settings { max_peers: 20, ..Settings::new(NETWORK) });
    for number in 0..20 {
        room.taker(number);
    }
    let text = handshake(&key(99), "NOT-SERVING-ONION", &[]);
    assert_eq!(refusal(&mut room, &text), (Some(Incident::Full), true));
    let waiting = [room.connect(), room.connect()];
    // Sockets that say nothing do not keep newcomers out: the oldest of them goes.
    let newcomer = room.connect();
    assert_eq!(room.closed(newcomer), None);
    assert_eq!(waiting.map(|link| room.closed(link)), [Some(Incident::Full), None]);
}

/// Answers the challenge that a player got.
fn prove(room: &mut Room, player: &Player, identity: &str) -> Vec<String> {
    let challenge = room.take(player.link).into_iter().find(|line| line.kind == NickAuthChallenge);
    let challenge = Challenge::parse(&challenge.unwrap().line, identity).unwrap();
    let proof = challenge.answer(&player.handshake, &player.key).to_line();
    room.say(player.link, NickAuthProof, &proof);
    room.lines(player.link)
}

#[test]
fn proved_owner_displaces_whoever_holds_its_nick() {
    let mut room = Room::with_identity(IDENTITY);
    let witness = room.taker(9);
    let squatter = room.maker(1);
    let owner = room.enter(1, "NOT-SERVING-ONION", AUTH);
    // Not yet: what it says now reaches nobody.
    room.say(owner.link, Public, &owner.public("orderbook"));
    assert!(room.lines(witness.link).is_empty());
    assert_eq!(prove(&mut room, &owner, IDENTITY), ["807 {\"code\":\"ok\",\"verified\":true}"]);
    assert_eq!(room.closed(squatter.link), Some(Incident::Displaced));
    room.say(owner.link, Public, &owner.public("orderbook"));
    // The departure of the old one comes before the first line of the new one.
    let departure = format!("789 {};{};D", owner.nick(), onion(1));
    let line = format!("687 {}", owner.public("orderbook"));
    assert_eq!(room.lines(witness.link), [departure, line]);
    assert_eq!(room.directory.members(), 2);
    // And a squatter cannot do the same.
    let text = handshake(&key(1), "NOT-SERVING-ONION", &[]);
    assert_eq!(refusal(&mut room, &text), (Some(Incident::NickTaken), true));
}

#[test]
fn free_nick_is_given_before_the_proof_and_taken_back_without() {
    let mut room = Room::with_identity(IDENTITY);
    let witness = room.taker(9);
    let player = room.enter(1, "NOT-SERVING-ONION", AUTH);
    room.say(player.link, Public, &player.public("orderbook"));
    assert_eq!(room.lines(witness.link).len(), 1);
    room.pass(Duration::from_secs(30));
    assert_eq!(room.closed(player.link), Some(Incident::ProofTimeout));
    let last = room.lines(player.link).pop();
    assert_eq!(last.unwrap(), "807 {\"code\":\"expired\",\"verified\":false}");
    assert_eq!(room.lines(witness.link), [format!("789 {};NOT-SERVING-ONION;D", player.nick())]);
}

#[test]
fn wrong_proofs_are_told_what_they_are_and_closed() {
    for (spoil, verdict) in [
        ("other key", "invalid"),
        ("other handshake", "invalid"),
        ("junk", "malformed"),
        ("extra key", "malformed"),
    ] {
        let mut room = Room::with_identity(IDENTITY);
        let holder = room.taker(1);
        let thief = room.enter(1, "NOT-SERVING-ONION", AUTH);
        let lines = room.take(thief.link);
        let challenge = Challenge::parse(&lines[1].line, IDENTITY).unwrap();
        let proof = match spoil {
            "other key" => challenge.answer(&thief.handshake, &key(2)).to_line(),
            "other handshake" => challenge.answer("{}", &thief.key).to_line(),
            "junk" => "junk".to_owned(),
            _ => {
                let good = challenge.answer(&thief.handshake, &thief.key).to_line();
                good.replace('}', ",\"x\":1}")
            }
        };
        room.say(thief.link, NickAuthProof, &proof);
        let answer = room.take(thief.link);
        assert_eq!(answer[0].kind, NickAuthResult);
        assert_eq!(answer[0].line, format!("{{\"code\":\"{verdict}\",\"verified\":false}}"));
        assert_eq!(room.closed(thief.link), Some(Incident::ProofFailed), "{spoil}");
        assert_eq!(room.closed(holder.link), None, "{spoil}");
    }
}

#[test]
fn messages_of_the_proof_outside_of_it_close_the_connection() {
    for kind in [NickAuthChallenge, NickAuthProof, NickAuthResult] {
        let mut room = Room::with_identity(IDENTITY);
        let player = room.taker(1);
        room.say(player.link, kind, "{}");
        assert_eq!(room.closed(player.link), Some(Incident::ProofUnasked), "{kind:?}");
    }
    // A proof is taken once.
    let mut room = Room::with_identity(IDENTITY);
    let player = room.enter(1, "NOT-SERVING-ONION", AUTH);
    assert_eq!(prove(&mut room, &player, IDENTITY).len(), 1);
    room.say(player.link, NickAuthProof, "{}");
    assert_eq!(room.closed(player.link), Some(Incident::ProofUnasked));
}

#[test]
fn challenges_differ_and_without_an_identity_there_are_none() {
    let mut room = Room::with_identity(IDENTITY);
    let mut challenges = std::collections::HashSet::new();
    for number in 0..50 {
        let player = room.enter(number, "NOT-SERVING-ONION", AUTH);
        let lines = room.take(player.link);
        assert!(lines[0].line.contains("\"nick_auth\": true"));
        assert!(challenges.insert(lines[1].line.clone()));
    }
    let mut room = Room::new();
    let player = room.enter(1, "NOT-SERVING-ONION", AUTH);
    let lines = room.take(player.link);
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].line.contains("nick_auth"));
}
