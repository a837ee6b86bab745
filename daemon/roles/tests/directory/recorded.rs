//! Recorded directories and coinjoins, played to ours. Where the recorded nodes differ from each other or from the
//! rules of `spec/roles.md` 8, the text of each case says what ours does instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use joinery_proto::bitcoin::hex::FromHex;
use joinery_proto::onion::envelope::MessageType::{
    self, Handshake, NickAuthChallenge, NickAuthProof, PeerList, Private, Public,
};
use joinery_proto::onion::nick_auth::{Challenge, NickAuthError, Proof};
use joinery_proto::private_message::NickKey;
use joinery_roles::directory::{Incident, Settings};
use joinery_roles::event::LinkId;
use serde_json::Value;

use crate::room::{Room, quoted};

fn load(name: &str) -> Value {
    joinery_testkit::vectors::load(env!("CARGO_MANIFEST_DIR"), name)
}

const SERVING: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:5222";
const A: &str = "J5CdDnhVDhc5R7Gg";
const B: &str = "J5DdKBhSf2Ykxqqy";
const THIRD: &str = "J5zzzzzzzzzzzzzz";

fn hello(nick: &str, location: &str, network: &str, features: &str) -> String {
    format!(
        "{{\"app-name\": \"joinmarket\", \"directory\": false, \"location-string\": \"{location}\", \
         \"proto-ver\": 5, \"features\": {features}, \"nick\": \"{nick}\", \"network\": \"{network}\"}}"
    )
}

fn enter(room: &mut Room, text: &str) -> LinkId {
    let link = room.connect();
    room.say(link, Handshake, text);
    link
}

/// What a recorded client got, with the parts that are the directory's own business taken out.
fn expected(step: &Value, who: &str) -> Vec<(u64, String)> {
    let messages = step[who].as_array().into_iter().flatten();
    let messages = messages.filter_map(|message| {
        let kind = message["type"].as_u64()?;
        let line =
            message["line"].as_str().map_or_else(|| message["line"].to_string(), str::to_owned);
        Some((kind, essence(kind, &line)))
    });
    messages.collect()
}

fn got(room: &mut Room, link: LinkId) -> Vec<(u64, String)> {
    let lines = room.take(link).into_iter();
    lines
        .map(|line| {
            let kind = u64::from(line.kind.number());
            (kind, essence(kind, &line.line))
        })
        .collect()
}

/// Of a directory's handshake only whether it accepts; of a peer list all entries but the directory's.
fn essence(kind: u64, line: &str) -> String {
    match kind {
        795 => line.replace(' ', "").contains("\"accepted\":true").to_string(),
        789 => {
            let mut entries: Vec<_> =
                line.split(',').filter(|entry| !entry.starts_with("J5dn")).collect();
            entries.sort_unstable();
            entries.join(",")
        }
        _ => line.to_owned(),
    }
}

fn is_closed(step: &Value, who: &str) -> bool {
    step[who].as_array().is_some_and(|all| all.iter().any(|one| one == "connection closed"))
}

