//! The ways in which the fake server misbehaves.

use bdk_wallet::bitcoin::Txid;
use serde_json::Value;

/// A lie or a failure. Several may be active; the first that concerns a request wins.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Every `transaction.get` answers with a transaction other than the one asked for.
    WrongTransaction,
    /// Only this transaction is answered with another one.
    WrongTransactionFor(Txid),
    /// `transaction.get` answers with hexadecimal text that is no transaction.
    UnparsableTransaction,
    /// Headers at and above this height come from another branch, with valid proof of work, in
    /// `block.header`, `block.headers` and for the tip; histories and proofs stay those of the true branch.
    ForkedHeaders {
        /// Lowest height that differs.
        from: u32,
    },
    /// The tip's header links to nothing that was ever sent.
    UnlinkedTip,
    /// Headers at and above this height do not fulfil their own target.
    BadProofOfWork {
        /// Lowest height that differs.
        from: u32,
    },
    /// The server is this many blocks behind what it said before; histories stop there, too.
    LowerTip {
        /// Number of blocks at the top that it denies.
        by: u32,
    },
    /// Histories end after this many entries, and the status of a script agrees with that.
    ShrunkHistories {
        /// Entries that are left, oldest first.
        keep: usize,
    },
    /// Histories end after this many entries although the status says otherwise.
    HistoriesBelieStatus {
        /// Entries that are left, oldest first.
        keep: usize,
    },
    /// Histories name transactions that nobody can fetch, this many more than there are.
    InventedHistory {
        /// Entries that are added.
        extra: usize,
    },
    /// `estimatefee` answers with this number of BTC per 1000 bytes: -1 (no estimate), or something huge.
    EstimateFee(f64),
    /// `relayfee` answers with this number of BTC per 1000 bytes.
    RelayFee(f64),
    /// The answer to this method is a line that never ends; it is sent as fast as the client reads.
    EndlessLine {
        /// Method concerned; `None` for any.
        method: Option<&'static str>,
    },
    /// The answer to this method is one line of so many bytes (not JSON), streamed from no memory.
    HugeLine {
        /// Method concerned; `None` for any.
        method: Option<&'static str>,
        /// Length without the line feed, e.g. 1 << 30.
        bytes: u64,
    },
    /// After so many answers on a connection nothing is answered any more; the connection stays open.
    Silence {
        /// Requests that are still answered on each connection, counted from its start.
        after: u64,
    },
    /// This method is never answered; others are.
    SilenceOn(&'static str),
    /// The connection is closed when this method is asked.
    DisconnectOn(&'static str),
    /// The connection is closed after so many answers.
    DisconnectAfter {
        /// Requests that are still answered on each connection, counted from its start.
        answers: u64,
    },
    /// This method answers with an error.
    ErrorOn {
        /// Method concerned.
        method: &'static str,
        /// Electrum error code, e.g. 1 for a bad request.
        code: i64,
        /// Its text, e.g. `history too large`.
        message: String,
    },
    /// Proofs of inclusion have one bit wrong.
    WrongMerkleProof,
    /// Proofs of inclusion prove another position.
    WrongMerklePosition,
    /// Proofs of inclusion have this many steps (33 and more are more than a block can have).
    DeepMerkleProof(usize),
    /// Broadcasts are answered with a txid that is not the transaction's, and forgotten.
    BroadcastWrongTxid,
    /// Answers carry an id that nobody used.
    WrongId,
    /// Answers are not JSON.
    Garbage,
    /// Answers are JSON nested so deep.
    DeepJson(usize),
    /// Answers come twice.
    Echo,
}

impl Fault {
    /// `history too large`, as servers answer for scripts with more history than they care to send.
    #[must_use]
    pub fn history_too_large() -> Self {
        Self::ErrorOn {
            method: "blockchain.scripthash.get_history",
            code: 1,
            message: "history too large".into(),
        }
    }

    /// Proofs of inclusion are refused.
    #[must_use]
    pub fn merkle_error() -> Self {
        Self::ErrorOn {
            method: "blockchain.transaction.get_merkle",
            code: 1,
            message: "tx not found or is unconfirmed".into(),
        }
    }

    /// Broadcasts are refused with this text.
    #[must_use]
    pub fn broadcast_refused(message: &str) -> Self {
        Self::ErrorOn {
            method: "blockchain.transaction.broadcast",
            code: 2,
            message: message.into(),
        }
    }
}

/// What is done about one request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// The result of a successful call.
    Result(Value),
    /// An error answer.
    Error {
        /// Electrum error code.
        code: i64,
        /// Its text.
        message: String,
    },
    /// This line, whatever it is, without its line feed.
    Line(String),
    /// So many bytes without a line feed in between, and one at the end; `None` never ends.
    Stream(Option<u64>),
    /// Nothing.
    Silence,
    /// The connection is closed.
    Disconnect,
}

impl Reply {
    /// An error answer.
    pub(super) fn error(code: i64, message: impl Into<String>) -> Self {
        Self::Error { code, message: message.into() }
    }
}
