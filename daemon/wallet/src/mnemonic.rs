//! BIP39 phrases and seeds (`spec/wallet.md` 3, vectors `bip39_extension.json`).
//!
//! A wallet stores the entropy and the extension, never the seed. English words only, as in every
//! JoinMarket wallet.

use bip39::{Language, Mnemonic};
use secrecy::SecretString;
use zeroize::{Zeroize, Zeroizing};

/// Longest phrase text that is looked at, bytes: 24 words of 8 letters and generous white space.
const MAX_PHRASE_LEN: usize = 1024;

/// Bytes of entropy of a new wallet: 12 words.
pub const NEW_ENTROPY_LEN: usize = 16;

/// Why a phrase or its entropy is refused. Tells nothing about the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhraseError {
    /// More text than any phrase has.
    #[error("recovery phrase is longer than {MAX_PHRASE_LEN} bytes")]
    TooLong,
    /// Not 12, 15, 18, 21 or 24 words.
    #[error("recovery phrase has {0} words instead of 12, 15, 18, 21 or 24")]
    WordCount(usize),
    /// A word that is not in the English list.
    #[error("word {0} of the recovery phrase is not in the list of words")]
    UnknownWord(usize),
    /// Every word is known but they do not belong together.
    #[error("the checksum of the recovery phrase is wrong")]
    Checksum,
    /// Not 16, 20, 24, 28 or 32 bytes.
    #[error("entropy has {0} bytes instead of 16, 20, 24, 28 or 32")]
    EntropyLength(usize),
}

/// Reads a phrase: any case, any white space between the words; returns its entropy, 16 to 32 bytes.
///
/// # Errors
/// Wrong count, unknown word (counted from 1) or wrong checksum.
pub fn entropy_of_phrase(phrase: &str) -> Result<Zeroizing<Vec<u8>>, PhraseError> {
    if phrase.len() > MAX_PHRASE_LEN {
        return Err(PhraseError::TooLong);
    }
    let lower = Zeroizing::new(phrase.to_lowercase());
    let normal = Zeroizing::new(lower.split_whitespace().collect::<Vec<_>>().join(" "));
    let mnemonic =
        Mnemonic::parse_in_normalized(Language::English, &normal).map_err(|error| match error {
            bip39::Error::BadWordCount(count) => PhraseError::WordCount(count),
            bip39::Error::UnknownWord(index) => PhraseError::UnknownWord(index + 1),
            _ => PhraseError::Checksum,
        })?;
    Ok(Zeroizing::new(mnemonic.to_entropy()))
}

fn mnemonic(entropy: &[u8]) -> Result<Mnemonic, PhraseError> {
    Mnemonic::from_entropy_in(Language::English, entropy)
        .map_err(|_| PhraseError::EntropyLength(entropy.len()))
}