#[test]
fn reference_directory_session() {
    let file = load("directory_behaviour.json");
    let steps = file["reference_directory"].as_array().unwrap();
    let mut room = Room::with(Settings::new("testnet"));
    let (mut a, mut b) = (LinkId(0), LinkId(0));
    for step in steps {
        let stimulus = step["stimulus"].as_str().unwrap();
        let case = |what: &str| stimulus.contains(what);
        if case("client A") {
            a = enter(&mut room, &hello(A, "NOT-SERVING-ONION", "testnet", "{}"));
            assert_eq!(got(&mut room, a), expected(step, "A_receives"), "{stimulus}");
        } else if case("client B") {
            b = enter(&mut room, &hello(B, SERVING, "testnet", "{}"));
            assert_eq!(got(&mut room, b), expected(step, "B_receives"), "{stimulus}");
        } else if case("A sends 687") {
            room.say(a, Public, &format!("{A}!PUBLIC!orderbook"));
            assert_eq!(got(&mut room, b), expected(step, "B_receives"), "{stimulus}");
            assert_eq!(got(&mut room, a), expected(step, "A_receives"), "{stimulus}");
        } else if case("B sends 685") {
            room.say(b, Private, &format!("{B}!{A}!pubkey aa pub sig"));
            assert_eq!(got(&mut room, a), expected(step, "A_receives"), "{stimulus}");
        } else if case("(spoof)") {
            // The reference passes it on; ours closes the sender, so somebody else tries it here.
            let thief = enter(&mut room, &hello(THIRD, "NOT-SERVING-ONION", "testnet", "{}"));
            room.say(thief, Public, &format!("{A}!PUBLIC!cancel 0"));
            assert_eq!(room.closed(thief), Some(Incident::SpoofedSender));
            room.pass(Duration::from_secs(2));
            for witness in [a, b] {
                let lines = got(&mut room, witness);
                assert_eq!(lines, [(789, format!("{THIRD};NOT-SERVING-ONION;D"))], "{stimulus}");
            }
        } else if let Some((_, what)) = stimulus.split_once("a third handshaked client sends: ") {
            let third = enter(&mut room, &hello(THIRD, "NOT-SERVING-ONION", "testnet", "{}"));
            room.take(third);
            let padded = |length: usize| {
                let start = "{\"type\": 4242, \"line\": \"";
                format!("{start}{}\"}}", "x".repeat(length - start.len() - 2))
            };
            let line = match what {
                "798 ''" => "{\"type\": 798, \"line\": \"\"}".to_owned(),
                "791 ''" => "{\"type\": 791, \"line\": \"\"}".to_owned(),
                "type 4242" => "{\"type\": 4242, \"line\": \"x\"}".to_owned(),
                "799 ''" => "{\"type\": 799, \"line\": \"\"}".to_owned(),
                "801 ''" => "{\"type\": 801, \"line\": \"\"}".to_owned(),
                "empty line (CR LF only)" => String::new(),
                // Which end a line has is seen where lines are cut.
                "line terminated by LF only" => "{\"type\": 4242, \"line\": \"\"}".to_owned(),
                "type as JSON string" => "{\"type\": \"687\", \"line\": \"x\"}".to_owned(),
                "687 without separators" => "{\"type\": 687, \"line\": \"x\"}".to_owned(),
                "line of exactly 40000 bytes" => padded(40_000),
                "line of 40001 bytes" => padded(40_001),
                "787 with B's location" => format!("{{\"type\": 787, \"line\": \"{SERVING}\"}}"),
                other => panic!("unknown stimulus {other}"),
            };
            room.raw(third, line.as_bytes());
            // 799 unasked is an assertion in the reference; the other implementation ignores it, and so do we.
            let closed = is_closed(step, "sender_receives") && what != "799 ''";
            assert_eq!(room.closed(third).is_some(), closed, "{stimulus}");
            room.pass(Duration::from_secs(2));
            // The reference answers neither pings nor requests, and announces whoever 787 names as gone.
            let answers = match what {
                "798 ''" => vec![(799, String::new())],
                "791 ''" => vec![(789, format!("{B};{SERVING}"))],
                _ => Vec::new(),
            };
            assert_eq!(got(&mut room, third), answers, "{stimulus}");
            let told = if closed { expected(step, "A_receives") } else { Vec::new() };
            assert_eq!(got(&mut room, a), told, "{stimulus}");
            if !closed {
                room.leave(third);
                room.pass(Duration::from_secs(2));
            }
            room.take(a);
            room.take(b);
        } else if case("B closes") {
            room.leave(b);
            assert_eq!(got(&mut room, a), expected(step, "A_receives"), "{stimulus}");
        } else if case("another network") {
            let stranger = enter(&mut room, &hello(THIRD, "NOT-SERVING-ONION", "mainnet", "{}"));
            assert_eq!(got(&mut room, stranger), expected(step, "sender_receives"), "{stimulus}");
            assert_eq!(room.closed(stranger), Some(Incident::ForeignHandshake));
        } else {
            panic!("unknown stimulus {stimulus}");
        }
    }
}

