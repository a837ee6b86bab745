//! What the settings say to taker and maker (`spec/api.md` 10.1, 10.2: the fields marked "E"; `spec/roles.md` 9).

use std::time::Duration;

use joinery_proto::conversation::maker::CommitmentPolicy;

use super::effect::{number, objection};
use crate::number::int_text;

/// Who sends a finished coinjoin to the network (`tx_broadcast`, `spec/roles.md` 3.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxBroadcast {
    /// Our own server.
    Own,
    /// A random one of the makers and us.
    #[default]
    RandomPeer,
    /// Several makers at once.
    MultiplePeers,
    /// A random maker, never us.
    NotSelf,
}

impl TxBroadcast {
    /// Reads the value of the setting.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "self" => Some(Self::Own),
            "random-peer" => Some(Self::RandomPeer),
            "multiple-peers" => Some(Self::MultiplePeers),
            "not-self" => Some(Self::NotSelf),
            _ => None,
        }
    }
}

/// Settings of the roles, each valid.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleSettings {
    /// `minimum_makers`.
    pub minimum_makers: u8,
    /// `max_sweep_fee_change`, fraction.
    pub max_sweep_fee_change: f64,
    /// `taker_utxo_retries`, `taker_utxo_age` (confirmations) and `taker_utxo_amtpercent`: what we show as taker and ask
    /// for as maker.
    pub commitment: CommitmentPolicy,
    /// `tx_broadcast`.
    pub tx_broadcast: TxBroadcast,
    /// `bondless_makers_allowance`, 0 to 1.
    pub bondless_makers_allowance: f64,
    /// `accept_commitment_broadcasts`.
    pub accept_commitment_broadcasts: bool,
    /// `interest_rate`, a year.
    pub interest_rate: f64,
    /// `bond_value_exponent`.
    pub bond_value_exponent: f64,
    /// `maker_timeout_sec`.
    pub maker_timeout: Duration,
    /// `unconfirm_timeout_sec`.
    pub unconfirm_timeout: Duration,
    /// `confirm_timeout_hours`: after it an unconfirmed transaction is worth a notice.
    pub confirm_timeout: Duration,
}

impl RoleSettings {
    /// Reads them; what is empty or unusable is taken as its default.
    pub(super) fn read<'a>(get: impl Fn(&str, &str) -> Option<&'a str>) -> Self {
        let usable = |section: &str, field: &str| {
            get(section, field)
                .filter(|value| !value.is_empty() && objection(section, field, value).is_none())
        };
        let integer = |section: &str, field: &str| usable(section, field).and_then(int_text);
        let policy = |field: &str| integer("POLICY", field);
        let float = |field: &str| usable("POLICY", field).and_then(number);
        let seconds = |field: &str, default: u64| {
            let value = integer("TIMEOUT", field).and_then(|value| u64::try_from(value).ok());
            Duration::from_secs(value.unwrap_or(default))
        };
        let default = CommitmentPolicy::default();
        let hours = usable("TIMEOUT", "confirm_timeout_hours").and_then(number).unwrap_or(6.0);
        Self {
            minimum_makers: policy("minimum_makers")
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(4),
            max_sweep_fee_change: float("max_sweep_fee_change").unwrap_or(0.8),
            commitment: CommitmentPolicy {
                retries: policy("taker_utxo_retries")
                    .and_then(|n| u8::try_from(n).ok())
                    .unwrap_or(default.retries),
                age: policy("taker_utxo_age")
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(default.age),
                amount_percent: policy("taker_utxo_amtpercent")
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(default.amount_percent),
            },
            tx_broadcast: usable("POLICY", "tx_broadcast")
                .and_then(TxBroadcast::parse)
                .unwrap_or_default(),
            bondless_makers_allowance: float("bondless_makers_allowance").unwrap_or(0.125),
            accept_commitment_broadcasts: policy("accept_commitment_broadcasts") != Some(0),
            interest_rate: float("interest_rate").unwrap_or(0.015),
            bond_value_exponent: float("bond_value_exponent").unwrap_or(1.3),
            maker_timeout: seconds("maker_timeout_sec", 60),
            unconfirm_timeout: seconds("unconfirm_timeout_sec", 180),
            // At most a year: the rule for the field.
            confirm_timeout: Duration::from_secs_f64(hours * 3600.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use joinery_wallet::types::Network;

    use super::*;
    use crate::settings::{Sections, Settings};

    #[test]
    fn settings_of_the_roles_take_effect_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        let load = || Settings::load(Network::Regtest, Sections::new(), path.clone()).unwrap();
        let defaults = load().roles();
        assert_eq!(defaults.minimum_makers, 4);
        assert_eq!(defaults.commitment, CommitmentPolicy::default());
        assert_eq!(defaults.tx_broadcast, TxBroadcast::RandomPeer);
        assert_eq!(defaults.confirm_timeout, Duration::from_secs(6 * 3600));
        let settings = load();
        for (section, field, value) in [
            ("POLICY", "minimum_makers", "2"),
            ("POLICY", "taker_utxo_age", "1"),
            ("POLICY", "tx_broadcast", "not-self"),
            ("POLICY", "accept_commitment_broadcasts", "0"),
            ("POLICY", "bondless_makers_allowance", "0.5"),
            ("TIMEOUT", "maker_timeout_sec", "7"),
            ("TIMEOUT", "unconfirm_timeout_sec", "9"),
            ("YIELDGENERATOR", "cjfee_factor", "0.3"),
        ] {
            settings.set(section, field, value).unwrap();
        }
        for settings in [settings, load()] {
            let roles = settings.roles();
            assert_eq!((roles.minimum_makers, roles.commitment.age), (2, 1));
            assert_eq!(roles.tx_broadcast, TxBroadcast::NotSelf);
            assert!(!roles.accept_commitment_broadcasts);
            assert!((roles.bondless_makers_allowance - 0.5).abs() < f64::EPSILON);
            assert_eq!(roles.maker_timeout, Duration::from_secs(7));
            assert_eq!(roles.unconfirm_timeout, Duration::from_secs(9));
            assert_eq!(settings.get("YIELDGENERATOR", "cjfee_factor").unwrap(), "0.3");
        }
        assert!(load().set("TIMEOUT", "maker_timeout_sec", "0").is_err());
        assert!(load().set("YIELDGENERATOR", "ordertype", "x").is_err());
    }
}
