//! Connections to directories.

use joinery_proto::onion::features::{NICK_AUTH, PEERLIST_FEATURES, PING};

use super::*;
use crate::channel::{Audience, LogFact};

#[test]
fn all_directories_are_dialled_at_once_and_greeted() {
    let mut rig = Rig::new(3);
    rig.channel.tick(rig.now);
    let links = rig.dialled();
    assert_eq!(links.len(), 3);
    rig.channel.opened(links[1], rig.now);
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[0].0, sent[0].1.kind), (1, links[1], MessageType::Handshake));
    let ours = PeerHandshake::parse(&sent[0].1.line, "testnet").unwrap();
    assert_eq!(ours.nick, key(1).nick());
    // Loopback has no identity to prove a nick to.
    assert_eq!(ours.features.names().collect::<Vec<_>>(), [PEERLIST_FEATURES, PING]);
    rig.receive(links[1], MessageType::DirectoryHandshake, &directory_answer(&[], true));
    assert!(rig.events().contains(&ChannelEvent::Up(by(1))));
    assert!(rig.channel.is_up() && !rig.channel.is_ready(at(0), at(59)));
    assert!(rig.channel.is_ready(at(0), at(60)));
}

/// Defect 33: a directory that resets each connection right after its handshake, for a day.
#[test]
fn econnreset_backoff() {
    let mut rig = Rig::new(1);
    let (mut attempts, mut lines) = (0, 0);
    while rig.now < at(86_400) {
        let wake = rig.channel.next_wake().unwrap();
        assert!(wake > rig.now || attempts == 0, "never at once");
        rig.now = rig.now.max(wake);
        rig.channel.tick(rig.now);
        for link in rig.dialled() {
            attempts += 1;
            rig.channel.opened(link, rig.now);
            rig.receive(link, MessageType::DirectoryHandshake, &directory_answer(&[], true));
            rig.channel.closed(link, "connection reset by peer", rig.now);
        }
        lines += rig.drain().iter().filter(|output| matches!(output, Output::Log(_))).count();
    }
    assert!((144..170).contains(&attempts), "{attempts} attempts a day");
    assert!(lines <= 2 * attempts, "{lines} lines");
    assert!(rig.channel.link_count() <= 1);
}

#[test]
fn connection_that_lasted_starts_the_pauses_again() {
    let mut rig = Rig::up(1, &[]);
    for _ in 0..20 {
        rig.run_until(rig.now + at(61));
        let link = LinkId(rig.channel.links.keys().next().unwrap().0);
        rig.channel.closed(link, "gone", rig.now);
        let pause = rig.channel.next_wake().unwrap() - rig.now;
        assert!(pause <= at(11) && pause >= at(3), "{pause:?}");
        rig.now = rig.channel.next_wake().unwrap();
        rig.bring_up(&[]);
    }
}

#[test]
fn refused_nick_waits_a_minute() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    rig.drain();
    rig.receive(link, MessageType::DirectoryHandshake, &directory_answer(&[], false));
    assert!(rig.drain().contains(&Output::Close { link }));
    assert!(rig.channel.next_wake().unwrap() >= at(60));
}

#[test]
fn directory_that_answers_nothing_is_given_up() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled()[0];
    rig.run_until(at(119));
    assert!(rig.drain().is_empty());
    rig.run_until(at(120));
    assert!(rig.drain().contains(&Output::Close { link }));
    let wake = rig.channel.next_wake().unwrap();
    rig.run_until(wake);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    rig.run_until(rig.now + at(60));
    assert!(rig.drain().contains(&Output::Close { link }));
}

#[test]
fn ping_is_answered_and_a_silent_directory_pinged_where_announced() {
    let mut rig = Rig::up(1, &[PING]);
    let link = LinkId(0);
    for _ in 0..20 {
        rig.receive(link, MessageType::Ping, "");
    }
    let pongs = rig.sent();
    assert!(pongs.iter().all(|(_, envelope)| envelope.kind == MessageType::Pong));
    assert_eq!(pongs.len(), 3, "six in any minute");
    rig.run_until(at(600));
    assert_eq!(rig.sent().first().map(|(_, envelope)| envelope.kind), Some(MessageType::Ping));
    rig.receive(link, MessageType::Pong, "");
    rig.run_until(at(1_199));
    assert!(rig.drain().is_empty());
    rig.run_until(at(1_230));
    assert!(rig.drain().contains(&Output::Close { link }), "no answer to the second ping");
}

