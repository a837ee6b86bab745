//! Bencode, as the reference's wallet files use it (`spec/wallet.md` 4.2).
//!
//! The parser borrows from its input, so that secrets are not copied around.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// Deepest nesting: a cached address in a wallet file is at depth 8.
const MAX_DEPTH: u8 = 24;
/// Most values in one document; a full address cache has some ten thousand.
const MAX_VALUES: u32 = 1_000_000;
/// Digits of the largest i64 with sign.
const MAX_INTEGER_LEN: usize = 20;
/// Digits of the longest byte string length.
const MAX_LENGTH_LEN: usize = 9;

/// A parsed value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// `i-12e`.
    Integer(i64),
    /// `4:text`.
    Bytes(&'a [u8]),
    /// `l..e`.
    List(Vec<Self>),
    /// `d..e`.
    Dict(Dict<'a>),
}

/// A dictionary with byte-string keys.
pub(super) type Dict<'a> = BTreeMap<&'a [u8], Value<'a>>;

impl<'a> Value<'a> {
    pub(super) const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) const fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    pub(super) const fn dict(&self) -> Option<&Dict<'a>> {
        match self {
            Self::Dict(dict) => Some(dict),
            _ => None,
        }
    }
}

/// Why bytes are not bencode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BencodeError {
    #[error("ends in the middle of a value")]
    Cut,
    #[error("unexpected byte")]
    Unexpected,
    #[error("number out of range or not in its shortest form")]
    Number,
    #[error("dictionary key appears twice")]
    DuplicateKey,
    #[error("nested too deeply or too many values")]
    TooComplex,
    #[error("bytes after the end")]
    Trailing,
}

/// Parses exactly one value that fills the whole input.
pub(super) fn parse(input: &[u8]) -> Result<Value<'_>, BencodeError> {
    let mut parser = Parser { rest: input, values: 0 };
    let value = parser.value(0)?;
    if parser.rest.is_empty() { Ok(value) } else { Err(BencodeError::Trailing) }
}

struct Parser<'a> {
    rest: &'a [u8],
    values: u32,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Result<u8, BencodeError> {
        self.rest.first().copied().ok_or(BencodeError::Cut)
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// Takes bytes up to a terminator, which is dropped.
    fn until(&mut self, end: u8, most: usize) -> Result<&'a str, BencodeError> {
        let window = self.rest.get(..self.rest.len().min(most + 1)).unwrap_or_default();
        let Some(position) = window.iter().position(|byte| *byte == end) else {
            return Err(if self.rest.len() > most {
                BencodeError::Number
            } else {
                BencodeError::Cut
            });
        };
        let (text, rest) = self.rest.split_at_checked(position).ok_or(BencodeError::Cut)?;
        self.rest = rest;
        self.skip();
        std::str::from_utf8(text).map_err(|_| BencodeError::Number)
    }

    fn bytes(&mut self) -> Result<&'a [u8], BencodeError> {
        let digits = self.until(b':', MAX_LENGTH_LEN)?;
        if !shortest(digits) {
            return Err(BencodeError::Number);
        }
        let length: usize = digits.parse().map_err(|_| BencodeError::Number)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(BencodeError::Cut)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn value(&mut self, depth: u8) -> Result<Value<'a>, BencodeError> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(BencodeError::TooComplex);
        }
        match self.peek()? {
            b'i' => {
                self.skip();
                let digits = self.until(b'e', MAX_INTEGER_LEN)?;
                let absolute = digits.strip_prefix('-');
                if !shortest(absolute.unwrap_or(digits)) || absolute == Some("0") {
                    return Err(BencodeError::Number);
                }
                digits.parse().map(Value::Integer).map_err(|_| BencodeError::Number)
            }
            b'l' => {
                self.skip();
                let mut values = Vec::new();
                while self.peek()? != b'e' {
                    values.push(self.value(depth + 1)?);
                }
                self.skip();
                Ok(Value::List(values))
            }
            b'd' => {
                self.skip();
                let mut dict = Dict::new();
                while self.peek()? != b'e' {
                    if !self.peek()?.is_ascii_digit() {
                        return Err(BencodeError::Unexpected);
                    }
                    let key = self.bytes()?;
                    let value = self.value(depth + 1)?;
                    if dict.insert(key, value).is_some() {
                        return Err(BencodeError::DuplicateKey);
                    }
                }
                self.skip();
                Ok(Value::Dict(dict))
            }
            b'0'..=b'9' => self.bytes().map(Value::Bytes),
            _ => Err(BencodeError::Unexpected),
        }
    }
}

/// Decimal digits without leading zeros.
fn shortest(digits: &str) -> bool {
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
}

