//! Servers and users that do what they like.

use proptest::prelude::*;

use super::*;
use crate::irc_channel::MAX_PRESENT;

/// A user whose name begins with a maker's nick is not that maker.
#[test]
fn forged_nicks_prove_nothing_and_spoil_nothing() {
    let (mut rig, link) = Rig::up();
    let (us, maker) = (nick(1), nick(2));
    let forger = format!("{maker}_");
    rig.says(link, &format!(":{maker}!u@h JOIN {CHANNEL}"));
    rig.events();
    rig.says(link, &format!(":{forger}!u@h PRIVMSG {CHANNEL} :!cancel 0"));
    rig.says(link, &format!(":{forger}!u@h PART {CHANNEL}"));
    rig.whispers(link, &forger, "!fill 0 1 2 3 ~");
    let outputs = rig.drain();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Event(_))));
    assert!(complaint(&outputs, Cause::UnprovedSender));
    assert!(rig.channel.is_present(&maker, 0));
    // His pieces do not mix with the maker's.
    let text = key(2).sign_message(PrivateWord::Tx, &"QUJD".repeat(300), NETWORK);
    let (_, message) = text.split_once(' ').unwrap();
    for line in private_lines(&us, PrivateWord::Tx, message) {
        rig.says(link, &format!(":{maker}!u@h {line}"));
        rig.whispers(link, &forger, "!tx junk ;");
        rig.whispers(link, &forger, "junk");
    }
    let events = rig.events();
    assert!(matches!(&events[..], [ChannelEvent::Private { from, .. }] if *from == maker));
    // What a maker signed stays true whoever passes it on; it tells nothing about where the maker is.
    let other = key(4).sign_message(PrivateWord::Push, "AAAA", NETWORK);
    rig.whispers(link, &format!("{}|away", nick(4)), &format!("!{other} ~"));
    assert!(matches!(&rig.events()[..], [ChannelEvent::Private { .. }]));
    assert!(!rig.channel.is_present(&nick(4), 0));
}

#[test]
fn floods_pause_the_link_and_are_logged_once_a_minute() {
    let (mut rig, link) = Rig::up();
    for number in 0..10_000 {
        rig.says(link, &format!(":irc.example NOTICE * :{number}"));
    }
    let outputs = rig.drain();
    assert!(outputs.iter().any(|output| matches!(output, Output::Pause { .. })));
    assert_eq!(outputs.iter().filter(|output| matches!(output, Output::Log(_))).count(), 1);
    assert!(complaint(&outputs, Cause::TooManyLines));
    // Pings: one answer at a time.
    let (mut rig, link) = Rig::up();
    for number in 0..1_000 {
        rig.says(link, &format!("PING :{number}"));
    }
    rig.pass(at(10));
    assert!(rig.sent().len() <= 2);
    // Messages to verify: first checked for what costs nothing, then budgeted.
    let (mut rig, link) = Rig::up();
    let good = key(2).sign_message(PrivateWord::Push, "AAAA", NETWORK);
    for number in 0..1_500 {
        let text = good.replace("AAAA", &format!("{number:04}"));
        rig.whispers(link, nick(2).as_str(), &format!("!{text} ~"));
    }
    let outputs = rig.drain();
    assert!(complaint(&outputs, Cause::TooManySignatures));
    assert!(outputs.iter().any(|output| matches!(output, Output::Pause { .. })));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Event(_))));
}

#[test]
fn a_channel_of_made_up_users_is_bounded_and_leaves_room_for_who_proves_itself() {
    let (mut rig, link) = Rig::up();
    let alphabet = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let name = |number: usize| {
        let digit = |place: u32| char::from(alphabet[number / 58_usize.pow(place) % 58]);
        format!("J5{}{}", (0..4).map(digit).collect::<String>(), "1".repeat(10))
    };
    for first in (0..20_000).step_by(20) {
        let names: Vec<String> = (first..first + 20).map(name).collect();
        let us = nick(1);
        rig.says(link, &format!(":x 353 {us} = {CHANNEL} :{}", names.join(" ")));
    }
    let present = |rig: &Rig| rig.channel.servers().next().unwrap().peers;
    assert_eq!(present(&rig), MAX_PRESENT);
    rig.drain();
    rig.signed(link, 2, PrivateWord::Push, "AAAA", NETWORK);
    let events = rig.events();
    assert!(matches!(
        &events[..],
        [ChannelEvent::Left { .. }, ChannelEvent::Seen { nick: seen, .. }, ChannelEvent::Private { .. }]
            if *seen == nick(2)
    ));
    assert_eq!(present(&rig), MAX_PRESENT);
}