#[test]
fn reference_directory_is_never_sent_what_it_does_not_know() {
    let mut rig = Rig::with(1, |config| config.want_peers = true);
    rig.bring_up(&[]);
    rig.channel.request_peers(rig.now);
    rig.run_until(at(3_599));
    assert!(rig.sent().is_empty(), "no ping, no 799, no 791");
}

#[test]
fn peer_list_is_asked_for_at_most_once_a_minute() {
    let mut rig = Rig::with(1, |config| config.want_peers = true);
    rig.channel.tick(rig.now);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    rig.drain();
    let answer = directory_answer(&[PEERLIST_FEATURES], true);
    rig.receive(link, MessageType::DirectoryHandshake, &answer);
    let mut asked = rig.sent().len();
    for second in 0..180 {
        rig.run_until(at(second));
        rig.channel.request_peers(rig.now);
        asked += rig.sent().len();
    }
    assert_eq!(asked, 3);
}

#[test]
fn malformed_line_closes_and_unknown_types_do_nothing() {
    let mut rig = Rig::up(1, &[]);
    for number in [785, 787, 797, 799, 801, 4242, 791, 793] {
        rig.receive(LinkId(0), MessageType::from_number(number), "J5DdKBhSf2Ykxqqy;x:1");
        assert!(rig.drain().is_empty(), "{number}");
    }
    rig.channel.received(LinkId(0), b"", rig.now);
    let outputs = rig.drain();
    assert!(outputs.contains(&Output::Close { link: LinkId(0) }));
    assert!(outputs.contains(&Output::Event(ChannelEvent::Down(by(0)))));
    // What comes from a closed link is nobody's.
    rig.receive(LinkId(0), MessageType::Public, "J5DdKBhSf2Ykxqqy!PUBLIC!orderbook");
    assert!(rig.drain().is_empty());
}

