//! The daemon's TLS certificate: made at first boot, then kept (`spec/api.md` 1.2).
//!
//! Phone apps pin the certificate itself. It is therefore never replaced because addresses changed or its end
//! comes near: `joineryd certificate renew` does that when somebody asks for it, and keeps the key.
//!
//! Files that a packager or an earlier reference daemon left in `ssl/` are used as they are, RSA included.

mod names;
mod x509;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::config::Http;
use crate::datadir::private_directory;
use crate::durable;

pub(crate) use names::dns_names;
pub(crate) use x509::Facts;

/// Start of validity: long past, so that a board that wakes up in an earlier year than it is makes a
/// certificate that is valid today.
const NOT_BEFORE: OffsetDateTime = datetime!(2020-01-01 00:00 UTC);
/// End of validity of certificates made in the next decades.
const NOT_AFTER: OffsetDateTime = datetime!(2060-01-01 00:00 UTC);
/// More than ten years are promised; whoever makes a certificate late in the period above gets these.
const LEAST_VALIDITY: Duration = Duration::days(15 * 365);
/// How long before its end people are warned.
pub(crate) const WARNING: Duration = Duration::days(30);
/// Largest certificate or key file that is read, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// One file of the pair is there and the other is not.
    #[error(
        "{present} is there and {missing} is not: put both back, or remove the one to get a new pair"
    )]
    HalfPair {
        /// The one that is there.
        present: PathBuf,
        /// The other.
        missing: PathBuf,
    },
    /// Not a certificate or not a private key.
    #[error("{path} does not hold {expected} in PEM form")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Both are fine but do not belong together, or TLS cannot use them.
    #[error("{key} and {certificate} cannot be used together: {error}")]
    Mismatch {
        /// Key file.
        key: PathBuf,
        /// Certificate file.
        certificate: PathBuf,
        /// What TLS says.
        #[source]
        error: rustls::Error,
    },
    /// The key is of a kind that we cannot make a certificate with.
    #[error(
        "{path} holds a key that new certificates cannot be made with; PKCS#8 form (BEGIN PRIVATE KEY) is needed"
    )]
    KeyKind {
        /// The key file.
        path: PathBuf,
    },
    /// Making one failed.
    #[error("the certificate cannot be made: {0}")]
    Making(#[source] rcgen::Error),
}

/// A certificate with its key, checked to belong together.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// The chain as read; the first one is the daemon's own.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// What the first one says of itself.
    pub(crate) facts: Facts,
    /// Its file.
    pub(crate) path: PathBuf,
    /// Whether it was made just now.
    pub(crate) fresh: bool,
}

impl Certificate {
    /// Loads the pair of the directory, or makes it when there is none.
    ///
    /// # Errors
    /// [`CertificateError`]. Nothing that is there is ever replaced.
    pub(crate) fn load_or_make(directory: &Path, http: &Http) -> Result<Self, CertificateError> {
        let (key, certificate) = (key_path(directory), certificate_path(directory));
        match (exists(&key)?, exists(&certificate)?) {
            (true, true) => Self::load(directory),
            // The key is written first: a power cut between the two files of first boot leaves it alone, and
            // nobody can have seen a certificate of it.
            (true, false) => {
                renew(directory, http)?;
                Ok(Self { fresh: true, ..Self::load(directory)? })
            }
            (false, true) => Err(CertificateError::HalfPair { present: certificate, missing: key }),
            (false, false) => {
                private_directory(directory).map_err(at(directory))?;
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                    .map_err(CertificateError::Making)?;
                durable::write(&key, pair.serialize_pem().as_bytes()).map_err(at(&key))?;
                write_certificate(&certificate, &pair, http)?;
                Ok(Self { fresh: true, ..Self::load(directory)? })
            }
        }
    }

    /// Loads the pair of the directory.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub(crate) fn load(directory: &Path) -> Result<Self, CertificateError> {
        let (key_path, path) = (key_path(directory), certificate_path(directory));
        let chain = CertificateDer::pem_slice_iter(&read(&path)?)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty());
        let unreadable =
            || CertificateError::Unreadable { path: path.clone(), expected: "a certificate" };
        let chain = chain.ok_or_else(unreadable)?;
        let facts = chain.first().and_then(|own| Facts::read(own)).ok_or_else(unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(|_| {
            CertificateError::Unreadable { path: key_path.clone(), expected: "a private key" }
        })?;
        let pair = Self { chain, key, facts, path, fresh: false };
        pair.server_config().map_err(|error| CertificateError::Mismatch {
            key: key_path,
            certificate: pair.path.clone(),
            error,
        })?;
        Ok(pair)
    }

    /// TLS settings for the listeners: TLS 1.2 and 1.3, HTTP/1.1, ring.
    ///
    /// # Errors
    /// When key and certificate do not belong together or are of no use for TLS.
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, rustls::Error> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The certificate itself.
    pub(crate) fn der(&self) -> Option<&[u8]> {
        self.chain.first().map(|own| own.as_ref())
    }

    /// SHA-256 of the certificate: 32 pairs of upper-case hexadecimal digits with colons, as browsers show it.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.chain.first().map_or(&[][..], |own| own));
        let mut text = String::with_capacity(95);
        for (index, byte) in digest.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{colon}{byte:02X}");
        }
        text
    }

    /// Time left, if it is so little that people must be told (negative when it is over).
    pub(crate) fn ends_soon(&self, now: OffsetDateTime) -> Option<Duration> {
        Some(self.facts.not_after - now).filter(|left| *left <= WARNING)
    }
}

/// Makes a new certificate with the key that is there, for the present names and addresses.
///
/// # Errors
/// [`CertificateError`]; the old certificate is in place then.
pub(crate) fn renew(directory: &Path, http: &Http) -> Result<(), CertificateError> {
    let path = key_path(directory);
    let der = PrivateKeyDer::from_pem_slice(&read(&path)?).map_err(|_| {
        CertificateError::Unreadable { path: path.clone(), expected: "a private key" }
    })?;
    let key = KeyPair::try_from(&der).map_err(|_| CertificateError::KeyKind { path })?;
    write_certificate(&certificate_path(directory), &key, http)
}

fn write_certificate(path: &Path, key: &KeyPair, http: &Http) -> Result<(), CertificateError> {
    let certificate = make(key, names::of_this_machine(http), OffsetDateTime::now_utc())
        .map_err(CertificateError::Making)?;
    durable::write(path, certificate.pem().as_bytes()).map_err(at(path))
}

/// A self-signed server certificate.
fn make(
    key: &KeyPair,
    names: Vec<String>,
    now: OffsetDateTime,
) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "joineryd");
    params.distinguished_name = subject;
    params.not_before = NOT_BEFORE;
    params.not_after = NOT_AFTER.max(now.saturating_add(LEAST_VALIDITY));
    // Firefox refuses a certificate authority in the place of a server.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.self_signed(key)
}

fn key_path(directory: &Path) -> PathBuf {
    directory.join("key.pem")
}

fn certificate_path(directory: &Path) -> PathBuf {
    directory.join("cert.pem")
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CertificateError {
    move |error| CertificateError::Io { path: path.to_owned(), error }
}

fn exists(path: &Path) -> Result<bool, CertificateError> {
    // Not `Path::exists`: a pair that cannot be looked at must not be taken for one that is not there.
    path.try_exists().map_err(at(path))
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let length = path.metadata().map_err(at(path))?.len();
    if length > MAX_FILE {
        return Err(at(path)(io::Error::other("the file is too large")));
    }
    std::fs::read(path).map_err(at(path))
}

#[cfg(test)]
mod tests;
