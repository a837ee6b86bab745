//! The outer shape of what a server sends: JSON-RPC 2.0 objects, one a line, alone or in an array.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::{LinkError, ServerError};
use super::script::{ScriptHash, parse_hash};
use crate::text::printable;

/// One object, its parts not yet looked into.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What one object says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// The answer to a call of ours; the text is JSON.
    Answer { id: u64, outcome: Result<&'a str, ServerError> },
    /// An error that names no call: the server could not even read us.
    Complaint(ServerError),
    /// A new best block; the text is a JSON object with `hex` and `height`.
    Tip(&'a str),
    /// A script's history changed.
    Script(ScriptHash, Option<[u8; 32]>),
    /// A notification that we did not ask for.
    Other,
}

/// Reads a line. Never panics, whatever it holds; deep nesting is refused by the JSON parser.
pub(crate) fn parse_line(line: &[u8]) -> Result<Vec<Message<'_>>, LinkError> {
    let text = std::str::from_utf8(line).map_err(|_| LinkError::Protocol("a line is not UTF-8"))?;
    match text.trim_start().as_bytes().first() {
        Some(b'{') => Ok(vec![parse_message(text)?]),
        Some(b'[') => {
            let parts: Vec<&RawValue> = serde_json::from_str(text)
                .map_err(|_| LinkError::Protocol("a line is not JSON"))?;
            parts.into_iter().map(|part| parse_message(part.get())).collect()
        }
        _ => Err(LinkError::Protocol("a line is not a JSON object")),
    }
}

fn parse_message(text: &str) -> Result<Message<'_>, LinkError> {
    let envelope: Envelope<'_> =
        object(text).ok_or(LinkError::Protocol("a line is not a JSON-RPC object"))?;
    if let Some(method) = envelope.method {
        return parse_notification(method.get(), envelope.params);
    }
    let outcome = match envelope.error {
        Some(error) => Err(ServerError { text: error_text(error.get()) }),
        // A result of null and no result at all look the same here, and mean the same.
        None => Ok(envelope.result.map_or("null", RawValue::get)),
    };
    match (envelope.id, outcome) {
        (Some(id), outcome) => {
            let id = id
                .get()
                .parse()
                .map_err(|_| LinkError::Protocol("an answer's id is not one of ours"))?;
            Ok(Message::Answer { id, outcome })
        }
        (None, Err(error)) => Ok(Message::Complaint(error)),
        (None, Ok(_)) => Err(LinkError::Protocol("an answer has no id")),
    }
}

fn parse_notification<'a>(
    method: &str,
    params: Option<&'a RawValue>,
) -> Result<Message<'a>, LinkError> {
    let malformed = LinkError::Protocol("a notification is malformed");
    let params = params.map_or("[]", RawValue::get);
    match method {
        r#""blockchain.headers.subscribe""# => {
            let mut parts: Vec<&RawValue> =
                serde_json::from_str(params).map_err(|_| malformed.clone())?;
            Ok(Message::Tip(parts.pop().ok_or(malformed)?.get()))
        }
        r#""blockchain.scripthash.subscribe""# => {
            let (script, status): (String, Option<String>) =
                serde_json::from_str(params).map_err(|_| malformed.clone())?;
            let status = status.as_deref().map(parse_hash);
            match (ScriptHash::from_hex(&script), status) {
                (Some(script), None) => Ok(Message::Script(script, None)),
                (Some(script), Some(Some(status))) => Ok(Message::Script(script, Some(status))),
                _ => Err(malformed),
            }
        }
        _ => Ok(Message::Other),
    }
}

/// Reads a JSON object into a struct. Derived code would also take an array, so the first byte is checked.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// Reads any JSON value other than an object.
pub(crate) fn value<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// The words of an error, which is `{"code", "message"}` or, from some servers, just text.
fn error_text(raw: &str) -> String {
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let text = object::<Error>(raw).map(|error| error.message).or_else(|| value::<String>(raw));
    printable(text.as_deref().unwrap_or(raw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(line: &str) -> Result<Message<'_>, LinkError> {
        Ok(parse_line(line.as_bytes())?.pop().unwrap())
    }

    #[test]
    fn answers_errors_and_notifications_are_told_apart() {
        assert_eq!(
            one(r#"{"jsonrpc":"2.0","id":7,"result":[1, 2]}"#).unwrap(),
            Message::Answer { id: 7, outcome: Ok("[1, 2]") }
        );
        assert_eq!(
            one(r#"{"id":7,"result":null,"error":null}"#).unwrap(),
            Message::Answer { id: 7, outcome: Ok("null") }
        );
        let error = ServerError { text: "busy?".into() };
        assert_eq!(
            one(r#"{"id":7,"error":{"code":1,"message":"busy\n"}}"#).unwrap(),
            Message::Answer { id: 7, outcome: Err(error.clone()) }
        );
        assert_eq!(one(r#"{"id":null,"error":"busy\u0007"}"#).unwrap(), Message::Complaint(error));
        assert_eq!(
            one(r#"{"method":"blockchain.headers.subscribe","params":[{"height":1}]}"#).unwrap(),
            Message::Tip(r#"{"height":1}"#)
        );
        let hash = "ab".repeat(32);
        let line =
            format!(r#"{{"method":"blockchain.scripthash.subscribe","params":["{hash}",null]}}"#);
        assert!(matches!(one(&line).unwrap(), Message::Script(_, None)));
        assert_eq!(one(r#"{"method":"server.gossip","params":3}"#).unwrap(), Message::Other);
    }

    #[test]
    fn arrays_of_answers_are_taken_and_arrays_as_objects_are_not() {
        let messages = parse_line(br#"[{"id":1,"result":1},{"id":2,"result":2}]"#).unwrap();
        assert_eq!(messages.len(), 2);
        // Derived deserialisation would read this as {"id": 1, "method": null, ...}.
        assert!(parse_line(br#"[[1,null,null,5,null]]"#).is_err());
    }

    #[test]
    fn everything_else_is_refused() {
        for line in [
            "",
            "null",
            "7",
            "garbage",
            r#"{"id":"7","result":1}"#,
            r#"{"id":-7,"result":1}"#,
            r#"{"id":7.0,"result":1}"#,
            r#"{"result":1}"#,
            r#"{"id":1,"id":2,"result":1}"#,
            r#"{"method":"blockchain.headers.subscribe","params":[]}"#,
            r#"{"method":"blockchain.scripthash.subscribe","params":["ab",null]}"#,
            r#"{"method":"blockchain.scripthash.subscribe","params":{}}"#,
        ] {
            assert!(one(line).is_err(), "{line}");
        }
        assert!(parse_line(b"{\"id\":1,\"result\":\"\xff\"}").is_err());
        let deep =
            format!("{{\"id\":1,\"result\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        if let Ok(messages) = parse_line(deep.as_bytes()) {
            // Passed through unread; reading it is refused.
            let Message::Answer { outcome: Ok(text), .. } = &messages[0] else { panic!() };
            assert!(value::<serde_json::Value>(text).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_line(&line);
        }

        #[test]
        fn no_json_panics(
            line in r#"[\[{]?("(id|method|params|result|error)"|[:,\[\]{}0-9a-f"]|null|"blockchain\.scripthash\.subscribe"){0,40}"#
        ) {
            let _ = parse_line(line.as_bytes());
        }
    }
}
