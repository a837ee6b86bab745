//! What can be seen: values that say everything about a picture. The model ([`crate::ui`]) makes them,
//! [`crate::render`] draws them, tests compare them.

use crate::link::{
    Amount, Destination, Direction, Fee, Fingerprint, Maker, Network, Payment, Percent, RequestId,
    Sats, Text, Tor, Warning,
};

/// A picture: a screen and what lies over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The screen.
    pub screen: Screen,
    /// The worst warning and how many there are; drawn where the screen has room for it.
    pub warning: Option<(Notice, usize)>,
    /// How bright the panel is.
    pub light: Light,
}

/// How bright the panel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Light {
    /// As bright as it can be read from afar.
    Full,
    /// Less, after a minute without anyone.
    Dim,
    /// Dark, after ten minutes without anyone.
    Off,
}

/// Something that is wrong: what the daemon says, or what the board itself finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Of the daemon.
    Daemon(Warning),
    /// The button is down for no reason.
    ButtonStuck,
    /// The last line of the daemon could not be understood.
    Nonsense,
}

/// The screens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Screen {
    /// The box comes up.
    Starting {
        /// What it is doing.
        step: Text<64>,
        /// Version of the daemon.
        version: Option<Text<32>>,
    },
    /// The daemon says nothing, or nothing that this board understands.
    Silent {
        /// Why.
        silence: Silence,
    },
    /// No wallet is open.
    Locked {
        /// Name of the wallet that would be opened.
        wallet: Option<Text<255>>,
        /// How to get at it.
        access: Access,
        /// The chain, if it is not mainnet.
        network: Option<Network>,
    },
    /// What a browser or phone scans.
    Pairing {
        /// How to get at the wallet.
        access: Access,
        /// No wallet is open.
        locked: bool,
    },
    /// The certificate's fingerprint in full.
    Fingerprint {
        /// SHA-256.
        fingerprint: Fingerprint,
    },
    /// Someone wants to open the wallet.
    Unlock {
        /// Which request.
        id: RequestId,
        /// Name of the wallet.
        wallet: Text<255>,
        /// Who asks.
        from: Option<Text<64>>,
        /// Only for the maker, without a password.
        resume: bool,
        /// Seconds left.
        left_s: Option<u32>,
    },
    /// Someone wants to pay: one page of it.
    Send {
        /// Which request.
        id: RequestId,
        /// What is paid.
        payment: Payment,
        /// This page, from 0.
        page: usize,
        /// How many there are.
        pages: usize,
        /// Every other page was shown: holding the button on this one approves.
        ready: bool,
        /// Seconds left.
        left_s: Option<u32>,
        /// How long the button has been held, in tenths of a second.
        held: Option<u16>,
    },
    /// A request that this version cannot show.
    UnknownRequest {
        /// Which request.
        id: RequestId,
        /// The daemon's words for it.
        text: Option<Text<255>>,
    },
    /// The wallet is open and nothing runs.
    Idle {
        /// What is the same on each home screen.
        home: Home,
    },
    /// The maker runs.
    Maker {
        /// What is the same on each home screen.
        home: Home,
        /// What it does.
        maker: Option<Maker>,
    },
    /// A coinjoin as taker runs.
    Taker {
        /// What is the same on each home screen.
        home: Home,
        /// One word for the step.
        phase: Option<Text<16>>,
        /// Makers asked and answered, seconds left and in all.
        round: Option<Progress>,
    },
    /// The wallet has seen a transaction.
    Transaction {
        /// What it does.
        direction: Direction,
        /// Confirmations.
        confirmations: u32,
        /// Only when the owner wants amounts on the panel.
        amount: Option<Sats>,
    },
    /// One of the warnings, in full.
    Warning {
        /// Which.
        notice: Notice,
        /// Its number, from 0.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The button is held, and nothing waits for that.
    Hold {
        /// How long, in tenths of a second.
        held: u16,
        /// The daemon cannot hear it.
        deaf: bool,
    },
    /// What became of the last press.
    Outcome {
        /// What.
        outcome: Outcome,
    },
    /// The machine is being switched off.
    SwitchingOff,
}

