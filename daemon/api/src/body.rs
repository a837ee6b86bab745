//! Request bodies (`spec/api.md` 1.6): raw bytes within a limit, then one strict JSON object, whatever the
//! content type says.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::ApiError;
use crate::number;

/// Largest body that is read, bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// How long a client may take to send its body before it gets 408.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole request body. Extraction answers 413 above [`MAX_BODY`] and 408 to a client that dawdles.
#[derive(Debug, Clone)]
pub(crate) struct RawBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let limited = Limited::new(request.into_body(), MAX_BODY);
        let collected = tokio::time::timeout(READ_TIMEOUT, limited.collect())
            .await
            .map_err(|_| ApiError::RequestTimeout)?;
        match collected {
            Ok(body) => Ok(Self(body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge),
            // The client went away or broke the framing: nobody reads this answer.
            Err(_) => Err(ApiError::invalid("body")),
        }
    }
}

impl RawBody {
    /// The body as a JSON object.
    ///
    /// # Errors
    /// 400 when it is not UTF-8, not JSON, nested too deep, names a key twice, or is no object.
    pub(crate) fn object(&self) -> Result<Object, ApiError> {
        match self.value()? {
            Value::Object(map) => Ok(Object(map)),
            _ => Err(ApiError::invalid("body")),
        }
    }

    /// The body as any JSON value.
    ///
    /// # Errors
    /// As [`RawBody::object`], without the last reason.
    pub(crate) fn value(&self) -> Result<Value, ApiError> {
        serde_json::from_slice::<Strict>(&self.0)
            .map(|strict| strict.0)
            .map_err(|_| ApiError::invalid("body"))
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(u8::is_ascii_whitespace)
    }
}

/// A JSON object of a request. Accessors treat `null` as absent and answer 400 with the field's name.
#[derive(Clone)]
pub(crate) struct Object(Map<String, Value>);

impl fmt::Debug for Object {
    /// Keys only: the values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Object {
    /// An object out of a part of a body.
    pub(crate) const fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// The value of a key; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A required value of any type.
    pub(crate) fn required(&self, key: &'static str) -> Result<&Value, ApiError> {
        self.get(key).ok_or_else(|| ApiError::invalid(key))
    }

    /// A required string.
    pub(crate) fn string(&self, key: &'static str) -> Result<&str, ApiError> {
        self.required(key)?.as_str().ok_or_else(|| ApiError::invalid(key))
    }

    /// An optional string.
    pub(crate) fn optional_string(&self, key: &'static str) -> Result<Option<&str>, ApiError> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| ApiError::invalid(key))).transpose()
    }

    /// A required string that leaves the object for a zeroised place.
    pub(crate) fn take_secret(&mut self, key: &'static str) -> Result<SecretString, ApiError> {
        match self.0.remove(key) {
            Some(Value::String(text)) => Ok(SecretString::from(text)),
            _ => Err(ApiError::invalid(key)),
        }
    }

    /// An optional secret string.
    pub(crate) fn take_optional_secret(
        &mut self,
        key: &'static str,
    ) -> Result<Option<SecretString>, ApiError> {
        match self.get(key) {
            Some(_) => self.take_secret(key).map(Some),
            None => Ok(None),
        }
    }

    /// A required *int* field.
    pub(crate) fn int(&self, key: &'static str) -> Result<i64, ApiError> {
        number::int(self.required(key)?).ok_or_else(|| ApiError::invalid(key))
    }

    /// A required *int* field that cannot be negative.
    pub(crate) fn unsigned(&self, key: &'static str) -> Result<u64, ApiError> {
        number::unsigned(self.required(key)?).ok_or_else(|| ApiError::invalid(key))
    }

    /// An optional *int* field.
    pub(crate) fn optional_int(&self, key: &'static str) -> Result<Option<i64>, ApiError> {
        self.get(key)
            .map(|value| number::int(value).ok_or_else(|| ApiError::invalid(key)))
            .transpose()
    }

    /// A required *dec* field, as plain decimal text.
    pub(crate) fn decimal(&self, key: &'static str) -> Result<String, ApiError> {
        number::decimal(self.required(key)?).ok_or_else(|| ApiError::invalid(key))
    }

    /// An optional *dec* field, as plain decimal text.
    pub(crate) fn optional_decimal(&self, key: &'static str) -> Result<Option<String>, ApiError> {
        self.get(key)
            .map(|value| number::decimal(value).ok_or_else(|| ApiError::invalid(key)))
            .transpose()
    }

    /// A required boolean; 0 and 1 count too.
    pub(crate) fn boolean(&self, key: &'static str) -> Result<bool, ApiError> {
        match self.required(key)? {
            Value::Bool(value) => Ok(*value),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
            Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
            _ => Err(ApiError::invalid(key)),
        }
    }

    /// An optional array of strings, at most `limit` long.
    pub(crate) fn optional_strings(
        &self,
        key: &'static str,
        limit: usize,
    ) -> Result<Option<Vec<&str>>, ApiError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() <= limit);
        list.and_then(|list| list.iter().map(Value::as_str).collect())
            .map(Some)
            .ok_or_else(|| ApiError::invalid(key))
    }
}

/// A JSON value whose objects name each key once. Two values for one key mean two things to two readers,
/// which is no way to ask for a payment.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is named twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &[u8]) -> Result<Value, ApiError> {
        RawBody(Bytes::copy_from_slice(text)).object().map(|object| Value::Object(object.0))
    }

    #[test]
    fn reads_an_object_as_serde_json_does() {
        let text = r#"{"a":[1,-2,3.5,"x",null,true,{"b":{}}],"c":18446744073709551615}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn rejects_what_is_not_one_plain_object() {
        let deep =
            [b"{\"a\":".as_slice(), &b"[".repeat(100_000), &b"]".repeat(100_000), b"}"].concat();
        let cases: [&[u8]; 15] = [
            b"",
            b"null",
            b"[]",
            b"\"x\"",
            b"{",
            b"{}x",
            b"{\"a\":NaN}",
            b"{\"a\":Infinity}",
            b"{\"a\":1e400}",
            b"{\"a\":1,\"a\":2}",
            b"{\"a\":{\"b\":1,\"b\":1}}",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\\ud800\"}",
            b"{\0\"\0a\0\"\0:\x001\0}\0",
        ];
        for case in cases.into_iter().chain([deep.as_slice()]) {
            assert!(
                parse(case).is_err(),
                "{:?}",
                String::from_utf8_lossy(&case[..case.len().min(40)])
            );
        }
    }

    #[test]
    fn null_counts_as_absent() {
        let object = Object(json!({"a": null, "b": 1}).as_object().unwrap().clone());
        assert!(object.get("a").is_none());
        assert_eq!(object.optional_int("a").unwrap(), None);
        assert_eq!(object.optional_int("b").unwrap(), Some(1));
        assert!(object.required("a").is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        let object = Object(json!({"password": "hunter2"}).as_object().unwrap().clone());
        assert_eq!(format!("{object:?}"), r#"{"password"}"#);
    }
}
