//! The one secp256k1 context of the process.

use std::sync::OnceLock;

use bdk_wallet::bitcoin::secp256k1::{All, Secp256k1};

/// Returns the context that every crate uses for signing, verification and key derivation.
///
/// A context costs about a millisecond and its tables to make, so there is one per process. The library
/// blinds it with randomness of its own when it is created, which protects secret keys against timing
/// and power analysis; results do not depend on that.
pub fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}
