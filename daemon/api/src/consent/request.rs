//! What is shown to the person at the box.

use std::net::IpAddr;

use joinery_wallet::bitcoin::{Address, Amount};
use joinery_wallet::types::Mixdepth;
use tokio::time::Instant;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To open a wallet, or to log in to the open one. The password was right.
    Unlock {
        /// File name of the wallet.
        wallet: String,
    },
    /// To open a wallet without its password, for the maker that ran when the power was cut.
    Resume {
        /// File name of the wallet.
        wallet: String,
    },
    /// To pay.
    Send(Box<Payment>),
}

impl Asked {
    /// The word of the board link.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unlock { .. } => "unlock",
            Self::Resume { .. } => "resume",
            Self::Send(_) => "send",
        }
    }

    /// File name of the wallet that it is about.
    #[must_use]
    pub fn wallet(&self) -> &str {
        match self {
            Self::Unlock { wallet } | Self::Resume { wallet } => wallet,
            Self::Send(payment) => &payment.wallet,
        }
    }
}

/// A payment or a coinjoin. What is made after the press is bound to all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// File name of the wallet.
    pub wallet: String,
    /// The account that pays.
    pub mixdepth: Mixdepth,
    /// What is paid; of a sweep all that the coins hold, the fee included.
    pub amount: Amount,
    /// All of the account, or all of the coins that were named.
    pub sweep: bool,
    /// Who is paid.
    pub destination: Address,
    /// The destination belongs to the wallet.
    pub own: bool,
    /// What it costs at most, makers' fees included.
    pub fee_max: Amount,
    /// Makers of a coinjoin.
    pub makers: Option<u8>,
}

/// The request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// Never used twice.
    pub id: String,
    /// What somebody wants.
    pub asked: Asked,
    /// Address of the client.
    pub from: Option<IpAddr>,
    /// Until when it can be approved; `None`: it waits for as long as it takes.
    pub deadline: Option<Instant>,
}

impl PendingRequest {
    /// Whether its time is not over.
    pub(super) fn is_in_time(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now < deadline)
    }
}
