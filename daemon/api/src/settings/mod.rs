//! The configuration that clients see through `configget` and `configset` (`spec/api.md` 6.22, 6.23, 10):
//! INI-like sections of text, laid over each other, and the typed policies made of them.
//!
//! From bottom to top: the reference's defaults, the fee limits drawn once for this installation, what the
//! daemon's own configuration says, overrides kept from earlier runs, overrides of this run.

mod defaults;
mod effect;
mod file;
mod roles;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use joinery_wallet::policy::WalletPolicy;
use joinery_wallet::types::Network;
use rand::Rng;

use crate::error::ApiError;
pub use effect::MakerFeeLimits;
pub(crate) use effect::tx_fees_of;
pub use file::SettingsFileError;
use file::Stored;
pub use roles::{RoleSettings, TxBroadcast};

/// Sections and their fields, as the daemon's own configuration hands them in.
pub type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Whether an override is kept over a restart: of every field that takes effect (`spec/api.md` 10, Appendix C 12).
/// Not `gaplimit`: an import that is cut short would leave a wide window for ever.
fn is_kept(section: &str, field: &str) -> bool {
    match section {
        "POLICY" => {
            field != "gaplimit"
                && (effect::takes_effect(section, field) || field.starts_with("max_cj_fee_"))
        }
        "TIMEOUT" | "YIELDGENERATOR" => effect::takes_effect(section, field),
        _ => false,
    }
}

/// Longest value, bytes.
const MAX_VALUE: usize = 4096;
/// Longest field name, bytes.
const MAX_FIELD: usize = 64;
/// Most fields a section may have, so that a client cannot fill the memory with new ones.
const MAX_FIELDS: usize = 256;
/// Fields that hold credentials in the reference and are never shown.
const SECRET: [&str; 2] = ["rpc_user", "rpc_password"];

#[derive(Debug)]
struct Inner {
    sections: Sections,
    stored: Stored,
}

/// All settings of the process.
#[derive(Debug)]
pub struct Settings {
    inner: Mutex<Inner>,
    policy: Arc<ArcSwap<WalletPolicy>>,
    path: Option<PathBuf>,
}

impl Settings {
    /// Settings that are forgotten with the process and have no drawn fee limits.
    #[must_use]
    pub fn volatile(network: Network, own: Sections) -> Self {
        Self::assemble(network, own, Stored::default(), None)
    }

    /// Settings kept in a file, which is made at first use together with the fee limits of this
    /// installation: random ones, so that takers cannot be told apart by a common default.
    ///
    /// # Errors
    /// When the file can be neither read nor written.
    pub fn load(network: Network, own: Sections, path: PathBuf) -> Result<Self, SettingsFileError> {
        let mut stored = file::load(&path)?;
        if stored.seeded.is_empty() {
            let mut rng = rand::rng();
            let absolute: u32 = rng.random_range(5000..=10_000);
            let relative = ["0.0001", "0.0002", "0.0003"][rng.random_range(0..3)];
            stored.seeded.insert("max_cj_fee_abs".to_owned(), absolute.to_string());
            stored.seeded.insert("max_cj_fee_rel".to_owned(), relative.to_owned());
            file::save(&path, &stored)?;
        }
        Ok(Self::assemble(network, own, stored, Some(path)))
    }

