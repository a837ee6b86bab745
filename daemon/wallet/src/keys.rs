//! Private keys of an opened wallet, and the scripts they own (`spec/wallet.md` 2 and 9.2, vectors
//! `wallet_derivation.json` and `timelocked_addresses.json`).
//!
//! The master key stays in one place in memory and is erased when the wallet is closed; everything else
//! is derived when it is needed.

use std::collections::BTreeMap;
use std::fmt;

use bdk_wallet::bitcoin::bip32::{ChainCode, ChildNumber, Fingerprint, Xpriv, Xpub};
use bdk_wallet::bitcoin::hashes::{Hash, sha256d};
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::{Address, CompressedPublicKey, NetworkKind, ScriptBuf};
use joinery_proto::fidelity_bond::{self, TimeNumber, TimeNumberError};
use joinery_proto::secp;
use zeroize::Zeroizing;

use crate::mnemonic::{self, PhraseError};
use crate::path::ScriptPlace;
use crate::types::{Mixdepth, Network, WalletType};

/// Branch of the timelocked scripts in mixdepth 0 of `sw-fb` wallets.
pub const BOND_BRANCH: u32 = 2;
/// Branch of the burn outputs in mixdepth 0 of `sw-fb` wallets; only displayed.
pub const BURN_BRANCH: u32 = 3;

/// Why a key cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The entropy is not that of a phrase.
    #[error(transparent)]
    Phrase(#[from] PhraseError),
    /// An index with the hardened bit set.
    #[error("index {0} is not below 2^31")]
    IndexOutOfRange(u32),
    /// The wallet has no timelocked branch.
    #[error("the wallet is not of the type sw-fb and has no timelocked addresses")]
    NoBonds,
    /// Not a month from 2020-01 to 2099-12.
    #[error(transparent)]
    TimeNumber(#[from] TimeNumberError),
    /// No such imported key, or it was removed.
    #[error("there is no imported key {index} in mixdepth {mixdepth}")]
    NoImportedKey {
        /// Mixdepth of the path.
        mixdepth: Mixdepth,
        /// Index of the path.
        index: u32,
    },
    /// An imported key of a script type that cannot be spent here.
    #[error("imported key of type {0} is not supported")]
    UnsupportedKeyType(u8),
    /// Not a number between 1 and the group order.
    #[error("not a valid secret key")]
    InvalidSecretKey,
}

/// A private key that was imported into a wallet file.
#[derive(Clone)]
pub struct ImportedKey {
    secret: Zeroizing<[u8; 32]>,
    /// Type id of its script (`spec/wallet.md` 1); ids other than 1 and 2 are kept but not used.
    key_type: u8,
}

impl ImportedKey {
    /// Checks the number.
    ///
    /// # Errors
    /// [`KeyError::InvalidSecretKey`].
    pub fn new(secret: &[u8; 32], key_type: u8) -> Result<Self, KeyError> {
        let mut key = SecretKey::from_slice(secret).map_err(|_| KeyError::InvalidSecretKey)?;
        key.non_secure_erase();
        Ok(Self { secret: Zeroizing::new(*secret), key_type })
    }

    /// The 32-byte secret, big-endian.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Type id of its script.
    #[must_use]
    pub const fn key_type(&self) -> u8 {
        self.key_type
    }

    const fn kind(&self) -> Result<SignerKind, KeyError> {
        match self.key_type {
            1 => Ok(SignerKind::P2shP2wpkh),
            2 => Ok(SignerKind::P2wpkh),
            other => Err(KeyError::UnsupportedKeyType(other)),
        }
    }
}

/// Imported keys by mixdepth; the position in the list is part of the path, so removed keys leave a gap.
#[derive(Clone, Default)]
pub struct ImportedKeys(BTreeMap<u8, Vec<Option<ImportedKey>>>);

impl ImportedKeys {
    /// Appends a key, or the gap of a removed one.
    pub fn push(&mut self, mixdepth: Mixdepth, key: Option<ImportedKey>) {
        self.0.entry(mixdepth.0).or_default().push(key);
    }

    /// Whether no list has any entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lists, ascending by mixdepth.
    pub fn iter(&self) -> impl Iterator<Item = (Mixdepth, &[Option<ImportedKey>])> {
        self.0.iter().map(|(mixdepth, keys)| (Mixdepth(*mixdepth), keys.as_slice()))
    }

    /// The places of all keys whose script type can be spent.
    pub fn places(&self) -> impl Iterator<Item = ScriptPlace> + '_ {
        self.iter().flat_map(|(mixdepth, keys)| {
            (0_u32..).zip(keys).filter_map(move |(index, key)| {
                key.as_ref()?.kind().ok()?;
                Some(ScriptPlace::Imported { mixdepth, index })
            })
        })
    }

    fn get(&self, mixdepth: Mixdepth, index: u32) -> Result<&ImportedKey, KeyError> {
        self.0
            .get(&mixdepth.0)
            .and_then(|keys| keys.get(usize::try_from(index).ok()?)?.as_ref())
            .ok_or(KeyError::NoImportedKey { mixdepth, index })
    }
}