#[test]
fn second_implementation_directory_session() {
    let file = load("directory_behaviour.json");
    let steps = file["second_implementation_directory"].as_array().unwrap();
    let mut room = Room::with_identity("test:dir");
    let key = load("extensions.json")["nick_auth"]["nick_privkey"].as_str().unwrap().to_owned();
    let key = NickKey::new(key.parse().unwrap());
    assert_eq!(key.nick().as_str(), A);
    let (mut a, mut b, mut second) = (LinkId(0), LinkId(0), LinkId(0));
    let again = hello(A, "NOT-SERVING-ONION", "regtest", "{\"nick_auth\": true}");
    for step in steps {
        let stimulus = step["stimulus"].as_str().unwrap();
        let case = |what: &str| stimulus.contains(what);
        if case("client A") {
            a = enter(&mut room, &hello(A, "NOT-SERVING-ONION", "regtest", "{}"));
            assert_eq!(got(&mut room, a), expected(step, "A_receives"), "{stimulus}");
        } else if case("client B") {
            let features = "{\"ping\": true, \"neutrino_compat\": true}";
            b = enter(&mut room, &hello(B, SERVING, "regtest", features));
            assert_eq!(got(&mut room, b), expected(step, "B_receives"), "{stimulus}");
        } else if case("A sends public orderbook") {
            room.say(a, Public, &format!("{A}!PUBLIC!orderbook"));
            assert_eq!(got(&mut room, b), expected(step, "B_receives"), "{stimulus}");
        } else if case("B sends a private message") {
            room.say(b, Private, &format!("{B}!{A}!pubkey aa pub sig"));
            // Without `F:`, which A has not said that it reads.
            let mut told = expected(step, "A_receives");
            told[1].1 = told[1].1.replace(";F:neutrino_compat+ping", "");
            assert_eq!(got(&mut room, a), told, "{stimulus}");
        } else if case("sends 791") {
            room.say(a, MessageType::GetPeerList, "");
            // Takers are not listed.
            let listed = expected(step, "A_receives")[0].1.clone();
            let makers = listed.replace(&format!("{A};NOT-SERVING-ONION,"), "");
            assert_eq!(got(&mut room, a), [(789, makers)], "{stimulus}");
        } else if case("A sends 798") {
            room.say(a, MessageType::Ping, "");
            assert_eq!(got(&mut room, a), expected(step, "A_receives"), "{stimulus}");
        } else if case("(spoof)") {
            // Dropped there; ours closes the sender as well, so somebody else tries it here.
            let thief = enter(&mut room, &hello(THIRD, "NOT-SERVING-ONION", "regtest", "{}"));
            room.say(thief, Public, &format!("{B}!PUBLIC!cancel 0"));
            assert_eq!(room.closed(thief), Some(Incident::SpoofedSender));
            room.pass(Duration::from_secs(2));
            assert!(got(&mut room, a).iter().all(|(kind, _)| *kind == 789));
            room.take(b);
        } else if case("second connection with A's nick while") {
            let link = enter(&mut room, &hello(A, "NOT-SERVING-ONION", "regtest", "{}"));
            assert_eq!(got(&mut room, link), expected(step, "sender_receives"), "{stimulus}");
            assert_eq!(room.closed(link).is_some(), is_closed(step, "sender_receives"));
        } else if case("another network") {
            let link = enter(&mut room, &hello(THIRD, "NOT-SERVING-ONION", "mainnet", "{}"));
            // Ours says why before it closes, as the reference does.
            assert_eq!(got(&mut room, link), [(795, "false".to_owned())]);
            assert_eq!(room.closed(link).is_some(), is_closed(step, "sender_receives"));
        } else if case("nick_auth advertised") {
            second = enter(&mut room, &again);
            let kinds: Vec<_> = expected(step, "sender_receives").iter().map(|m| m.0).collect();
            assert_eq!(kinds, [795, 803]);
        } else if case("valid 805") {
            let lines = room.take(second);
            assert_eq!(lines[1].kind, NickAuthChallenge);
            let challenge = Challenge::parse(&lines[1].line, "test:dir").unwrap();
            room.say(second, NickAuthProof, &challenge.answer(&again, &key).to_line());
            assert_eq!(got(&mut room, second), expected(step, "sender_receives"), "{stimulus}");
            assert!(is_closed(step, "old_connection_receives"));
            assert_eq!(room.closed(a), Some(Incident::Displaced));
            assert_eq!(got(&mut room, b), expected(step, "B_receives"), "{stimulus}");
        } else if case("B sends 799") {
            room.say(b, MessageType::Pong, "");
            assert_eq!(got(&mut room, b), expected(step, "B_receives"), "{stimulus}");
        } else if case("B sends 801") {
            // Ignored there; ours closes (`spec/roles.md` 8.1), so somebody else says it here.
            let link = enter(&mut room, &hello(THIRD, "NOT-SERVING-ONION", "regtest", "{}"));
            room.say(link, MessageType::Disconnect, "");
            assert_eq!(room.closed(link), Some(Incident::Goodbye));
            room.pass(Duration::from_secs(2));
            room.take(second);
        } else if case("B sends an empty line") {
            room.raw(b, b"");
            assert_eq!(room.closed(b).is_some(), is_closed(step, "B_receives"), "{stimulus}");
            room.pass(Duration::from_secs(2));
            let told = expected(step, "remaining_client_receives");
            assert_eq!(got(&mut room, second), told, "{stimulus}");
        } else {
            panic!("unknown stimulus {stimulus}");
        }
    }
}

