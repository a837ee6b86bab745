//! What is said and heard.

use super::*;

fn privates(events: &[ChannelEvent]) -> Vec<(Nick, String)> {
    let privates = events.iter().filter_map(|event| match event {
        ChannelEvent::Private { from, text, via } => {
            assert_eq!(*via, IRC);
            Some((*from, text.clone()))
        }
        _ => None,
    });
    privates.collect()
}

/// Two channels, each of which is told what the other one says.
#[test]
fn two_channels_understand_each_other_in_short_and_long() {
    let (mut rig, link) = Rig::up();
    let (us, maker) = (nick(1), nick(2));
    rig.says(link, &format!(":{maker}!u@h JOIN {CHANNEL}"));
    rig.drain();
    let payload = "QUJD".repeat(2_000);
    rig.channel.send_private(0, maker, PrivateWord::Tx, &payload, rig.now).unwrap();
    let start = rig.now;
    rig.pass(at(60));
    let lines = rig.sent();
    assert_eq!(lines.len(), 20);
    assert!(rig.now - start >= Duration::from_millis(1_300) * 19);
    // The same lines reach somebody else, who holds that nick there.
    let mut config = IrcConfig::new(Arc::new(key(2)));
    config.servers =
        vec![IrcServer::new("other.example", 1, "joinmarket-pit", "mainnet", false).unwrap()];
    let mut other = Rig { channel: IrcChannel::new(config, [3; 32]).unwrap(), ..Rig::new(0) };
    other.channel.tick(other.now);
    let theirs = other.dialled();
    other.channel.opened(theirs, other.now);
    other.says(theirs, &format!(":x 001 {maker} :Welcome"));
    other.says(theirs, &format!(":x 005 {maker} NETWORK={NETWORK} :are supported"));
    other.says(theirs, &format!(":{maker}!u@h JOIN {CHANNEL}"));
    other.says(theirs, &format!(":x 366 {maker} {CHANNEL} :End"));
    other.drain();
    for line in lines.iter().filter(|line| line.starts_with("PRIVMSG")) {
        other.says(theirs, &format!(":{us}!~u@host {line}"));
    }
    let events = other.events();
    assert_eq!(events[0], ChannelEvent::Seen { nick: us, via: IRC });
    let expected = key(1).sign_message(PrivateWord::Tx, &payload, NETWORK);
    assert_eq!(privates(&events), [(us, expected)]);
}

#[test]
fn signatures_cover_the_network_and_the_sender() {
    let (mut rig, link) = Rig::up();
    // The name of the network in lower case is what some reference peers sign.
    for hostid in [NETWORK, "testnet"] {
        rig.signed(link, 2, PrivateWord::Push, &format!("A{hostid}"), hostid);
        assert_eq!(privates(&rig.events()).len(), 1, "{hostid}");
    }
    for hostid in ["onion-network", "irc.example6667", "OtherNet", ""] {
        rig.signed(link, 2, PrivateWord::Push, &format!("B{hostid}"), hostid);
        let outputs = rig.drain();
        assert!(!outputs.iter().any(|output| matches!(output, Output::Event(_))), "{hostid}");
    }
    // A nick that its holder has no key for.
    let text = key(2).sign_message(PrivateWord::Push, "CCCC", NETWORK);
    rig.whispers(link, nick(3).as_str(), &format!("!{text} ~"));
    assert!(rig.events().is_empty());
    // The same message once more within half a minute says nothing new.
    rig.signed(link, 2, PrivateWord::Push, "DDDD", NETWORK);
    rig.signed(link, 2, PrivateWord::Push, "DDDD", NETWORK);
    assert_eq!(privates(&rig.events()).len(), 1);
    rig.pass(at(31));
    rig.signed(link, 2, PrivateWord::Push, "DDDD", NETWORK);
    assert_eq!(privates(&rig.events()).len(), 1);
}

#[test]
fn without_a_network_name_host_and_port_are_signed() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled();
    let us = nick(1);
    rig.channel.opened(link, rig.now);
    rig.says(link, &format!(":x 001 {us} :Welcome"));
    rig.says(link, &format!(":{us}!u@h JOIN {CHANNEL}"));
    rig.says(link, &format!(":x 366 {us} {CHANNEL} :End"));
    // A name that comes when we are in already changes nothing.
    rig.says(link, &format!(":x 005 {us} NETWORK=late :are supported"));
    rig.signed(link, 2, PrivateWord::Push, "AAAA", "irc.example6667");
    assert_eq!(privates(&rig.events()).len(), 1);
}