impl fmt::Debug for ImportedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportedKey").field("key_type", &self.key_type).finish_non_exhaustive()
    }
}

impl fmt::Debug for ImportedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(mixdepth, keys)| (mixdepth, keys.len()))).finish()
    }
}

/// How a script is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignerKind {
    /// Witness of signature and public key.
    P2wpkh,
    /// As [`Self::P2wpkh`], and a scriptSig that pushes the 22-byte program.
    P2shP2wpkh,
    /// Witness of signature and witness script; the transaction's lock time must have passed it.
    Bond {
        /// Seconds since epoch.
        locktime: u32,
    },
}

/// Everything that is needed to spend one script. The secret is erased on drop.
pub struct Signer {
    secret: SecretKey,
    public: CompressedPublicKey,
    script_pubkey: ScriptBuf,
    witness_script: Option<ScriptBuf>,
    kind: SignerKind,
}

impl Signer {
    fn new(secret: SecretKey, kind: SignerKind) -> Self {
        let public = CompressedPublicKey(secret.public_key(secp()));
        let (script_pubkey, witness_script) = script_of(&public, kind);
        Self { secret, public, script_pubkey, witness_script, kind }
    }

    /// The secret key.
    #[must_use]
    pub const fn secret_key(&self) -> &SecretKey {
        &self.secret
    }

    /// The public key, 33 bytes when serialised.
    #[must_use]
    pub const fn public_key(&self) -> CompressedPublicKey {
        self.public
    }

    /// The script that this key owns.
    #[must_use]
    pub const fn script_pubkey(&self) -> &ScriptBuf {
        &self.script_pubkey
    }

    /// The witness script, for bonds.
    #[must_use]
    pub const fn witness_script(&self) -> Option<&ScriptBuf> {
        self.witness_script.as_ref()
    }