/// What every home screen shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Name of the wallet.
    pub wallet: Option<Text<255>>,
    /// The chain, if it is not mainnet.
    pub network: Option<Network>,
    /// Height of the best block.
    pub height: Option<u32>,
    /// Not caught up with the chain yet.
    pub syncing: Option<Percent>,
    /// The server answers; `None` is not known, or none is configured.
    pub server: Option<bool>,
    /// Tor.
    pub tor: Option<Tor>,
    /// Directories of the market.
    pub directories: Option<u16>,
    /// Only when the owner wants it.
    pub balance: Option<Sats>,
}

/// How to get at the wallet from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Name on the local network.
    pub hostname: Option<Text<64>>,
    /// Address of the browser wallet.
    pub url: Option<Text<255>>,
    /// The phone app's URI.
    pub pairing: Option<Text<1024>>,
    /// SHA-256 of the certificate.
    pub fingerprint: Option<Fingerprint>,
}

/// A round as taker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Makers asked.
    pub asked: u16,
    /// Makers that answered.
    pub answered: u16,
    /// Seconds left.
    pub left_s: u32,
    /// Seconds in all.
    pub of_s: u32,
}

/// Why there is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// No daemon listens.
    NoDaemon,
    /// It is connected and has said nothing for this long, in seconds (rounded down to what is worth a new picture).
    Quiet {
        /// Seconds.
        seconds: u64,
    },
    /// It speaks another version of the link.
    OtherVersion {
        /// Which.
        found: u32,
    },
    /// Nothing that it says can be understood.
    Nonsense,
}

/// What became of a press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Approved, and told to the daemon.
    Approved,
    /// Refused, and told to the daemon.
    Refused,
    /// It took too long.
    TooLate,
    /// The request is gone or another one has come: the press meant neither.
    Gone,
    /// Lock was told to the daemon.
    Locking,
    /// It is locked.
    Locked,
    /// The daemon did not hear the hold or did not do what it meant.
    NotLocked,
    /// Switching off was told to the daemon.
    SwitchingOff,
    /// The daemon did not hear the hold or did not do what it meant.
    StillOn,
}

impl Screen {
    /// A word for logs, file names and tests.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Silent { .. } => "silent",
            Self::Locked { .. } => "locked",
            Self::Pairing { .. } => "pairing",
            Self::Fingerprint { .. } => "fingerprint",
            Self::Unlock { .. } => "unlock",
            Self::Send { .. } => "send",
            Self::UnknownRequest { .. } => "unknown-request",
            Self::Idle { .. } => "idle",
            Self::Maker { .. } => "maker",
            Self::Taker { .. } => "taker",
            Self::Transaction { .. } => "transaction",
            Self::Warning { .. } => "warning",
            Self::Hold { .. } => "hold",
            Self::Outcome { .. } => "outcome",
            Self::SwitchingOff => "switching-off",
        }
    }

    /// The request that this screen asks about.
    #[must_use]
    pub const fn request(&self) -> Option<&RequestId> {
        match self {
            Self::Unlock { id, .. } | Self::Send { id, .. } | Self::UnknownRequest { id, .. } => {
                Some(id)
            }
            _ => None,
        }
    }
}