#[test]
fn client_handshakes_are_taken_by_the_stricter_of_both() {
    let file = load("onion_envelopes.json");
    let cases = file["handshake_received_by_directory"].as_array().unwrap();
    joinery_testkit::vectors::each("onion_envelopes.json", cases, |case| {
        let mut room = Room::with(Settings::new("mainnet"));
        let link = enter(&mut room, &case["handshake"].to_string());
        let reference = &case["reference_directory"];
        let second = &case["second_implementation_directory"]["accepted"];
        let accepted = reference["handshaked"] == true && *second == true;
        let replies: Vec<_> = got(&mut room, link);
        // A handshake that cannot be read is not answered.
        let answer = (!reference["reply"].is_null()).then(|| (795, accepted.to_string()));
        if room.closed(link).is_none() == accepted && replies == Vec::from_iter(answer) {
            Ok(())
        } else {
            Err(format!("{}: {replies:?} {:?}", case["name"], room.closed(link)))
        }
    });
}

#[test]
fn envelopes_close_the_connection_when_either_implementation_refuses_them() {
    let file = load("onion_envelopes.json");
    let cases = file["decode"].as_array().unwrap();
    joinery_testkit::vectors::each("onion_envelopes.json", cases, |case| {
        let mut room = Room::new();
        let player = room.taker(1);
        let bytes = Vec::from_hex(case["line_hex"].as_str().unwrap()).unwrap();
        room.raw(player.link, &bytes);
        let name = case["name"].as_str().unwrap();
        let accepted = case["reference"]["accepted"] == true
            && case["second_implementation_accepts"] == true
            && !name.contains("type true")
            // Somebody else's nick.
            && name != "privmsg";
        let open = room.closed(player.link).is_none();
        // A message whose nicks are none is dropped without a word.
        if open == (accepted || name == "privmsg") { Ok(()) } else { Err(name.to_owned()) }
    });
}

#[test]
fn private_messages_and_departures_as_the_reference_relays_them() {
    let file = load("onion_envelopes.json");
    let relay = &file["reference_directory_relay"];
    let own = "jmarketxf5wc4aldf3slm5u6726zsky52bqnfv6qyxe5hnafgly6yuyd.onion:5222";
    let settings = Settings { address: Some(own.parse().unwrap()), ..Settings::new("mainnet") };
    let mut room = Room::with(settings);
    let reader = enter(&mut room, &hello("J5Zvy3UwYM5eSvPO", "NOT-SERVING-ONION", "mainnet", "{}"));
    let maker = enter(&mut room, &hello(B, SERVING, "mainnet", "{}"));
    room.take(reader);
    room.say(maker, Private, &format!("{B}!J5Zvy3UwYM5eSvPO!pubkey aa pub sig"));
    let own_entry = format!(",{};{own}", room.directory.nick());
    let lines = room.take(reader);
    let recorded = relay["privmsg_forward_and_location"].as_array().unwrap();
    assert_eq!(lines[0].line, recorded[0]["line"].as_str().unwrap());
    let swapped = |line: &Value| {
        line.as_str().unwrap().replace(&format!(",J5dnOOOOOOOOOOOO;{own}"), &own_entry)
    };
    assert_eq!(lines[1].line, swapped(&recorded[1]["line"]));
    room.leave(maker);
    // The directory does not repeat itself in departures: peers know it by then.
    let departure = swapped(&relay["disconnect_notice"][0]["line"]).replace(&own_entry, "");
    assert_eq!(room.take(reader)[0].line, departure);
}

