//! Who is believed to have spoken, and the one way for each answer.

use super::*;
use crate::channel::{LogFact, SendError};

const WORD: PrivateWord = PrivateWord::Push;

/// Defect 12: a directory that forges senders.
#[test]
fn sender_auth() {
    let mut rig = Rig::up(1, &[]);
    let ours = key(1).nick();
    let honest = private(2, ours, WORD, "AAAA");
    let forged = honest.replace(key(2).nick().as_str(), key(3).nick().as_str());
    rig.receive(LinkId(0), MessageType::Private, &forged);
    assert!(rig.events().is_empty());
    rig.receive(LinkId(0), MessageType::Private, &honest);
    let events = rig.events();
    assert!(matches!(
        &events[..],
        [ChannelEvent::Seen { .. }, ChannelEvent::Private { from, .. }] if *from == key(2).nick()
    ));
}

/// Defect 6: whose message it is goes by the routing nick as a whole, never by what else the line holds.
#[test]
fn nick_equality_only() {
    let mut rig = Rig::up(1, &[]);
    let ours = key(1).nick();
    let text = private(2, ours, PrivateWord::Error, &format!("{} said so", key(3).nick()));
    rig.receive(LinkId(0), MessageType::Private, &text);
    let senders: Vec<_> = rig
        .events()
        .into_iter()
        .filter_map(|event| match event {
            ChannelEvent::Private { from, .. } => Some(from),
            _ => None,
        })
        .collect();
    assert_eq!(senders, [key(2).nick()]);
    assert!(rig.channel.peer(&key(3).nick()).is_none());
    // A message to a nick that ours is only a part of is not for us.
    let longer = private(2, ours, WORD, "AAAB").replacen(ours.as_str(), &format!("{ours}x"), 1);
    rig.receive(LinkId(0), MessageType::Private, &longer);
    assert!(rig.events().is_empty());
}

#[test]
fn same_message_over_three_directories_is_one() {
    let mut rig = Rig::up(3, &[]);
    let line = private(2, key(1).nick(), WORD, "AAAA");
    for link in 0..3 {
        rig.receive(LinkId(link), MessageType::Private, &line);
    }
    let private = |event: &ChannelEvent| matches!(event, ChannelEvent::Private { .. });
    assert_eq!(rig.events().iter().filter(|event| private(event)).count(), 1);
    rig.now = at(31);
    rig.receive(LinkId(0), MessageType::Private, &line);
    assert_eq!(rig.events().iter().filter(|event| private(event)).count(), 1);
}

#[test]
fn answers_take_exactly_one_way_and_the_one_on_which_was_asked() {
    let mut rig = Rig::up(5, &[]);
    let to = key(2).nick();
    for link in 0..5 {
        rig.receive(LinkId(link), MessageType::Public, &format!("{to}!PUBLIC!orderbook"));
    }
    rig.drain();
    let mut used = std::collections::BTreeSet::new();
    for number in 0..40 {
        rig.channel.send_private(to, WORD, &format!("A{number}"), None, rig.now).unwrap();
        let sent = rig.sent();
        assert_eq!(sent.len(), 1, "never over two directories");
        used.insert(sent[0].0);
    }
    assert_eq!(used.len(), 5, "chosen at random before the peer has spoken");
    rig.channel.send_private(to, WORD, "B", Some(by(3)), rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(3));
    rig.receive(LinkId(4), MessageType::Private, &private(2, key(1).nick(), WORD, "C"));
    rig.drain();
    rig.channel.send_private(to, WORD, "D", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(4));
    // Once that directory is lost, another one.
    rig.channel.closed(LinkId(4), "gone", rig.now);
    rig.drain();
    rig.channel.send_private(to, WORD, "E", None, rig.now).unwrap();
    assert!(rig.sent()[0].0 < LinkId(4));
}

#[test]
fn only_a_directory_itself_takes_back_its_word_on_presence() {
    let mut rig = Rig::up(2, &[]);
    let to = key(2).nick();
    for link in 0..2 {
        rig.receive(LinkId(link), MessageType::Public, &format!("{to}!PUBLIC!orderbook"));
    }
    rig.receive(LinkId(0), MessageType::PeerList, "");
    assert!(rig.channel.peer(&to).unwrap().is_at(DirectoryId(0)), "absence means nothing");
    rig.drain();
    rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};NOT-SERVING-ONION;D"));
    assert_eq!(rig.events(), [ChannelEvent::Left { nick: to, via: by(0) }]);
    rig.channel.send_private(to, WORD, "A", None, rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(1));
    rig.receive(LinkId(1), MessageType::PeerList, &format!("{to};{ONION};D"));
    rig.drain();
    let error = rig.channel.send_private(to, WORD, "A", None, rig.now);
    assert_eq!(error, Err(SendError::NoRoute { nick: to }));
    // A displaced connection of the same nick is followed by new lines: it is there again.
    rig.receive(LinkId(1), MessageType::Public, &format!("{to}!PUBLIC!orderbook"));
    assert!(rig.events().contains(&ChannelEvent::Seen { nick: to, via: by(1) }));
}

#[test]
fn proved_peer_is_still_reached_after_its_directory_came_back() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    rig.receive(LinkId(0), MessageType::Private, &private(2, key(1).nick(), WORD, "C"));
    rig.channel.closed(LinkId(0), "gone", rig.now);
    rig.drain();
    assert!(rig.channel.send_private(to, WORD, "A", None, rig.now).is_err());
    rig.now = rig.channel.next_wake().unwrap();
    rig.bring_up(&[]);
    rig.channel.send_private(to, WORD, "A", None, rig.now).unwrap();
    assert_eq!(rig.sent().len(), 1);
}

