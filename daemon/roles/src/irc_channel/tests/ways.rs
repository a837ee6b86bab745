//! Coming, staying, going: registration, nicks in use, who is there, back-off.

use super::*;

#[test]
fn registration_is_that_of_the_reference_line_by_line() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled();
    let us = nick(1);
    rig.channel.opened(link, rig.now);
    assert_eq!(rig.sent(), [format!("NICK {us}")]);
    rig.pass(Duration::from_millis(1_299));
    assert!(rig.sent().is_empty(), "1.3 s between two lines");
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.sent(), [format!("USER {us} foo bar :None")]);
    rig.says(link, &format!(":irc.example 001 {us} :Welcome"));
    rig.says(link, &format!(":irc.example 005 {us} NETWORK={NETWORK} :are supported"));
    rig.pass(at(2));
    assert_eq!(rig.sent(), [format!("JOIN {CHANNEL}")]);
    assert!(!rig.channel.is_up());
    rig.says(link, &format!(":{us}!~u@host JOIN {CHANNEL}"));
    // Who is there is told first.
    let [a, b] = [nick(2), nick(3)];
    rig.says(link, &format!(":irc.example 353 {us} = {CHANNEL} :{us} @{a} +{b}"));
    rig.says(link, &format!(":{b}!u@h QUIT :bye"));
    assert!(rig.events().is_empty() && !rig.channel.is_up());
    rig.says(link, &format!(":irc.example 366 {us} {CHANNEL} :End of NAMES list"));
    assert_eq!(rig.events(), [ChannelEvent::Seen { nick: a, via: IRC }, ChannelEvent::Up(IRC)]);
    rig.pass(at(2));
    assert_eq!(rig.sent(), [format!("MODE {us} +B")]);
    assert!(rig.channel.is_up() && rig.channel.is_ready(at(0), rig.now));
    // A ping every two minutes, and answers to the server's.
    rig.pass(at(116));
    assert_eq!(rig.sent(), ["PING irc.example"]);
    rig.says(link, "PING :abc def");
    rig.pass(at(2));
    assert_eq!(rig.sent(), ["PONG abc def"]);
}

#[test]
fn a_nick_in_use_is_tried_again_and_never_changed() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled();
    rig.channel.opened(link, rig.now);
    rig.pass(at(2));
    rig.drain();
    let us = nick(1);
    for _ in 0..3 {
        rig.says(link, &format!(":irc.example 433 * {us} :Nickname is already in use"));
        // Said twice, tried once.
        rig.says(link, &format!(":irc.example 433 * {us} :Nickname is already in use"));
        rig.pass(at(9));
        assert!(rig.sent().is_empty());
        rig.pass(at(1));
        assert_eq!(rig.sent(), [format!("NICK {us}")]);
    }
    rig.says(link, &format!(":irc.example 001 {us} :Welcome"));
    rig.says(link, &format!(":{us}!~u@host JOIN {CHANNEL}"));
    // A server that does not say where its list ends.
    rig.pass(at(10));
    assert!(rig.channel.is_up());
    // One that stays in use ends in a new connection.
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled();
    rig.channel.opened(link, rig.now);
    for _ in 0..40 {
        rig.says(link, &format!(":irc.example 433 * {us} :Nickname is already in use"));
        rig.pass(at(10));
    }
    let outputs = rig.drain();
    assert!(closes(&outputs, link));
    let nicks = outputs
        .iter()
        .filter(|output| matches!(output, Output::Send { line, .. } if line.starts_with("NICK ")));
    assert!(nicks.clone().count() > 20);
    for output in nicks {
        assert!(matches!(output, Output::Send { line, .. } if *line == format!("NICK {us}\r\n")));
    }
}

#[test]
fn a_server_that_cuts_our_nick_or_refuses_us_is_left_alone_for_minutes() {
    let us = nick(1);
    let answers = [
        format!(":irc.example 001 {} :Welcome", &us.as_str()[..9]),
        format!(":irc.example 432 * {us} :Nickname too long, max. 8 characters"),
        format!(":irc.example 465 {us} :You are banned"),
        format!(":irc.example 005 {us} NETWORK=onion-network :are supported"),
        format!(":irc.example 005 {us} NETWORK=network :are supported"),
    ];
    for answer in answers {
        let mut rig = Rig::new(1);
        rig.channel.tick(rig.now);
        let link = rig.dialled();
        rig.channel.opened(link, rig.now);
        rig.says(link, &answer);
        assert!(closes(&rig.drain(), link), "{answer}");
        rig.pass(at(239));
        assert!(rig.drain().is_empty(), "{answer}");
    }
    let (mut rig, link) = Rig::up();
    rig.channel.closed(link, "reset", rig.now);
    rig.pass(at(2));
    let link = rig.dialled();
    rig.channel.opened(link, rig.now);
    rig.says(link, &format!(":irc.example 001 {us} :Welcome"));
    rig.says(link, &format!(":irc.example 474 {us} {CHANNEL} :Cannot join channel (+b)"));
    assert!(closes(&rig.drain(), link));
}