    fn assemble(network: Network, own: Sections, stored: Stored, path: Option<PathBuf>) -> Self {
        let mut sections: Sections = defaults::DEFAULTS
            .iter()
            .map(|(name, fields)| {
                let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
                ((*name).to_owned(), fields.collect())
            })
            .collect();
        let network = match network {
            Network::Mainnet => "mainnet",
            Network::Signet => "signet",
            // The reference knows one more name only; its regtest goes by it too.
            Network::Testnet | Network::Testnet4 | Network::Regtest => "testnet",
        };
        let mut lay = |section: &str, field: &str, value: &str| {
            let fields = sections.entry(section.to_owned()).or_default();
            fields.insert(field.to_ascii_lowercase(), value.to_owned());
        };
        lay("BLOCKCHAIN", "network", network);
        stored.seeded.iter().for_each(|(field, value)| lay("POLICY", field, value));
        for (section, fields) in own {
            fields.iter().for_each(|(field, value)| lay(&section, field, value));
        }
        stored.overrides.iter().for_each(|(field, value)| lay("POLICY", field, value));
        for (section, fields) in &stored.sections {
            fields.iter().for_each(|(field, value)| lay(section, field, value));
        }
        let policy = policy_of(&sections);
        Self {
            inner: Mutex::new(Inner { sections, stored }),
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            path,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the wallet reads its policy; swapped at each change.
    #[must_use]
    pub fn policy(&self) -> Arc<ArcSwap<WalletPolicy>> {
        Arc::clone(&self.policy)
    }

    /// What a taker may pay; `None` unless both limits are set.
    #[must_use]
    pub fn maker_fee_limits(&self) -> Option<MakerFeeLimits> {
        let inner = self.lock();
        effect::maker_fee_limits(|field| policy_field(&inner.sections, field))
    }

    /// What the roles obey, as it is now.
    #[must_use]
    pub fn roles(&self) -> RoleSettings {
        let inner = self.lock();
        RoleSettings::read(|section, field| {
            inner.sections.get(section)?.get(field).map(String::as_str)
        })
    }

    /// The text of a field, as written. Sections are case-sensitive, fields are not.
    ///
    /// # Errors
    /// 409 for unknown sections and fields, and for those that hold credentials.
    pub fn get(&self, section: &str, field: &str) -> Result<String, ApiError> {
        let field = field.to_ascii_lowercase();
        if SECRET.contains(&field.as_str()) {
            return Err(ApiError::ConfigNotPresent);
        }
        let inner = self.lock();
        let value = inner.sections.get(section).and_then(|fields| fields.get(&field));
        value.cloned().ok_or(ApiError::ConfigNotPresent)
    }

    /// Every field that [`Settings::get`] would give, by section.
    #[must_use]
    pub fn all(&self) -> Sections {
        let mut sections = self.lock().sections.clone();
        for fields in sections.values_mut() {
            fields.retain(|field, _| !SECRET.contains(&field.as_str()));
        }
        sections
    }

    /// Sets a field for the life of the process, and for good if it is one of those that are kept. Blocks
    /// until it is durable.
    ///
    /// # Errors
    /// 409 for unknown sections and for those that direct traffic, 400 for values that make no sense for a
    /// field that takes effect, 500 when the disk refuses; nothing is changed then.
    pub fn set(&self, section: &str, field: &str, value: &str) -> Result<(), ApiError> {
        let field = field.to_ascii_lowercase();
        let mut inner = self.lock();
        let known = inner.sections.get(section).ok_or(ApiError::ConfigNotPresent)?;
        // A stolen token must not be able to redirect traffic.
        if matches!(section, "BLOCKCHAIN" | "DAEMON") || section.starts_with("MESSAGING:") {
            return Err(ApiError::ConfigNotPresent);
        }
        let name_ok = !field.is_empty()
            && field.len() <= MAX_FIELD
            && field.bytes().all(|byte| byte.is_ascii_graphic());
        if !name_ok || (!known.contains_key(&field) && known.len() >= MAX_FIELDS) {
            return Err(ApiError::invalid("field"));
        }
        if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
            return Err(ApiError::invalid("value"));
        }
        if let Some(expected) = effect::objection(section, &field, value) {
            return Err(ApiError::invalid_because(
                "value",
                "bad_config_value",
                format!("{field} must be {expected}"),
            ));
        }
        if is_kept(section, &field) {
            let mut stored = inner.stored.clone();
            stored.set(section, field.clone(), value.to_owned());
            if let Some(path) = &self.path {
                file::save(path, &stored).map_err(|error| {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "settings cannot be stored"
                    );
                    ApiError::Internal("storage_failed")
                })?;
            }
            inner.stored = stored;
        }
        if let Some(fields) = inner.sections.get_mut(section) {
            fields.insert(field, value.to_owned());
        }
        self.policy.store(Arc::new(policy_of(&inner.sections)));
        Ok(())
    }
}

fn policy_field<'a>(sections: &'a Sections, field: &str) -> Option<&'a str> {
    sections.get("POLICY")?.get(field).map(String::as_str)
}