#[test]
fn fill_waits_for_a_direct_connection_and_no_longer_than_five_seconds() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};{ONION}"));
    rig.drain();
    rig.channel.send_private(to, PrivateWord::Fill, "0 1", None, rig.now).unwrap();
    let outputs = rig.drain();
    assert!(outputs.iter().all(|output| is_dial_to(output, to)) && outputs.len() == 1);
    rig.run_until(at(4));
    assert!(rig.drain().is_empty());
    rig.run_until(at(5));
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[0].0), (1, LinkId(0)), "by the directory after all");

    let mut rig = Rig::up(1, &[]);
    rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};{ONION}"));
    rig.drain();
    rig.channel.send_private(to, PrivateWord::Fill, "0 1", None, rig.now).unwrap();
    let link = rig.dialled()[0];
    rig.channel.opened(link, rig.now);
    rig.drain();
    rig.receive(link, MessageType::Handshake, &peer_handshake(2));
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[0].0), (1, link), "straight to the maker");
}

#[test]
fn fill_to_a_maker_that_nobody_has_shown_waits_for_the_peer_list() {
    let to = key(2).nick();
    let fill = PrivateWord::Fill;
    // A directory that lists its peers: the list comes, the maker is dialled, and what waits waits on.
    let mut rig = Rig::up(1, &["peerlist_features"]);
    rig.channel.send_private(to, fill, "0 1", Some(by(0)), rig.now).unwrap();
    assert!(rig.drain().is_empty());
    rig.now = at(2);
    rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};{ONION}"));
    let outputs = rig.drain();
    assert_eq!(outputs.iter().filter(|output| is_dial_to(output, to)).count(), 1);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })));
    rig.run_until(at(5));
    assert_eq!(rig.sent()[0].0, LinkId(0), "by the directory after all");
    // No onion service: at once by where it is.
    let mut rig = Rig::up(2, &["peerlist_features"]);
    rig.channel.send_private(to, fill, "0 1", None, rig.now).unwrap();
    rig.receive(LinkId(1), MessageType::PeerList, &format!("{to};NOT-SERVING-ONION"));
    assert_eq!(rig.sent()[0].0, LinkId(1));
    // No list mentions it: where the order book has seen it, or nowhere.
    for (prefer, sent) in [(Some(by(1)), 1), (None, 0)] {
        let mut rig = Rig::up(2, &["peerlist_features"]);
        rig.channel.send_private(to, fill, "0 1", prefer, rig.now).unwrap();
        rig.run_until(at(4));
        assert!(rig.sent().is_empty());
        rig.run_until(at(5));
        assert_eq!(rig.sent().len(), sent);
    }
}

#[test]
fn fill_through_reference_directories_goes_where_the_order_book_saw_the_maker() {
    // They never list their peers, so there is nothing to wait for.
    let mut rig = Rig::up(3, &[]);
    let to = key(2).nick();
    rig.channel.send_private(to, PrivateWord::Fill, "0 1", Some(by(2)), rig.now).unwrap();
    assert_eq!(rig.sent()[0].0, LinkId(2));
    let error = rig.channel.send_private(to, PrivateWord::Fill, "0 1", None, rig.now);
    assert_eq!(error, Err(SendError::NoRoute { nick: to }));
}

#[test]
fn fill_goes_by_the_directory_as_soon_as_the_direct_connection_fails() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    rig.receive(LinkId(0), MessageType::PeerList, &format!("{to};{ONION}"));
    rig.drain();
    rig.channel.send_private(to, PrivateWord::Fill, "0 1", None, rig.now).unwrap();
    let link = rig.dialled()[0];
    rig.channel.closed(link, "onion service does not exist", rig.now);
    let outputs = rig.drain();
    assert!(outputs.iter().any(|o| matches!(o, Output::Send { link: LinkId(0), .. })));
    assert!(
        outputs.iter().any(|o| matches!(o, Output::Log(LogFact::PeerUnreachable { .. }))),
        "{outputs:?}"
    );
    // It is not dialled again at once for the next message.
    rig.channel.send_private(to, WORD, "A", None, rig.now).unwrap();
    assert!(rig.dialled().is_empty());
    rig.now = at(60);
    rig.channel.send_private(to, WORD, "A", None, rig.now).unwrap();
    assert_eq!(rig.dialled().len(), 1);
}

#[test]
fn too_long_message_is_refused_before_anything_is_sent() {
    let mut rig = Rig::up(1, &[]);
    let to = key(2).nick();
    rig.receive(LinkId(0), MessageType::Public, &format!("{to}!PUBLIC!orderbook"));
    rig.drain();
    let long = "A".repeat(40_000);
    let error = rig.channel.send_private(to, WORD, &long, None, rig.now);
    assert!(matches!(error, Err(SendError::Line(_))));
    assert!(rig.drain().is_empty());
}

#[test]
fn signatures_have_a_budget() {
    let mut rig = Rig::up(1, &[]);
    let line = private(2, key(1).nick(), WORD, "AAAA");
    let mut logged = 0;
    for number in 0..20_000_u64 {
        // Lines come as fast as they may; each is another payload, none is signed.
        rig.now = Duration::from_millis(number * 5);
        let forged = line.replace("AAAA", &format!("A{number}"));
        rig.receive(LinkId(0), MessageType::Private, &forged);
        logged += rig.drain().iter().filter(|o| matches!(o, Output::Log(_))).count();
    }
    // 100 seconds, two causes.
    assert!((2..=6).contains(&logged), "{logged}");
    assert!(rig.channel.directories[0].signatures.ready_at(6_000, rig.now) > rig.now + at(60));
}