#[test]
fn proofs_are_judged_as_recorded() {
    let file = load("extensions.json");
    let case = &file["nick_auth"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let good = Proof::parse(&{
        let envelope: Value =
            serde_json::from_str(case["proof_envelope"].as_str().unwrap()).unwrap();
        text(&envelope["line"])
    });
    let good = good.unwrap().to_line();
    joinery_testkit::vectors::each("extensions.json", case["verify"].as_array().unwrap(), |case| {
        let challenge = <[u8; 32]>::from_hex(case["challenge"].as_str().unwrap()).unwrap();
        let challenge = Challenge::new(challenge, case["directory_id"].as_str().unwrap());
        let pubkey = "02227aea6d78d92064315e9480e52a928ce036979fb6c373cb5c860e0980819d98";
        let proof = match case["name"].as_str().unwrap() {
            "signature not base64" => good.replace("MEUC", "M!UC"),
            "upper-case pubkey" => good.replace(pubkey, &pubkey.to_uppercase()),
            _ => good.clone(),
        };
        let nick = case["nick"].as_str().unwrap().parse().unwrap();
        let result = Proof::parse(&proof).and_then(|proof| {
            proof.verify(&challenge, case["handshake_line"].as_str().unwrap(), &nick)
        });
        let malformed = matches!(result, Err(NickAuthError::Malformed));
        if result.is_ok() != (case["expected"] == true) {
            return Err(format!("{}: {result:?}", case["name"]));
        }
        // A signature that is no base64 is refused like one that does not verify.
        let said = case["name"] == "upper-case pubkey";
        if said && !malformed { Err(format!("{}: {result:?}", case["name"])) } else { Ok(()) }
    });
}

/// Plays what the clients of a recorded coinjoin sent, and compares what they got.
fn transcript(name: &str) {
    let file = load(&format!("transcripts/{name}.json"));
    let mut entries: Vec<&Value> = file["entries"].as_array().unwrap().iter().collect();
    entries.retain(|entry| entry["transport"] == "tcp-directory");
    let mut room = Room::with(Settings::new(file["jm_network"].as_str().unwrap()));
    let mut links: BTreeMap<u64, LinkId> = BTreeMap::new();
    let (mut ours, mut theirs) =
        (BTreeMap::<u64, Vec<String>>::new(), BTreeMap::<u64, Vec<String>>::new());
    let mut relayed = 0;
    let (mut reads_features, mut left) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries {
        let conn = entry["conn"].as_u64().unwrap();
        let from_client = entry["from"] != "dir";
        match (entry["event"].as_str(), from_client) {
            (Some("open"), _) => {
                links.insert(conn, room.connect());
            }
            (Some("close"), true) => {
                left.insert(conn);
                room.leave(links[&conn]);
            }
            (Some(_), _) => {}
            (None, true) => {
                let line = entry["line"].as_str().unwrap();
                if line.contains("peerlist_features") {
                    reads_features.insert(conn);
                }
                room.raw(links[&conn], line.as_bytes());
            }
            (None, false) => {
                let kind = entry["type"].as_u64().unwrap();
                if matches!(kind, 685 | 687) {
                    let line: Value =
                        serde_json::from_str(entry["line"].as_str().unwrap()).unwrap();
                    theirs.entry(conn).or_default().push(quoted(line["line"].as_str().unwrap()));
                    relayed += 1;
                }
            }
        }
        for (conn, link) in &links {
            for line in room.take(*link) {
                match line.kind {
                    Private | Public => ours.entry(*conn).or_default().push(quoted(&line.line)),
                    MessageType::DirectoryHandshake => {
                        assert!(line.line.contains("\"accepted\": true"))
                    }
                    PeerList => {
                        assert!(!line.line.contains(";F:") || reads_features.contains(conn))
                    }
                    other => panic!("{other:?}"),
                }
            }
            if let Some(incident) = room.closed(*link) {
                panic!("connection {conn} of {name} was closed: {incident}");
            }
        }
        room.pass(Duration::from_millis(50));
    }
    // What still reached a connection that was about to be closed depended on the moment.
    for lines in [&mut ours, &mut theirs] {
        lines.retain(|conn, _| !left.contains(conn));
        lines.values_mut().for_each(|lines| lines.sort_unstable());
    }
    assert_eq!(ours, theirs, "{name}");
    assert!(relayed > 20, "{name}: only {relayed} lines");
}

#[test]
fn coinjoin_of_the_second_implementation_passes_through() {
    transcript("ng_taker_ng_makers_via_directory");
}

#[test]
fn coinjoin_with_mixed_makers_passes_through() {
    transcript("ng_taker_mixed_makers_direct");
}

#[test]
fn coinjoin_of_a_reference_taker_passes_through() {
    transcript("reference_taker_mixed_makers_direct");
}

#[test]
fn coinjoin_with_refusing_makers_passes_through() {
    transcript("reference_taker_some_makers_refuse_young_commitment");
}