#[test]
fn half_pieces_and_endless_pieces_are_dropped() {
    let (mut rig, link) = Rig::up();
    let maker = nick(2);
    let half = format!("!tx {} ;", "A".repeat(300));
    rig.whispers(link, maker.as_str(), &half);
    rig.pass(at(61));
    rig.whispers(link, maker.as_str(), "BBBB ~");
    // What was begun on one connection does not go on on the next one.
    rig.whispers(link, maker.as_str(), &half);
    rig.channel.closed(link, "reset", rig.now);
    rig.pass(at(3));
    let link = rig.dialled();
    rig.register(link);
    rig.whispers(link, maker.as_str(), "BBBB ~");
    // One who left begins anew.
    rig.whispers(link, maker.as_str(), &half);
    rig.says(link, &format!(":{maker}!u@h QUIT :x"));
    rig.whispers(link, maker.as_str(), "BBBB ~");
    for _ in 0..1_000 {
        rig.whispers(link, maker.as_str(), &half);
    }
    let events = rig.events();
    assert!(!events.iter().any(|event| matches!(event, ChannelEvent::Private { .. })));
    rig.signed(link, 2, PrivateWord::Push, "AAAA", NETWORK);
    rig.signed(link, 2, PrivateWord::Push, "AAAB", NETWORK);
    assert!(rig.events().iter().any(|event| matches!(event, ChannelEvent::Private { .. })));
}

/// What a server may say, mixed from what it could say right.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let us = nick(1).to_string();
    let them = nick(2).to_string();
    let name = prop_oneof![
        Just(us),
        Just(them.clone()),
        Just(format!("{them}_")),
        Just("irc.example".to_owned()),
        Just(CHANNEL.to_owned()),
        "[ -~]{0,20}",
        ".{0,8}",
    ];
    let command = prop_oneof![
        Just("001"),
        Just("005"),
        Just("353"),
        Just("366"),
        Just("401"),
        Just("433"),
        Just("474"),
        Just("JOIN"),
        Just("PART"),
        Just("KICK"),
        Just("KILL"),
        Just("QUIT"),
        Just("NICK"),
        Just("PRIVMSG"),
        Just("PING"),
        Just("ERROR"),
    ];
    let text = prop_oneof![
        Just("!fill 0 1 2 3 ~".to_owned()),
        Just("!tx AAAA ;".to_owned()),
        Just(format!("NETWORK={NETWORK}")),
        "[!-~ ]{0,40}",
        ".{0,20}",
    ];
    let line = (name.clone(), command, name.clone(), name, text).prop_map(
        |(source, command, a, b, text)| format!(":{source}!u@h {command} {a} {b} :{text}"),
    );
    proptest::collection::vec(prop_oneof![9 => line, 1 => ".{0,60}"], 0..60)
}

proptest! {
    #[test]
    fn nothing_a_server_says_breaks_the_machine(lines in lines(), in_channel: bool) {
        let (mut rig, mut link) = if in_channel {
            Rig::up()
        } else {
            let mut rig = Rig::new(1);
            rig.channel.tick(rig.now);
            let link = rig.dialled();
            rig.channel.opened(link, rig.now);
            (rig, link)
        };
        let (mut up, mut present) = (in_channel, std::collections::BTreeSet::new());
        for line in lines {
            rig.says(link, &line);
            rig.pass(Duration::from_millis(700));
            for output in rig.drain() {
                match output {
                    Output::Dial { link: new, .. } => {
                        link = new;
                        rig.channel.opened(link, rig.now);
                    }
                    Output::Send { line, .. } => {
                        let body = line.strip_suffix("\r\n").unwrap();
                        prop_assert!(!body.contains(['\r', '\n', '\0']) && line.len() <= 512);
                    }
                    // News come in pairs that fit: nobody leaves who was not seen. Who was there before us is told
                    // just before we are up.
                    Output::Event(ChannelEvent::Up(_)) => prop_assert!(!std::mem::replace(&mut up, true)),
                    Output::Event(ChannelEvent::Down(_)) => {
                        prop_assert!(std::mem::replace(&mut up, false));
                        present.clear();
                    }
                    Output::Event(ChannelEvent::Seen { nick, .. }) => {
                        prop_assert!(present.insert(nick));
                    }
                    Output::Event(ChannelEvent::Left { nick, .. }) => {
                        prop_assert!(up && present.remove(&nick));
                    }
                    Output::Event(ChannelEvent::Private { .. }) => prop_assert!(false, "forged"),
                    _ => {}
                }
            }
        }
    }
}