impl Notice {
    /// How bad it is; the worst comes first.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::ButtonStuck => 0,
            Self::Daemon(Warning::Undervoltage) => 1,
            Self::Daemon(Warning::Hot(_)) => 2,
            Self::Daemon(Warning::Disk(_)) => 3,
            Self::Daemon(Warning::Clock) => 4,
            Self::Daemon(Warning::NoServer) => 5,
            Self::Daemon(Warning::Tor) => 6,
            Self::Nonsense => 7,
            Self::Daemon(Warning::PublicServer) => 8,
            Self::Daemon(Warning::ForeignServer) => 9,
            Self::Daemon(Warning::Other(_)) => 10,
        }
    }

    /// The box cannot do its work until this is mended: the light says so too.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.rank() <= 6
    }

    /// At most 21 letters, except for a newer daemon's own words: what is wrong, on one line.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::ButtonStuck => "button is stuck".into(),
            Self::Nonsense => "update the box".into(),
            Self::Daemon(warning) => match warning {
                Warning::NoServer => "no server: cable?".into(),
                Warning::Clock => "clock is wrong".into(),
                Warning::Disk(percent) => format!("disk {} % full", percent.get()),
                Warning::Hot(celsius) => format!("hot: {celsius} C"),
                Warning::Undervoltage => "weak power supply".into(),
                Warning::Tor => "Tor is down".into(),
                Warning::PublicServer => "public server: unsafe".into(),
                Warning::ForeignServer => "foreign server".into(),
                Warning::Other(text) => text.as_str().to_owned(),
            },
        }
    }

    /// At most 29 letters, except for a newer daemon's own words: what is wrong and perhaps what to do, on one line of
    /// the large panel.
    #[must_use]
    pub fn banner(&self) -> String {
        match self {
            Self::ButtonStuck => "the button is stuck".into(),
            Self::Daemon(Warning::NoServer) => "no server: check cable".into(),
            Self::Daemon(Warning::Clock) => "clock wrong: waiting for time".into(),
            Self::Daemon(Warning::PublicServer) => "public server sees your coins".into(),
            Self::Daemon(Warning::ForeignServer) => "foreign server sees coins".into(),
            _ => self.line(),
        }
    }

    /// At most 10 letters, for the narrow column beside a QR code.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::ButtonStuck => "button".into(),
            Self::Nonsense => "update".into(),
            Self::Daemon(warning) => match warning {
                Warning::NoServer => "no server".into(),
                Warning::Clock => "clock".into(),
                Warning::Disk(percent) => format!("disk {} %", percent.get()),
                Warning::Hot(celsius) => format!("hot {celsius} C"),
                Warning::Undervoltage => "weak power".into(),
                Warning::Tor => "Tor down".into(),
                Warning::PublicServer | Warning::ForeignServer => "privacy".into(),
                Warning::Other(_) => "warning".into(),
            },
        }
    }

    /// What is wrong and what to do, in two short sentences.
    #[must_use]
    pub fn advice(&self) -> (String, String) {
        let (what, remedy): (String, &str) = match self {
            Self::ButtonStuck => ("The button is stuck.".into(), "Let it go, or check its wires."),
            Self::Nonsense => {
                ("Daemon and board do not understand each other.".into(), "Update the box.")
            }
            Self::Daemon(warning) => match warning {
                Warning::NoServer => ("No Electrum server.".into(), "Check cable and server."),
                Warning::Clock => {
                    ("The clock is wrong.".into(), "Waiting for time from the network.")
                }
                Warning::Disk(percent) => (
                    format!("The disk is {} % full.", percent.get()),
                    "Delete old wallets or use a larger card.",
                ),
                Warning::Hot(celsius) => (format!("The box is hot: {celsius} C."), "Give it air."),
                Warning::Undervoltage => {
                    ("The power supply is weak.".into(), "Use a better one, or data may be lost.")
                }
                Warning::Tor => ("Tor is down.".into(), "No coinjoin until it is back."),
                Warning::PublicServer => {
                    ("A public server sees your coins and address.".into(), "Use your own server.")
                }
                Warning::ForeignServer => {
                    ("A foreign server sees your coins.".into(), "Use your own server.")
                }
                Warning::Other(text) => (text.as_str().to_owned(), "See the browser wallet."),
            },
        };
        (what, remedy.into())
    }
}

/// Groups of four that the small panel shows on one page of an address.
pub const SMALL_GROUPS: usize = 16;

/// How many pages a payment has on a panel: the amount and the address apart on the small one, all on one on the large.
#[must_use]
pub fn send_pages(panel: crate::Panel, destination: &Destination) -> usize {
    match panel {
        crate::Panel::Small => 1 + destination.as_str().len().div_ceil(4 * SMALL_GROUPS),
        crate::Panel::Large => 1,
    }
}

impl Payment {
    /// The amount, and the words above it.
    #[must_use]
    pub fn amount_text(&self) -> String {
        match self.amount {
            Amount::Exact(sats) | Amount::Sweep(Some(sats)) => crate::text::amount(sats),
            Amount::Sweep(None) => "everything".into(),
        }
    }

    /// What it costs.
    #[must_use]
    pub fn fee_text(&self) -> String {
        match self.fee {
            Fee::Exact(sats) => format!("fee {}", crate::text::amount(sats)),
            Fee::AtMost(sats) => format!("max fee {}", crate::text::amount(sats)),
        }
    }
}

impl Network {
    /// Its name, empty for mainnet.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Mainnet => "",
            Self::Signet => "signet",
            Self::Testnet4 => "testnet4",
            Self::Regtest => "regtest",
        }
    }
}