    /// How it is spent.
    #[must_use]
    pub const fn kind(&self) -> SignerKind {
        self.kind
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn script_of(public: &CompressedPublicKey, kind: SignerKind) -> (ScriptBuf, Option<ScriptBuf>) {
    match kind {
        SignerKind::P2wpkh => (ScriptBuf::new_p2wpkh(&public.wpubkey_hash()), None),
        SignerKind::P2shP2wpkh => (ScriptBuf::new_p2wpkh(&public.wpubkey_hash()).to_p2sh(), None),
        SignerKind::Bond { locktime } => {
            let script = fidelity_bond::witness_script(locktime, &public.0);
            (script.to_p2wsh(), Some(script))
        }
    }
}

/// An extended private key that is erased on drop.
struct Erasing(Xpriv);

impl Drop for Erasing {
    fn drop(&mut self) {
        self.0.private_key.non_secure_erase();
        self.0.chain_code = ChainCode::from([0; 32]);
    }
}

/// The keys of an opened wallet. Erased on drop, never shown.
pub struct MasterKey {
    /// Boxed so that moving the struct leaves no copies behind.
    master: Box<Erasing>,
    fingerprint: Fingerprint,
    wallet_type: WalletType,
    network: Network,
    imported: ImportedKeys,
    /// Public key of the timelocked branch: one step per script instead of six.
    bond_branch: Option<Xpub>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("fingerprint", &self.fingerprint)
            .field("wallet_type", &self.wallet_type)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

const fn hardened(index: u32) -> ChildNumber {
    ChildNumber::Hardened { index }
}

const fn normal(index: u32) -> ChildNumber {
    ChildNumber::Normal { index }
}

impl MasterKey {
    /// Derives the master key from BIP39 entropy (16 to 32 bytes) and extension.
    ///
    /// # Errors
    /// The entropy has a length that BIP39 does not know.
    pub fn from_entropy(
        entropy: &[u8],
        extension: Option<&str>,
        wallet_type: WalletType,
        network: Network,
        imported: ImportedKeys,
    ) -> Result<Self, KeyError> {
        let seed = mnemonic::seed(entropy, extension)?;
        let kind = if network == Network::Mainnet { NetworkKind::Main } else { NetworkKind::Test };
        let master = Xpriv::new_master(kind, &*seed).map_err(|_| KeyError::InvalidSecretKey)?;
        let mut keys = Self {
            fingerprint: master.fingerprint(secp()),
            master: Box::new(Erasing(master)),
            wallet_type,
            network,
            imported,
            bond_branch: None,
        };
        if wallet_type == WalletType::FidelityBond {
            keys.bond_branch = Some(keys.branch_xpub(Mixdepth(0), BOND_BRANCH));
        }
        Ok(keys)
    }

    /// First four bytes of HASH160 of the master public key: names the wallet.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The kind of wallet.
    #[must_use]
    pub const fn wallet_type(&self) -> WalletType {
        self.wallet_type
    }

    /// The chain.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// Imported keys.
    #[must_use]
    pub const fn imported(&self) -> &ImportedKeys {
        &self.imported
    }

    fn derive(&self, levels: &[ChildNumber]) -> Erasing {
        let mut key = Erasing(self.master.0);
        for level in levels {
            // Each step makes its own copy; the previous one is erased when it is replaced.
            let child = key
                .0
                .derive_priv(secp(), &[*level])
                .expect("a child key is out of range with probability below 2^-127");
            key = Erasing(child);
        }
        key
    }

    fn account_levels(&self, mixdepth: Mixdepth) -> [ChildNumber; 3] {
        [
            hardened(self.wallet_type.purpose()),
            hardened(self.network.coin_type()),
            hardened(mixdepth.0.into()),
        ]
    }

    /// The key at `m/PURPOSE'/COIN'/MIXDEPTH'`; its text starts with `xpub` or `tpub`.
    #[must_use]
    pub fn account_xpub(&self, mixdepth: Mixdepth) -> Xpub {
        Xpub::from_priv(secp(), &self.derive(&self.account_levels(mixdepth)).0)
    }

    /// The key at `m/PURPOSE'/COIN'/MIXDEPTH'/BRANCH`; branch 0 to 3.
    #[must_use]
    pub fn branch_xpub(&self, mixdepth: Mixdepth, branch: u32) -> Xpub {
        let [purpose, coin, account] = self.account_levels(mixdepth);
        Xpub::from_priv(secp(), &self.derive(&[purpose, coin, account, normal(branch)]).0)
    }

    /// The account key as wallets display it: with `fbonds-mpk-` in front in mixdepth 0 of `sw-fb`.
    #[must_use]
    pub fn account_xpub_text(&self, mixdepth: Mixdepth) -> String {
        let xpub = self.account_xpub(mixdepth);
        if self.wallet_type == WalletType::FidelityBond && mixdepth == Mixdepth(0) {
            format!("fbonds-mpk-{xpub}")
        } else {
            xpub.to_string()
        }
    }

    /// The id that the reference wallet gives this seed: first 3 bytes of a double SHA256
    /// (`spec/wallet.md` 2). It names the address cache in `.jmdat` files.
    #[must_use]
    pub fn reference_wallet_id(&self) -> [u8; 3] {
        let [purpose, coin, account] = self.account_levels(Mixdepth(0));
        let branch = self.derive(&[purpose, coin, account, normal(0)]);
        let hash = if self.wallet_type == WalletType::FidelityBond {
            sha256d::Hash::hash(&branch.0.private_key.public_key(secp()).serialize())
        } else {
            sha256d::Hash::hash(Zeroizing::new(branch.0.to_string()).as_bytes())
        };
        let [a, b, c, ..] = hash.to_byte_array();
        [a, b, c]
    }

    fn bond(&self, timenumber: u16) -> Result<(Xpub, TimeNumber), KeyError> {
        let branch = self.bond_branch.ok_or(KeyError::NoBonds)?;
        Ok((branch, TimeNumber::new(timenumber)?))
    }

    const fn ranged_kind(&self) -> SignerKind {
        match self.wallet_type {
            WalletType::NestedSegwit => SignerKind::P2shP2wpkh,
            WalletType::NativeSegwit | WalletType::FidelityBond => SignerKind::P2wpkh,
        }
    }

    /// Derives the key of a place.
    ///
    /// # Errors
    /// The wallet has no such place.
    pub fn signer(&self, place: &ScriptPlace) -> Result<Signer, KeyError> {
        match place {
            ScriptPlace::Ranged { keychain, index } => {
                if *index >> 31 != 0 {
                    return Err(KeyError::IndexOutOfRange(*index));
                }
                let [purpose, coin, account] = self.account_levels(keychain.mixdepth);
                let branch = normal(keychain.branch.number());
                let key = self.derive(&[purpose, coin, account, branch, normal(*index)]);
                Ok(Signer::new(key.0.private_key, self.ranged_kind()))
            }
            ScriptPlace::Bond { timenumber } => {
                let (_, month) = self.bond(*timenumber)?;
                let [purpose, coin, account] = self.account_levels(Mixdepth(0));
                let levels =
                    [purpose, coin, account, normal(BOND_BRANCH), normal(month.number().into())];
                let key = self.derive(&levels);
                Ok(Signer::new(key.0.private_key, SignerKind::Bond { locktime: month.locktime() }))
            }
            ScriptPlace::Imported { mixdepth, index } => {
                let key = self.imported.get(*mixdepth, *index)?;
                let kind = key.kind()?;
                let secret =
                    SecretKey::from_slice(key.secret()).map_err(|_| KeyError::InvalidSecretKey)?;
                Ok(Signer::new(secret, kind))
            }
        }
    }

    /// The script of a place.
    ///
    /// # Errors
    /// The wallet has no such place.
    pub fn script_pubkey(&self, place: &ScriptPlace) -> Result<ScriptBuf, KeyError> {
        if let ScriptPlace::Bond { timenumber } = place {
            let (branch, month) = self.bond(*timenumber)?;
            let key = branch
                .derive_pub(secp(), &[normal(month.number().into())])
                .expect("a child key is out of range with probability below 2^-127");
            return Ok(fidelity_bond::script_pubkey(month.locktime(), &key.public_key));
        }
        Ok(self.signer(place)?.script_pubkey.clone())
    }

    /// The address of a place.
    ///
    /// # Errors
    /// The wallet has no such place.
    pub fn address(&self, place: &ScriptPlace) -> Result<Address, KeyError> {
        let script = self.script_pubkey(place)?;
        Ok(Address::from_script(&script, self.network.bitcoin())
            .expect("P2WPKH, P2SH and P2WSH scripts have addresses"))
    }
}