#[test]
fn everybody_in_the_channel_is_seen_and_every_way_out_is_noticed() {
    let (mut rig, link) = Rig::up();
    let names: Vec<Nick> = (2..10).map(nick).collect();
    let list: Vec<String> = names.iter().map(Nick::to_string).collect();
    let us = nick(1);
    rig.says(
        link,
        &format!(":irc.example 353 {us} = {CHANNEL} :{us} @{} ChanServ", list.join(" +")),
    );
    rig.says(link, &format!(":irc.example 366 {us} {CHANNEL} :End of NAMES list"));
    let seen = |nick| ChannelEvent::Seen { nick, via: IRC };
    let left = |nick| ChannelEvent::Left { nick, via: IRC };
    assert_eq!(rig.events(), names.iter().map(|nick| seen(*nick)).collect::<Vec<_>>());
    let [a, b, c, d, e, f, g, h] = names[..] else { panic!("eight") };
    rig.says(link, &format!(":{a}!u@h PART {CHANNEL} :bye"));
    rig.says(link, &format!(":{b}!u@h QUIT :irc.example hub.example"));
    rig.says(link, &format!(":op!u@h KICK {CHANNEL} {c} :out"));
    rig.says(link, &format!(":op!u@h KILL {d} :out"));
    rig.says(link, &format!(":{e}!u@h NICK :Guest1"));
    rig.says(link, &format!(":irc.example 401 {us} {f} :No such nick"));
    assert_eq!(rig.events(), [a, b, c, d, e, f].map(left));
    // What does not concern our channel, or is not exactly that nick.
    rig.says(link, &format!(":{g}!u@h PART #other"));
    rig.says(link, &format!(":op!u@h KICK #other {g}"));
    rig.says(link, &format!(":{g}_!u@h QUIT :x"));
    rig.says(link, &format!(":{}!u@h QUIT :x", g.as_str().to_lowercase()));
    rig.says(link, &format!(":{a}!u@h QUIT :gone already"));
    assert!(rig.events().is_empty());
    assert!(rig.channel.is_present(&g, 0) && rig.channel.is_present(&h, 0));
    rig.says(link, &format!(":{a}!u@h JOIN {CHANNEL}"));
    rig.says(link, &format!(":{a}_!u@h JOIN {CHANNEL}"));
    assert_eq!(rig.events(), [seen(a)]);
    // One nick becomes another one.
    rig.says(link, &format!(":{a}!u@h NICK {b}"));
    assert_eq!(rig.events(), [left(a), seen(b)]);
    // The connection ends: what it said of presence counts no more, without a line for each.
    rig.channel.closed(link, "reset", rig.now);
    assert_eq!(rig.events(), [ChannelEvent::Down(IRC)]);
    assert!(!rig.channel.is_present(&g, 0));
}

#[test]
fn who_puts_us_out_is_joined_again_later() {
    let us = nick(1);
    let ways = [
        format!(":op!u@h KICK {CHANNEL} {us} :out"),
        format!(":{us}!u@h PART {CHANNEL}"),
        format!(":{us}!u@h QUIT :collision"),
        format!(":op!u@h KILL {us} :collision"),
        format!(":{us}!u@h NICK :Guest2"),
        "ERROR :Closing link".to_owned(),
    ];
    for way in ways {
        let (mut rig, link) = Rig::up();
        rig.says(link, &way);
        let outputs = rig.drain();
        assert!(closes(&outputs, link), "{way}");
        assert!(outputs.contains(&Output::Event(ChannelEvent::Down(IRC))), "{way}");
        rig.pass(at(2));
        let link = rig.dialled();
        rig.register(link);
        assert!(rig.channel.is_up(), "{way}");
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let (mut rig, link) = Rig::up();
    rig.pass(at(289));
    assert!(!closes(&rig.drain(), link));
    rig.says(link, ":irc.example PONG irc.example :irc.example");
    rig.pass(at(299));
    assert!(!closes(&rig.drain(), link));
    rig.pass(at(1));
    assert!(closes(&rig.drain(), link));
    assert_eq!(rig.state(), ServerState::Waiting);
}

/// Defect 33: a connection that is reset at once must not become a loop.
#[test]
fn resets_do_not_spin_and_only_a_connection_that_lasted_wipes_failures_out() {
    let mut rig = Rig::new(1);
    let mut dials = 0;
    rig.channel.tick(rig.now);
    while rig.now < at(4 * 3_600) {
        for output in rig.drain() {
            if let Output::Dial { link, .. } = output {
                dials += 1;
                rig.register(link);
                rig.channel.closed(link, "reset", rig.now);
            }
        }
        rig.pass(at(10));
    }
    assert!(dials < 16, "{dials} attempts in four hours");
    let (mut rig, link) = Rig::up();
    rig.pass(at(60));
    rig.channel.closed(link, "reset", rig.now);
    assert_eq!(rig.channel.servers().next().unwrap().failures, 1);
    rig.pass(at(2));
    rig.dialled();
}

#[test]
fn deadlines_end_every_step() {
    let mut rig = Rig::new(1);
    rig.channel.tick(rig.now);
    let link = rig.dialled();
    rig.pass(at(120));
    assert!(closes(&rig.drain(), link), "dialling");
    rig.pass(at(5));
    let link = rig.dialled();
    rig.channel.opened(link, rig.now);
    for _ in 0..31 {
        rig.says(link, "NOTICE * :please wait");
        rig.pass(at(10));
    }
    assert!(closes(&rig.drain(), link), "registering");
}

#[test]
fn stopping_says_goodbye_and_dials_no_more() {
    let (mut rig, link) = Rig::up();
    rig.channel.stop(rig.now);
    let outputs = rig.drain();
    let quit = Output::Send { link, line: "QUIT :\r\n".to_owned() };
    assert_eq!(outputs, [quit, Output::Close { link }, Output::Event(ChannelEvent::Down(IRC))]);
    rig.pass(at(10_000));
    assert!(rig.drain().is_empty() && rig.channel.next_wake().is_none());
}
