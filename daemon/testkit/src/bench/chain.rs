//! What can be done to a running chain, from the process that started it or from any other.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bdk_wallet::bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bdk_wallet::bitcoin::{
    Address, Amount, BlockHash, OutPoint, Script, ScriptBuf, Transaction, Txid,
};
use serde_json::{Value, json};

use super::funds::{Coin, Funds, funds_address};
use super::{Endpoints, launch};
use crate::electrum::Electrum;
use crate::rpc::Rpc;
use crate::wait::{PATIENCE, wait_for};

/// Blocks mined in one call, so that one call stays short.
const MINED_AT_ONCE: u64 = 500;

/// A running regtest chain: bitcoind by RPC, electrs by its protocol, and coins to give away.
#[derive(Debug)]
pub struct Chain {
    directory: PathBuf,
    endpoints: Endpoints,
    rpc: Rpc,
    electrum: SocketAddr,
    funds: Mutex<Funds>,
    /// Whether electrs is expected to follow; mining waits for it then.
    indexing: AtomicBool,
}

impl Chain {
    pub(super) fn new(
        directory: &Path,
        endpoints: Endpoints,
        rpc: SocketAddr,
        electrum: SocketAddr,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            endpoints,
            rpc: Rpc::new(rpc, launch::cookie_file(directory)),
            electrum,
            funds: Mutex::new(Funds::default()),
            indexing: AtomicBool::new(false),
        }
    }

    /// Attaches to a chain that another process keeps running in `directory`.
    ///
    /// # Errors
    /// When the endpoints are not loopback URLs or nobody answers there.
    pub fn attach(directory: &Path, endpoints: Endpoints) -> Result<Self> {
        let address = |url: &str, scheme: &str| -> Result<SocketAddr> {
            url.strip_prefix(scheme)
                .and_then(|address| address.parse().ok())
                .with_context(|| format!("{url:?} is not {scheme}ADDRESS:PORT"))
        };
        let chain = Self {
            directory: directory.to_owned(),
            rpc: Rpc::new(
                address(&endpoints.bitcoind_rpc, "http://")?,
                endpoints.cookie_file.clone(),
            ),
            electrum: address(&endpoints.electrum, "tcp://")?,
            endpoints,
            funds: Mutex::new(Funds::default()),
            indexing: AtomicBool::new(true),
        };
        chain.height()?;
        Ok(chain)
    }

    /// Where the chain can be reached.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Directory with the data and logs of both programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Calls bitcoind; see [`Rpc::call`].
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub fn rpc(&self, method: &str, params: &Value) -> Result<Value> {
        self.rpc.call(method, params)
    }

    /// Height of bitcoind's best block.
    ///
    /// # Errors
    /// When bitcoind does not answer.
    pub fn height(&self) -> Result<u64> {
        self.rpc("getblockcount", &json!([]))?.as_u64().context("height that is not a number")
    }

    /// Hash of bitcoind's best block.
    ///
    /// # Errors
    /// When bitcoind does not answer.
    pub fn tip(&self) -> Result<BlockHash> {
        block_hash(&self.rpc("getbestblockhash", &json!([]))?)
    }

    /// Mines `count` blocks with everything in the mempool that fits, paying `address` or the bench's own
    /// funds, and waits until electrs has indexed them (unless the bench has stopped or paused electrs).
    ///
    /// # Errors
    /// When bitcoind refuses or electrs does not follow.
    pub fn mine(&self, count: u64, address: Option<&Address>) -> Result<Vec<BlockHash>> {
        let own = funds_address();
        let address = address.unwrap_or(&own).to_string();
        let mut hashes = Vec::new();
        let mut left = count;
        while left > 0 {
            let now = left.min(MINED_AT_ONCE);
            let mined = self.rpc("generatetoaddress", &json!([now, address]))?;
            for hash in mined.as_array().context("mining answers with a list")? {
                hashes.push(block_hash(hash)?);
            }
            left -= now;
        }
        self.await_tip()?;
        Ok(hashes)
    }

    /// Mines `count` blocks that leave the mempool where it is, and waits for electrs.
    ///
    /// # Errors
    /// As [`Self::mine`].
    pub fn mine_empty(&self, count: u64) -> Result<Vec<BlockHash>> {
        let own = funds_address().to_string();
        let mut hashes = Vec::new();
        for _ in 0..count {
            let block = self.rpc("generateblock", &json!([own, []]))?;
            hashes.push(block_hash(block.get("hash").context("a block has a hash")?)?);
        }
        self.await_tip()?;
        Ok(hashes)
    }

    /// Pays `amount` to `address`; the transaction is in the mempool on return, and with electrs a fraction
    /// of a second later.
    ///
    /// # Errors
    /// When the bench has too few mature coins left or bitcoind rejects the payment (below the dust limit).
    pub fn fund(&self, address: &Address, amount: Amount) -> Result<Txid> {
        let outpoints = self.fund_many(&[(address.script_pubkey(), amount)])?;
        Ok(outpoints.first().context("one output was asked for")?.txid)
    }

    /// Pays many scripts with few transactions (2 500 outputs each) and returns the outputs in the same order.
    ///
    /// # Errors
    /// As [`Self::fund`]. Transactions before the failing one are in the mempool then.
    pub fn fund_many(&self, outputs: &[(ScriptBuf, Amount)]) -> Result<Vec<OutPoint>> {
        let mut funds = self.funds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Two processes would choose the same coins.
        let lock_path = self.directory.join("funds.lock");
        let mut lock = fd_lock::RwLock::new(File::create(&lock_path)?);
        let _guard = lock.write()?;
        funds.pay(self, outputs)
    }

    /// Pays, mines one block and waits for electrs.
    ///
    /// # Errors
    /// As [`Self::fund`] and [`Self::mine`].
    pub fn fund_confirmed(&self, address: &Address, amount: Amount) -> Result<Txid> {
        let txid = self.fund(address, amount)?;
        self.mine(1, None)?;
        Ok(txid)
    }

    /// Hands a signed transaction to bitcoind's mempool.
    ///
    /// # Errors
    /// With bitcoind's reason when it is rejected.
    pub fn submit(&self, transaction: &Transaction) -> Result<Txid> {
        let answer = self.rpc("sendrawtransaction", &json!([serialize_hex(transaction)]))?;
        Ok(answer.as_str().context("sending answers with a txid")?.parse()?)
    }

    /// Fetches a transaction of the mempool, or of the block named.
    ///
    /// # Errors
    /// When bitcoind does not know it there.
    pub fn transaction(&self, txid: Txid, block: Option<BlockHash>) -> Result<Transaction> {
        let answer = self.rpc("getrawtransaction", &json!([txid, false, block]))?;
        Ok(deserialize_hex(answer.as_str().context("a transaction is sent as text")?)?)
    }

    /// Ids of the transactions in bitcoind's mempool.
    ///
    /// # Errors
    /// When bitcoind does not answer.
    pub fn mempool(&self) -> Result<Vec<Txid>> {
        let answer = self.rpc("getrawmempool", &json!([]))?;
        let list = answer.as_array().context("the mempool is a list")?;
        list.iter().map(|txid| Ok(txid.as_str().context("a txid is text")?.parse()?)).collect()
    }

    /// The confirmed unspent coins of a script, straight from bitcoind's coin database: the truth that a
    /// wallet is compared with.
    ///
    /// # Errors
    /// When bitcoind does not answer.
    pub fn coins_of(&self, script: &Script) -> Result<Vec<Coin>> {
        let _scans_exclude_each_other =
            self.funds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        super::funds::scan(self, script)
    }

    /// Makes bitcoind forget the last `depth` blocks and returns their hashes, lowest first. Their
    /// transactions are back in the mempool. electrs notices nothing before a longer chain exists: mine
    /// `depth + 1` blocks afterwards, or use [`Self::reorg`].
    ///
    /// # Errors
    /// When the chain is not that long.
    pub fn invalidate(&self, depth: u64) -> Result<Vec<BlockHash>> {
        let tip = self.height()?;
        if depth == 0 || depth > tip {
            bail!("cannot take {depth} blocks off a chain of height {tip}");
        }
        let hashes = (tip - depth + 1..=tip)
            .map(|height| block_hash(&self.rpc("getblockhash", &json!([height]))?))
            .collect::<Result<Vec<BlockHash>>>()?;
        let lowest = hashes.first().context("depth is at least one")?;
        self.rpc("invalidateblock", &json!([lowest]))?;
        Ok(hashes)
    }

    /// Replaces the last `depth` blocks by `depth + 1` empty ones, so that their transactions are unconfirmed
    /// again; waits for electrs and returns the hashes of the new blocks.
    ///
    /// # Errors
    /// As [`Self::invalidate`] and [`Self::mine_empty`].
    pub fn reorg(&self, depth: u64) -> Result<Vec<BlockHash>> {
        self.invalidate(depth)?;
        self.mine_empty(depth + 1)
    }

    /// Waits until electrs reports `txid` in the history of `script`.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`].
    pub fn await_transaction(&self, script: &Script, txid: Txid) -> Result<()> {
        let wanted = txid.to_string();
        let mut electrum = Electrum::connect(self.electrum, PATIENCE)?;
        wait_for(PATIENCE, || {
            let known = electrum.history(script).map(|history| {
                history.iter().any(|entry| {
                    entry.get("tx_hash").and_then(Value::as_str) == Some(wanted.as_str())
                })
            });
            match known {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            }
        })
        .with_context(|| format!("electrs never heard of {txid}"))?
    }

    /// A new connection to electrs, for asking it what a test wants to know.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn electrum(&self) -> Result<Electrum> {
        Electrum::connect(self.electrum, PATIENCE)
    }

    /// Waits until electrs is at bitcoind's tip; at once when the bench has stopped or paused it.
    fn await_tip(&self) -> Result<()> {
        if self.indexing.load(Ordering::SeqCst) { self.await_index(|| Ok(())) } else { Ok(()) }
    }

    /// Waits until electrs is at bitcoind's tip; `healthy` may end the wait early.
    pub(super) fn await_index(&self, mut healthy: impl FnMut() -> Result<()>) -> Result<()> {
        let target = self.tip()?;
        let mut connection: Option<Electrum> = None;
        wait_for(PATIENCE, || {
            if let Err(error) = healthy() {
                return Some(Err(error));
            }
            // A server that is starting refuses or drops connections: look again.
            let mut alive = match connection.take() {
                Some(alive) => alive,
                None => Electrum::connect(self.electrum, Duration::from_secs(5)).ok()?,
            };
            let (_, header) = alive.tip().ok()?;
            // While it compacts its index after the first sync it knows headers and refuses the rest.
            let ready = alive.call("server.ping", &json!([])).is_ok();
            connection = Some(alive);
            (ready && header.block_hash() == target).then_some(Ok(()))
        })
        .with_context(|| format!("electrs did not reach block {target}"))?
    }

    pub(super) fn set_indexing(&self, follows: bool) {
        self.indexing.store(follows, Ordering::SeqCst);
    }
}

fn block_hash(value: &Value) -> Result<BlockHash> {
    Ok(value.as_str().context("a block hash is text")?.parse()?)
}