#[test]
fn public_lines_pass_with_their_trailer_and_packed_offers_come_out_whole() {
    let (mut rig, link) = Rig::up();
    let maker = nick(2);
    let text = "sw0reloffer 0 1 2 3 0.4!sw0absoffer 1 1 2 3 4 ~";
    rig.says(link, &format!(":{maker}!u@h PRIVMSG {CHANNEL} :!{text}"));
    let public = ChannelEvent::Public { from: maker, via: IRC, text: text.to_owned() };
    assert_eq!(rig.events(), [ChannelEvent::Seen { nick: maker, via: IRC }, public]);
    assert_eq!(joinery_proto::public_message::parse(text).len(), 2);
    // Not for our channel, no command, nobody's nick, only the beginning of a nick, ourselves.
    for line in [
        format!(":{maker}!u@h PRIVMSG #other :!orderbook"),
        format!(":{maker}!u@h PRIVMSG {CHANNEL} :hello"),
        format!(":{maker}!u@h PRIVMSG {CHANNEL} :!"),
        format!(":{maker}!u@h NOTICE {CHANNEL} :!orderbook"),
        format!(":somebody!u@h PRIVMSG {CHANNEL} :!orderbook"),
        format!(":{maker}_!u@h PRIVMSG {CHANNEL} :!orderbook"),
        format!(":{}!u@h PRIVMSG {CHANNEL} :!orderbook", nick(1)),
        format!(":{maker}!u@h PRIVMSG {CHANNEL}"),
    ] {
        rig.says(link, &line);
        assert!(rig.events().is_empty(), "{line}");
    }
}

#[test]
fn lines_go_out_one_at_a_time_own_answers_first() {
    let (mut rig, link) = Rig::up();
    rig.channel.announce("cancel 0", Audience::All, rig.now).unwrap();
    rig.channel.announce("cancel 1", Audience::Server(0), rig.now).unwrap();
    rig.channel.announce("cancel 2", Audience::Server(1), rig.now).unwrap();
    rig.channel.request_orderbook(Audience::All, rig.now);
    rig.channel.request_orderbook(Audience::All, rig.now);
    rig.says(link, "PING :1");
    rig.says(link, "PING :2");
    let mut times = Vec::new();
    for _ in 0..100 {
        for line in rig.sent() {
            times.push((rig.now, line));
        }
        rig.pass(Duration::from_millis(100));
    }
    let lines: Vec<&str> = times.iter().map(|(_, line)| line.as_str()).collect();
    let to = |text: &str| format!("PRIVMSG {CHANNEL} :!{text}");
    assert_eq!(lines, [&to("cancel 0"), "PONG 2", &to("orderbook"), &to("cancel 1")]);
    assert!(times.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_millis(1_300)));
}

#[test]
fn what_cannot_be_sent_is_refused_and_the_queue_is_bounded() {
    let (mut rig, link) = Rig::up();
    let maker = nick(2);
    let push = |rig: &mut Rig, to, text: &str| {
        rig.channel.send_private(0, to, PrivateWord::Push, text, rig.now)
    };
    assert_eq!(push(&mut rig, maker, "AAAA"), Err(SendError::NoRoute { nick: maker }));
    rig.says(link, &format!(":{maker}!u@h JOIN {CHANNEL}"));
    for bad in ["", "a\r\nQUIT", "a\nb", "a\0b", "\u{e9}"] {
        assert_eq!(push(&mut rig, maker, bad), Err(SendError::Text), "{bad:?}");
    }
    assert_eq!(rig.channel.announce("x\r\nQUIT :y", Audience::All, rig.now), Err(SendError::Text));
    assert_eq!(
        rig.channel.announce(&"x".repeat(450), Audience::All, rig.now),
        Err(SendError::TooLong)
    );
    assert_eq!(push(&mut rig, maker, &"A".repeat(65_536)), Err(SendError::TooLong));
    assert_eq!(
        rig.channel.send_private(7, maker, PrivateWord::Push, "A", rig.now),
        Err(SendError::NoRoute { nick: maker })
    );
    let large = "A".repeat(40_000);
    let results: Vec<_> = (0..5).map(|_| push(&mut rig, maker, &large)).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(results[4], Err(SendError::Busy));
    // A lost connection takes with it what waited: the roles hear of it and start again.
    rig.drain();
    rig.channel.closed(link, "reset", rig.now);
    rig.pass(at(3));
    let link = rig.dialled();
    rig.register(link);
    rig.pass(at(30));
    assert!(rig.sent().iter().all(|line| !line.starts_with("PRIVMSG")));
}

#[test]
fn a_long_source_makes_our_lines_shorter() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled();
    let (us, maker) = (nick(1), nick(2));
    let source = format!("{us}!~{}@{}", &us.as_str()[..9], "h".repeat(63));
    rig.channel.opened(link, rig.now);
    rig.says(link, &format!(":x 001 {us} :Welcome"));
    rig.says(link, &format!(":{source} JOIN {CHANNEL}"));
    rig.says(link, &format!(":x 366 {us} {CHANNEL} :End"));
    rig.says(link, &format!(":{maker}!u@h JOIN {CHANNEL}"));
    rig.channel.send_private(0, maker, PrivateWord::Tx, &"A".repeat(3_000), rig.now).unwrap();
    rig.pass(at(60));
    let lines: Vec<String> =
        rig.sent().into_iter().filter(|line| line.starts_with("PRIVMSG")).collect();
    assert!(lines.len() > 7);
    // A colon, a space and the line end belong to the 512 bytes of the server.
    assert!(lines.iter().all(|line| line.len() + source.len() + 4 <= 512));
}
