//! The few things that a certificate says about itself and that people want to see: its names and its
//! validity.
//!
//! A reader of DER lengths and no more: what the certificate is *worth* is decided by whoever connects.
//! Every access is checked; a file that is not a certificate gives `None`.

use std::net::IpAddr;

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT version` and `[3] EXPLICIT extensions` of TBSCertificate (RFC 5280 4.1).
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `dNSName` and `iPAddress` of GeneralName (RFC 5280 4.2.1.6).
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17, subjectAltName.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Names and validity of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// First second of validity.
    pub(crate) not_before: OffsetDateTime,
    /// Last second of validity.
    pub(crate) not_after: OffsetDateTime,
    /// DNS names and addresses, in their order.
    pub(crate) names: Vec<String>,
}

impl Facts {
    /// Reads a DER certificate (RFC 5280).
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let certificate = Reader(der).expect(SEQUENCE)?;
        let mut tbs = Reader(Reader(certificate).expect(SEQUENCE)?);
        if tbs.peek() == Some(VERSION) {
            tbs.next()?;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            tbs.next()?;
        }
        let mut validity = Reader(tbs.expect(SEQUENCE)?);
        let not_before = instant(validity.next()?)?;
        let not_after = instant(validity.next()?)?;
        let mut names = Vec::new();
        while let Some((tag, content)) = tbs.next() {
            if tag == EXTENSIONS {
                names = alternative_names(Reader(content).expect(SEQUENCE)?)?;
            }
        }
        Some(Self { not_before, not_after, names })
    }
}

/// The DNS names and addresses among the extensions.
fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut extensions = Reader(extensions);
    while let Some((SEQUENCE, extension)) = extensions.next() {
        let mut extension = Reader(extension);
        if extension.expect(OBJECT_ID)? != SUBJECT_ALT_NAME {
            continue;
        }
        if extension.peek() == Some(BOOLEAN) {
            extension.next()?;
        }
        let mut list = Reader(Reader(extension.expect(OCTET_STRING)?).expect(SEQUENCE)?);
        while let Some((tag, content)) = list.next() {
            match tag {
                // Only printable text leaves here: it ends up on terminals.
                DNS_NAME if content.iter().all(u8::is_ascii_graphic) => {
                    names.push(String::from_utf8(content.to_vec()).ok()?);
                }
                IP_ADDRESS => names.extend(address(content).map(|address| address.to_string())),
                _ => {}
            }
        }
    }
    Some(names)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that RFC 5280 4.1.2.5 allows.
fn instant((tag, text): (u8, &[u8])) -> Option<OffsetDateTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        (GENERALIZED_TIME, 14) => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

/// Reads one tag, length and content after the other. Tags above 30 and indefinite lengths do not occur
/// in certificates and end the reading.
#[derive(Debug, Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // At most four length bytes: far more than a file that was read into memory.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes.iter().try_fold(0_usize, |length, byte| {
                    length.checked_mul(256)?.checked_add(usize::from(*byte))
                })?;
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};
    use time::macros::datetime;

    use super::*;

    fn certificate() -> Vec<u8> {
        let names = ["a.example", "127.0.0.1", "::1"].map(String::from).to_vec();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = datetime!(1999-12-31 23:59:58 UTC);
        params.not_after = datetime!(2060-02-29 01:02:03 UTC);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_names_and_both_forms_of_time() {
        assert_eq!(
            Facts::read(&certificate()).unwrap(),
            Facts {
                not_before: datetime!(1999-12-31 23:59:58 UTC),
                not_after: datetime!(2060-02-29 01:02:03 UTC),
                names: vec!["a.example".into(), "127.0.0.1".into(), "::1".into()],
            }
        );
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_harmless() {
        let der = certificate();
        for length in 0..der.len() {
            assert!(Facts::read(&der[..length]).is_none(), "cut at {length}");
        }
        for at in 0..der.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut broken = der.clone();
                broken[at] ^= mask;
                // Either is fine; it must return.
                let _ = Facts::read(&broken);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Facts::read(&bytes);
        }
    }
}