/// The words of an entropy, separated by single spaces.
///
/// # Errors
/// Entropy of a length that BIP39 does not know.
pub fn phrase_of_entropy(entropy: &[u8]) -> Result<SecretString, PhraseError> {
    let mnemonic = mnemonic(entropy)?;
    let mut text = String::with_capacity(MAX_PHRASE_LEN);
    for (position, word) in mnemonic.words().enumerate() {
        if position > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
    Ok(SecretString::from(text))
}

/// The BIP39 seed, 64 bytes.
///
/// The extension is normalised to NFKD, as BIP39 demands: without that a phrase restores to another
/// wallet depending on the keyboard it was typed on. Spaces at its ends count. `None` and the empty
/// text are the same.
///
/// # Errors
/// Entropy of a length that BIP39 does not know.
pub fn seed(entropy: &[u8], extension: Option<&str>) -> Result<Zeroizing<[u8; 64]>, PhraseError> {
    let mnemonic = mnemonic(entropy)?;
    let mut normal = std::borrow::Cow::Borrowed(extension.unwrap_or_default());
    Mnemonic::normalize_utf8_cow(&mut normal);
    let seed = Zeroizing::new(mnemonic.to_seed_normalized(&normal));
    if let std::borrow::Cow::Owned(mut text) = normal {
        text.zeroize();
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::NetworkKind;
    use bdk_wallet::bitcoin::bip32::{DerivationPath, Xpriv};
    use secrecy::ExposeSecret;
    use serde_json::Value;

    use super::*;
    use crate::keys::{ImportedKeys, MasterKey};
    use crate::path::ScriptPlace;
    use crate::types::{Branch, Keychain, Mixdepth, Network, WalletType};

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../tests/vectors/bip39_extension.json"))
            .expect("vector file is JSON")
    }

    #[test]
    fn bip39_nfkd_vectors() {
        let file = vectors();
        let cases = file["cases"].as_array().expect("list");
        assert_eq!(cases.len(), 8);
        let root: DerivationPath = "m/84'/0'".parse().expect("path");
        for (index, case) in cases.iter().enumerate() {
            let phrase = case["mnemonic"].as_str().expect("text");
            let extension = case["extension"].as_str();
            let entropy = entropy_of_phrase(phrase).expect("valid phrase");
            assert_eq!(Some(hex::encode(&*entropy).as_str()), case["entropy_hex"].as_str());
            let seed = seed(&entropy, extension).expect("valid entropy");
            assert_eq!(Some(hex::encode(*seed).as_str()), case["seed_hex"].as_str(), "{index}");
            // The file calls it the master key; it is the key at the wallet's root path.
            let master = Xpriv::new_master(NetworkKind::Main, &*seed)
                .and_then(|key| key.derive_priv(joinery_proto::secp(), &root))
                .expect("valid seed");
            assert_eq!(Some(master.to_string().as_str()), case["master_xprv"].as_str(), "{index}");
            assert_eq!(
                Some(phrase_of_entropy(&entropy).expect("valid entropy").expose_secret()),
                case["mnemonic_words_roundtrip"].as_str()
            );
            let keys = MasterKey::from_entropy(
                &entropy,
                extension,
                WalletType::NativeSegwit,
                Network::Mainnet,
                ImportedKeys::default(),
            )
            .expect("valid entropy");
            let place = ScriptPlace::Ranged {
                keychain: Keychain { mixdepth: Mixdepth(0), branch: Branch::External },
                index: 0,
            };
            let address = keys.address(&place).expect("ranged place");
            assert_eq!(
                Some(address.to_string().as_str()),
                case["first_address_m84"].as_str(),
                "{index}"
            );
        }
    }

    #[test]
    fn phrases_are_accepted_and_rejected_as_by_the_reference() {
        let file = vectors();
        let cases = file["mnemonic_parsing"].as_array().expect("list");
        assert_eq!(cases.len(), 7);
        for case in cases {
            let input = case["input"].as_str().expect("text");
            let found = entropy_of_phrase(input).ok().map(|entropy| hex::encode(&*entropy));
            assert_eq!(found.is_some(), case["accepted"].as_bool().expect("bool"), "{input}");
            assert_eq!(found.as_deref(), case["entropy_hex"].as_str(), "{input}");
        }
    }

    #[test]
    fn bad_phrases_say_what_is_wrong_without_the_words() {
        assert_eq!(entropy_of_phrase("").err(), Some(PhraseError::WordCount(0)));
        let eleven = "abandon ".repeat(11);
        assert_eq!(entropy_of_phrase(&eleven).err(), Some(PhraseError::WordCount(11)));
        let thirteen = "abandon ".repeat(13);
        assert_eq!(entropy_of_phrase(&thirteen).err(), Some(PhraseError::WordCount(13)));
        let twelve = "abandon ".repeat(12);
        assert_eq!(entropy_of_phrase(&twelve).err(), Some(PhraseError::Checksum));
        let unknown = format!("{}{}", "abandon ".repeat(11), "あいこくしん");
        assert_eq!(entropy_of_phrase(&unknown).err(), Some(PhraseError::UnknownWord(12)));
        assert_eq!(entropy_of_phrase(&"a ".repeat(4000)).err(), Some(PhraseError::TooLong));
        // The all-zero seed is a valid one: whether to warn is up to the user interface.
        let zero = format!("{}about", "abandon\u{a0}\t\n ".repeat(11));
        assert_eq!(entropy_of_phrase(&zero).expect("valid").as_slice(), [0; 16]);
        assert_eq!(phrase_of_entropy(&[0; 17]).err(), Some(PhraseError::EntropyLength(17)));
    }

    #[test]
    fn composed_and_decomposed_extensions_give_one_seed() {
        let entropy = [0; 16];
        let composed = seed(&entropy, Some("p\u{e4}ss\u{fb01}")).expect("valid");
        let decomposed = seed(&entropy, Some("pa\u{308}ssfi")).expect("valid");
        assert_eq!(*composed, *decomposed);
    }

    proptest::proptest! {
        #[test]
        fn phrases_round_trip(entropy in proptest::collection::vec(0_u8..=255, 4..=8)
            .prop_flat_map(|words| proptest::collection::vec(0_u8..=255, words.len() * 4))) {
            let phrase = phrase_of_entropy(&entropy).expect("4 to 8 words of entropy");
            let back = entropy_of_phrase(phrase.expose_secret()).expect("own phrase");
            proptest::prop_assert_eq!(&*back, &entropy);
        }

        #[test]
        fn parser_never_panics(text in ".{0,300}") {
            let _ = entropy_of_phrase(&text);
        }
    }
    use proptest::strategy::Strategy;
}