fn policy_of(sections: &Sections) -> WalletPolicy {
    effect::wallet_policy(|field| policy_field(sections, field))
}

#[cfg(test)]
mod tests {
    use joinery_wallet::policy::{MergeAlgorithm, TxFees};
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings::volatile(Network::Regtest, Sections::new())
    }

    fn status(outcome: Result<impl std::fmt::Debug, ApiError>) -> u16 {
        outcome.map_or_else(|error| error.parts().status.as_u16(), |_| 200)
    }

    #[test]
    fn defaults_give_the_default_policy() {
        assert_eq!(**settings().policy.load(), WalletPolicy::default());
        assert_eq!(settings().maker_fee_limits(), None);
    }

    #[test]
    fn sections_are_case_sensitive_and_fields_are_not() {
        let settings = settings();
        assert_eq!(settings.get("POLICY", "GapLimit").unwrap(), "6");
        assert_eq!(status(settings.get("policy", "gaplimit")), 409);
        assert_eq!(status(settings.get("POLICY", "nope")), 409);
        assert_eq!(status(settings.get("POLICY", "max_cj_fee_abs")), 409);
        assert_eq!(settings.get("BLOCKCHAIN", "network").unwrap(), "testnet");
        let mainnet = Settings::volatile(Network::Mainnet, Sections::new());
        assert_eq!(mainnet.get("BLOCKCHAIN", "network").unwrap(), "mainnet");
    }

    #[test]
    fn credentials_are_never_shown_and_traffic_is_never_redirected() {
        let own = Sections::from([(
            "BLOCKCHAIN".to_owned(),
            BTreeMap::from([("rpc_password".to_owned(), "hunter2".to_owned())]),
        )]);
        let settings = Settings::volatile(Network::Regtest, own);
        assert_eq!(status(settings.get("BLOCKCHAIN", "RPC_password")), 409);
        assert!(!format!("{:?}", settings.all()).contains("hunter2"));
        for section in ["BLOCKCHAIN", "DAEMON", "MESSAGING:onion", "MESSAGING:hackint", "NOPE"] {
            assert_eq!(status(settings.set(section, "host", "evil")), 409, "{section}");
        }
    }

    #[test]
    fn unknown_fields_of_known_sections_are_created_up_to_a_bound() {
        let settings = settings();
        settings.set("POLICY", "My_Field", "x%y").unwrap();
        assert_eq!(settings.get("POLICY", "my_field").unwrap(), "x%y");
        for number in 0..1000 {
            let _ = settings.set("LOGGING", &format!("f{number}"), "x");
        }
        assert_eq!(settings.lock().sections["LOGGING"].len(), MAX_FIELDS);
        settings.set("LOGGING", "color", "false").unwrap();
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let settings = settings();
        for (field, value) in [
            ("tx_fees", "0"),
            ("tx_fees", "-1"),
            ("tx_fees", "1.5"),
            ("tx_fees", "99999999999999999999"),
            ("tx_fees_factor", "1.1"),
            ("tx_fees_factor", "nan"),
            ("max_cj_fee_abs", "0"),
            ("max_cj_fee_rel", "0"),
            ("max_cj_fee_rel", "inf"),
            ("gaplimit", "0"),
            ("gaplimit", "10001"),
            ("merge_algorithm", "best"),
            ("anything", "line\nbreak"),
            ("anything", "\u{0}"),
            ("", "x"),
            ("[POLICY]\n", "x"),
        ] {
            assert_eq!(status(settings.set("POLICY", field, value)), 400, "{field}={value}");
        }
        assert_eq!(status(settings.set("POLICY", "anything", &"x".repeat(MAX_VALUE + 1))), 400);
        assert_eq!(**settings.policy.load(), WalletPolicy::default());
    }

    #[test]
    fn overrides_take_effect_at_once() {
        let settings = settings();
        for (field, value) in [
            ("tx_fees", "2000"),
            ("TX_FEES_FACTOR", "0"),
            ("gaplimit", "400"),
            ("merge_algorithm", "greediest"),
            ("max_cj_fee_abs", "12345"),
            ("max_cj_fee_rel", "3e-7"),
        ] {
            settings.set("POLICY", field, value).unwrap();
        }
        let policy = settings.policy.load();
        assert_eq!(policy.tx_fees, TxFees::SatPerKvb(2000));
        assert!(policy.tx_fees_factor.abs() < f64::EPSILON);
        assert_eq!(policy.gap_limit, 400);
        assert_eq!(policy.merge_algorithm, MergeAlgorithm::Greediest);
        let limits =
            MakerFeeLimits { absolute: 12345, relative: 3e-7, relative_text: "3e-7".to_owned() };
        assert_eq!(settings.maker_fee_limits(), Some(limits));
        // Written as given, and empty means unset.
        assert_eq!(settings.get("POLICY", "max_cj_fee_rel").unwrap(), "3e-7");
        settings.set("POLICY", "max_cj_fee_rel", "").unwrap();
        assert_eq!(settings.get("POLICY", "max_cj_fee_rel").unwrap(), "");
        assert_eq!(settings.maker_fee_limits(), None);
        settings.set("POLICY", "tx_fees", "1000").unwrap();
        assert_eq!(settings.policy.load().tx_fees, TxFees::Blocks(1000));
        settings.set("POLICY", "tx_fees", "1001").unwrap();
        assert_eq!(settings.policy.load().tx_fees, TxFees::SatPerKvb(1001));
    }

    #[test]
    fn fee_limits_are_drawn_once_and_overrides_of_the_safe_list_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/settings.json");
        let load = |own| Settings::load(Network::Regtest, own, path.clone()).unwrap();
        let first = load(Sections::new());
        let absolute = first.get("POLICY", "max_cj_fee_abs").unwrap();
        let relative = first.get("POLICY", "max_cj_fee_rel").unwrap();
        assert!((5000..=10_000).contains(&absolute.parse::<u32>().unwrap()));
        assert!(["0.0001", "0.0002", "0.0003"].contains(&relative.as_str()));
        first.set("POLICY", "tx_fees", "7").unwrap();
        first.set("POLICY", "gaplimit", "77").unwrap();
        drop(first);

        let second = load(Sections::new());
        assert_eq!(second.get("POLICY", "max_cj_fee_abs").unwrap(), absolute);
        assert_eq!(second.get("POLICY", "max_cj_fee_rel").unwrap(), relative);
        assert_eq!(second.get("POLICY", "tx_fees").unwrap(), "7");
        assert_eq!(second.policy.load().tx_fees, TxFees::Blocks(7));
        assert_eq!(second.get("POLICY", "gaplimit").unwrap(), "6");
        drop(second);

        // The daemon's own configuration beats what was drawn, and what a client set beats it.
        let own =
            [("max_cj_fee_abs", "1"), ("TX_fees", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let third = load(Sections::from([("POLICY".to_owned(), own.into())]));
        assert_eq!(third.get("POLICY", "max_cj_fee_abs").unwrap(), "1");
        assert_eq!(third.get("POLICY", "tx_fees").unwrap(), "7");
    }

    #[test]
    fn the_file_is_private_and_a_damaged_one_is_set_aside() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        let load = || Settings::load(Network::Regtest, Sections::new(), path.clone()).unwrap();
        drop(load());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "{ torn").unwrap();
        let settings = load();
        assert!(settings.get("POLICY", "max_cj_fee_abs").is_ok());
        assert_eq!(std::fs::read(path.with_extension("damaged")).unwrap(), b"{ torn");
    }

    #[test]
    fn a_disk_that_refuses_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        let settings = Settings::load(Network::Regtest, Sections::new(), path.clone()).unwrap();
        // A directory in the place of the temporary file: not even root can write it.
        std::fs::create_dir(path.with_extension("new")).unwrap();
        assert_eq!(status(settings.set("POLICY", "tx_fees", "9")), 500);
        assert_eq!(settings.get("POLICY", "tx_fees").unwrap(), "3");
    }

    proptest! {
        #[test]
        fn any_text_leaves_a_usable_policy(field in "[a-z_]{0,24}", value in ".{0,40}") {
            let settings = settings();
            let outcome = settings.set("POLICY", &field, &value);
            prop_assert!(status(outcome) != 500);
            let policy = settings.policy.load();
            prop_assert!(policy.gap_limit >= 1 && policy.tx_fees_factor.is_finite());
        }
    }
}
