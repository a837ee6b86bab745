//! `nick.json`.

use serde::Deserialize;

use crate::nick::Nick;
use crate::private_message::UnverifiedMessage;

#[derive(Deserialize)]
struct File {
    derivation: Vec<Derivation>,
    ownership_verification_reference: Vec<Ownership>,
    ownership_verification_second_implementation: Vec<OwnershipLine>,
}

#[derive(Deserialize)]
struct Derivation {
    pubkey: String,
    nick: String,
}

#[derive(Deserialize)]
struct Ownership {
    name: String,
    inputs: Inputs,
    expected: bool,
}

#[derive(Deserialize)]
struct Inputs {
    msg: String,
    sig: String,
    #[serde(rename = "pub")]
    key: String,
    nick: String,
    hostid: String,
}

#[derive(Deserialize)]
struct OwnershipLine {
    name: String,
    from_nick: String,
    rest: String,
    hostid: String,
    expected_ok: bool,
    expected_command: Option<String>,
    expected_data: Option<String>,
}

#[test]
fn nicks_are_equal_byte_for_byte() {
    let file: File = super::load("nick");
    assert_eq!(file.derivation.len(), 6);
    for case in &file.derivation {
        let nick = Nick::from_public_key(&case.pubkey.parse().unwrap());
        assert_eq!(nick.as_str(), case.nick);
        assert_eq!(case.nick.parse::<Nick>().unwrap(), nick);
    }
}

/// The reference's first two characters go unchecked there; all sixteen count here.
fn version_is_not_ours(nick: &str) -> bool {
    !nick.starts_with("J5")
}

#[test]
fn ownership_is_decided_as_in_the_reference() {
    let file: File = super::load("nick");
    assert_eq!(file.ownership_verification_reference.len(), 8);
    for case in &file.ownership_verification_reference {
        let Inputs { msg, sig, key, nick, hostid } = &case.inputs;
        // The vector's message already ends with the host id.
        let payload = msg.strip_suffix(hostid.as_str()).unwrap_or(msg);
        let text = format!("fill {payload} {key} {sig}");
        let verified = nick.parse::<Nick>().is_ok_and(|nick| {
            UnverifiedMessage::parse(&text).is_ok_and(|m| m.verify(&nick, hostid).is_ok())
        });
        let expected = case.expected && !version_is_not_ours(nick);
        assert_eq!(verified, expected, "{}", case.name);
    }
}

#[test]
fn ownership_is_decided_as_in_the_second_implementation() {
    let file: File = super::load("nick");
    assert_eq!(file.ownership_verification_second_implementation.len(), 4);
    for case in &file.ownership_verification_second_implementation {
        let result = case
            .from_nick
            .parse::<Nick>()
            .ok()
            .zip(UnverifiedMessage::parse(&case.rest).ok())
            .and_then(|(nick, message)| message.verify(&nick, &case.hostid).ok());
        let expected = case.expected_ok && !version_is_not_ours(&case.from_nick);
        assert_eq!(result.is_some(), expected, "{}", case.name);
        if let Some(message) = result {
            assert_eq!(Some(message.word.as_str()), case.expected_command.as_deref());
            assert_eq!(Some(message.payload), case.expected_data.as_deref());
        }
    }
}