#[test]
fn directory_above_its_budget_is_paused_and_loses_nothing_when_the_driver_obeys() {
    let mut rig = Rig::up(1, &[]);
    let (mut delivered, mut paused) = (0, 0);
    let mut resume = Duration::ZERO;
    for number in 0..10_000 {
        rig.now = rig.now.max(resume);
        rig.receive(
            LinkId(0),
            MessageType::Public,
            &format!("J5DdKBhSf2Ykxqqy!PUBLIC!cancel {number}"),
        );
        for output in rig.drain() {
            match output {
                Output::Event(ChannelEvent::Public { .. }) => delivered += 1,
                Output::Pause { until, .. } => {
                    assert!(until > rig.now);
                    (paused, resume) = (paused + 1, until);
                }
                Output::Log(fact) => panic!("{fact:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(delivered, 10_000);
    assert!(paused > 100);
    assert!((39.0..41.0).contains(&rig.now.as_secs_f64()), "200 a second: {:?}", rig.now);
}

#[test]
fn flood_of_a_driver_that_does_not_pause_is_dropped_and_logged_once() {
    let mut rig = Rig::up(1, &[]);
    let (mut delivered, mut logged) = (0, 0);
    for _ in 0..50_000 {
        rig.receive(LinkId(0), MessageType::Public, "J5DdKBhSf2Ykxqqy!PUBLIC!orderbook");
        for output in rig.drain() {
            match output {
                Output::Event(ChannelEvent::Public { .. }) => delivered += 1,
                Output::Log(_) => logged += 1,
                _ => {}
            }
        }
    }
    assert_eq!((delivered, logged), (1_999, 1), "the handshake was the first of 2 000");
}

#[test]
fn not_an_onion_is_not_dialled_outside_of_tests() {
    let mut rig = Rig::with(1, |config| config.allow_plain = false);
    rig.run_until(at(86_400));
    let outputs = rig.drain();
    assert_eq!(outputs.len(), 1);
    assert!(matches!(outputs[0], Output::Log(LogFact::DirectoryLost { .. })));
}

#[test]
fn announcements_go_where_they_should_and_wait_for_the_budget() {
    let mut rig = Rig::up(2, &[]);
    rig.channel.announce("cancel 0", Audience::Directory(DirectoryId(1)), rig.now).unwrap();
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[0].0), (1, LinkId(1)));
    assert_eq!(sent[0].1.line, format!("{}!PUBLIC!cancel 0", key(1).nick()));
    for _ in 0..30 {
        rig.channel.announce("cancel 1", Audience::All, rig.now).unwrap();
    }
    rig.channel.request_orderbook(rig.now);
    rig.channel.request_orderbook(rig.now);
    rig.run_until(at(59));
    assert!(rig.sent().len() <= 40, "20 a minute and directory");
    rig.run_until(at(600));
    let late = rig.sent();
    let orderbooks = late.iter().filter(|(_, e)| e.line.ends_with("!orderbook")).count();
    assert!(!late.is_empty() && orderbooks <= 2, "several requests became one");
    assert!(rig.channel.announce(&"x".repeat(40_000), Audience::All, rig.now).is_err());
}

#[test]
fn nick_is_proved_where_a_directory_asks() {
    let identity = "test:dir";
    let mut rig = Rig::with(1, |config| {
        config.directories[0].identity = Some(identity.to_owned());
    });
    rig.channel.tick(rig.now);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    let handshake = rig.sent().remove(0).1.line;
    rig.receive(link, MessageType::DirectoryHandshake, &directory_answer(&[NICK_AUTH], true));
    assert!(rig.drain().is_empty(), "nothing before the nick is proved");
    use joinery_proto::onion::nick_auth::{Challenge, Proof};
    let challenge = Challenge::new([5; 32], identity);
    rig.receive(link, MessageType::NickAuthChallenge, &challenge.to_line());
    let (_, proof) = rig.sent().remove(0);
    assert_eq!(proof.kind, MessageType::NickAuthProof);
    let proof = Proof::parse(&proof.line).unwrap();
    proof.verify(&challenge, &handshake, &key(1).nick()).unwrap();
    rig.receive(link, MessageType::NickAuthResult, "{\"code\":\"ok\",\"verified\":true}");
    assert!(rig.events().contains(&ChannelEvent::Up(by(0))));
    assert!(rig.channel.directories().all(|status| status.verified));
    // Out of place it ends the connection.
    rig.receive(link, MessageType::NickAuthResult, "{\"code\":\"ok\",\"verified\":true}");
    assert!(rig.drain().contains(&Output::Close { link }));
}

#[test]
fn challenge_of_another_directory_is_not_answered() {
    let mut rig = Rig::with(1, |config| {
        config.directories[0].identity = Some("test:dir".to_owned());
    });
    rig.channel.tick(rig.now);
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    rig.receive(link, MessageType::DirectoryHandshake, &directory_answer(&[NICK_AUTH], true));
    rig.drain();
    let challenge = joinery_proto::onion::nick_auth::Challenge::new([5; 32], "test:other");
    rig.receive(link, MessageType::NickAuthChallenge, &challenge.to_line());
    let outputs = rig.drain();
    assert!(outputs.contains(&Output::Close { link }));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })));
}

#[test]
fn stop_closes_everything_for_good() {
    let mut rig = Rig::up(2, &[]);
    rig.direct_to(2);
    rig.channel.stop(rig.now);
    let closed = rig.drain().iter().filter(|o| matches!(o, Output::Close { .. })).count();
    assert_eq!((closed, rig.channel.link_count(), rig.channel.next_wake()), (3, 0, None));
    rig.run_until(at(86_400));
    assert!(rig.drain().is_empty());
}

#[test]
fn maker_dials_when_it_knows_where_it_serves() {
    let mut rig = Rig::with(2, |config| config.await_location = true);
    rig.channel.tick(rig.now);
    assert_eq!((rig.run_until(at(3_600)), rig.drain()), (0, Vec::new()), "it waits, and sleeps");
    rig.channel.set_location(ONION.parse().unwrap());
    rig.channel.tick(rig.now);
    for link in rig.dialled() {
        rig.channel.opened(link, rig.now);
    }
    let sent = rig.sent();
    assert!(sent.len() == 2 && sent.iter().all(|(_, envelope)| envelope.line.contains(ONION)));
}
