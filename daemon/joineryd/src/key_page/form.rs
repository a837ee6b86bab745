//! The form that carries the password: `application/x-www-form-urlencoded`, decoded into memory that is wiped.
//!
//! Buffers of TLS and HTTP below are not ours to wipe. They are kept out of swap space, and end with the process, which
//! is gone when the volume is open.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use http_body::Body as _;
use zeroize::Zeroizing;

/// Largest body, bytes: two passwords of which each byte is written as three.
const MAX_BODY: usize = 4096;
/// Shortest password, characters. Whoever has the card can try as long as they like.
pub(super) const SHORTEST: usize = 12;
/// Longest password, bytes.
pub(super) const LONGEST: usize = 512;

/// Why a form is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormError {
    /// It is no form, or breaks off.
    NoForm,
    /// The body is larger than any honest one.
    TooLarge,
    /// What was typed is not UTF-8.
    NotText,
    /// Nothing was typed.
    Empty,
    /// A new password is too short.
    TooShort,
    /// It is too long.
    TooLong,
    /// A new password was not typed twice the same.
    NotTheSame,
}

/// What was typed.
pub(super) struct Form {
    password: Zeroizing<Vec<u8>>,
    again: Zeroizing<Vec<u8>>,
}

impl Form {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`FormError`].
    pub(super) async fn read(request: Request) -> Result<Self, FormError> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        if !kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(FormError::NoForm);
        }
        Self::parse(&collect(request.into_body()).await?)
    }

    fn parse(body: &[u8]) -> Result<Self, FormError> {
        let mut form = Self { password: Zeroizing::default(), again: Zeroizing::default() };
        for field in body.split(|byte| *byte == b'&') {
            let mut halves = field.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next());
            let place = match name {
                b"password" => &mut form.password,
                b"again" => &mut form.again,
                _ => continue,
            };
            *place = decode(value.unwrap_or_default()).ok_or(FormError::NoForm)?;
        }
        Ok(form)
    }

    /// The password, if it is one: typed twice and long enough when it is a new one.
    ///
    /// # Errors
    /// [`FormError`].
    pub(super) fn password(self, new: bool) -> Result<Zeroizing<Vec<u8>>, FormError> {
        let text = std::str::from_utf8(&self.password).map_err(|_| FormError::NotText)?;
        if text.is_empty() {
            return Err(FormError::Empty);
        }
        if text.len() > LONGEST {
            return Err(FormError::TooLong);
        }
        if new && text.chars().count() < SHORTEST {
            return Err(FormError::TooShort);
        }
        if new && *self.password != *self.again {
            return Err(FormError::NotTheSame);
        }
        Ok(self.password)
    }
}

async fn collect(mut body: Body) -> Result<Zeroizing<Vec<u8>>, FormError> {
    // As large as it gets: one that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| FormError::NoForm)?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(FormError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// A value of a form: `+` is a blank, `%` leads two hexadecimal digits.
fn decode(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => *byte,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(body: &[u8], new: bool) -> Result<Vec<u8>, FormError> {
        Form::parse(body)?.password(new).map(|password| password.to_vec())
    }

    #[test]
    fn takes_a_password_as_browsers_write_it() {
        for (body, expected) in [
            (&b"password=correct+horse+battery"[..], &b"correct horse battery"[..]),
            (b"password=a%26b%3Dc%2B%25&submit=", b"a&b=c+%"),
            (b"again=x&password=p%C3%A4ss", "päss".as_bytes()),
            (b"password=a=b", b"a=b"),
            (b"password=%20", b" "),
        ] {
            assert_eq!(password(body, false).unwrap(), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_password() {
        let long = [&b"password="[..], &vec![b'a'; LONGEST + 1]].concat();
        for (body, expected) in [
            (&b""[..], FormError::Empty),
            (b"again=correct+horse", FormError::Empty),
            (b"password=", FormError::Empty),
            (b"password=%", FormError::NoForm),
            (b"password=%4", FormError::NoForm),
            (b"password=%zz", FormError::NoForm),
            (b"password=%+4", FormError::NoForm),
            (b"password=%ff%fe", FormError::NotText),
            (b"password=\xff", FormError::NotText),
            (&long, FormError::TooLong),
        ] {
            assert_eq!(password(body, false).unwrap_err(), expected, "{body:?}");
        }
    }

    #[test]
    fn a_new_one_is_long_enough_and_typed_twice() {
        let short = b"password=elevenchars&again=elevenchars";
        assert_eq!(password(short, true).unwrap_err(), FormError::TooShort);
        assert!(password(short, false).is_ok());
        // Twelve bytes, eleven characters.
        let umlaut = "password=elevencharä&again=elevencharä";
        assert_eq!(password(umlaut.as_bytes(), true).unwrap_err(), FormError::TooShort);
        let other = b"password=twelve+chars&again=twelve+charz";
        assert_eq!(password(other, true).unwrap_err(), FormError::NotTheSame);
        assert_eq!(password(b"password=twelve+chars", true).unwrap_err(), FormError::NotTheSame);
        let good = b"password=twelve+chars&again=twelve%20chars";
        assert_eq!(password(good, true).unwrap(), b"twelve chars");
    }
}