/// A value to write. Byte strings may be secrets and are erased on drop.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// `i-12e`.
    Integer(i64),
    /// `4:text`.
    Bytes(Zeroizing<Vec<u8>>),
    /// `l..e`.
    List(Vec<Self>),
    /// `d..e`, written in ascending order of the raw keys as the format demands.
    Dict(BTreeMap<Vec<u8>, Self>),
}

impl Node {
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(Zeroizing::new(bytes.to_vec()))
    }

    pub(super) fn dict<K: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// Writes the value behind what `out` holds. The buffer is sized first, so that growing it leaves
    /// no copy of a secret behind.
    pub(super) fn encode(&self, out: &mut Zeroizing<Vec<u8>>) {
        let mut length = out.len();
        self.write(&mut |bytes| length += bytes.len());
        let mut sized = Zeroizing::new(Vec::with_capacity(length));
        sized.extend_from_slice(out);
        self.write(&mut |bytes| sized.extend_from_slice(bytes));
        *out = sized;
    }

    fn write(&self, out: &mut impl FnMut(&[u8])) {
        fn text(bytes: &[u8], out: &mut impl FnMut(&[u8])) {
            out(format!("{}:", bytes.len()).as_bytes());
            out(bytes);
        }
        match self {
            Self::Integer(number) => out(format!("i{number}e").as_bytes()),
            Self::Bytes(bytes) => text(bytes, out),
            Self::List(values) => {
                out(b"l");
                values.iter().for_each(|value| value.write(out));
                out(b"e");
            }
            Self::Dict(dict) => {
                out(b"d");
                for (key, value) in dict {
                    text(key, out);
                    value.write(out);
                }
                out(b"e");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_values_in_any_key_order() {
        let value = parse(b"d1:bli-12ei4294967296ee1:a4:spame").expect("valid");
        let dict = value.dict().expect("dictionary");
        assert_eq!(dict.get(b"a".as_slice()).and_then(Value::text), Some("spam"));
        let list = dict.get(b"b".as_slice()).and_then(Value::list).expect("list");
        assert_eq!(list, [Value::Integer(-12), Value::Integer(1 << 32)]);
        assert_eq!(parse(b"i-9223372036854775808e"), Ok(Value::Integer(i64::MIN)));
        assert_eq!(parse(b"0:"), Ok(Value::Bytes(b"")));
    }

    #[test]
    fn rejects_what_is_not_bencode() {
        for (input, error) in [
            (b"".as_slice(), BencodeError::Cut),
            (b"i1", BencodeError::Cut),
            (b"ie", BencodeError::Number),
            (b"i-e", BencodeError::Number),
            (b"i-0e", BencodeError::Number),
            (b"i01e", BencodeError::Number),
            (b"i+1e", BencodeError::Number),
            (b"i9223372036854775808e", BencodeError::Number),
            (b"i111111111111111111111111111111e", BencodeError::Number),
            (b"5:spam", BencodeError::Cut),
            (b"05:spam", BencodeError::Number),
            (b"9999999999:", BencodeError::Number),
            (b"l", BencodeError::Cut),
            (b"d1:a", BencodeError::Cut),
            (b"di1e1:ae", BencodeError::Unexpected),
            (b"d1:ai1e1:ai2ee", BencodeError::DuplicateKey),
            (b"i1ei2e", BencodeError::Trailing),
            (b"x", BencodeError::Unexpected),
        ] {
            assert_eq!(parse(input), Err(error), "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(parse(&[b'l'; 100_000]), Err(BencodeError::TooComplex));
        let many = [b"l".as_slice(), &b"0:".repeat(1_000_001), b"e"].concat();
        assert_eq!(parse(&many), Err(BencodeError::TooComplex));
    }

    fn borrow(node: &Node) -> Value<'_> {
        match node {
            Node::Integer(number) => Value::Integer(*number),
            Node::Bytes(bytes) => Value::Bytes(bytes),
            Node::List(values) => Value::List(values.iter().map(borrow).collect()),
            Node::Dict(dict) => Value::Dict(
                dict.iter().map(|(key, value)| (key.as_slice(), borrow(value))).collect(),
            ),
        }
    }

    fn node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Node::Integer),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Node::bytes(&bytes)),
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Node::List),
                proptest::collection::btree_map(
                    proptest::collection::vec(any::<u8>(), 0..5),
                    inner,
                    0..5
                )
                .prop_map(Node::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn round_trips(node in node()) {
            let mut bytes = Zeroizing::new(b"before".to_vec());
            node.encode(&mut bytes);
            let written = bytes.strip_prefix(b"before").expect("kept");
            prop_assert_eq!(parse(written), Ok(borrow(&node)));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn never_panics_on_its_own_alphabet(text in "[ilde0-9:-]{0,80}") {
            let _ = parse(text.as_bytes());
        }
    }
}
