//! What is known of one wallet's watch: its scripts, their statuses, its transactions and its view of the
//! chain. Survives reconnects; nothing in here does I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bdk_wallet::bitcoin::{BlockHash, ScriptBuf, Txid};
use bdk_wallet::chain::{BlockId, CheckPoint};
use joinery_wallet::chain::{
    ChainTip, StatusHash, WatchCommand, WatchEvent, WatchStart, WatchedScript,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::exponential;
use super::error::LinkError;
use super::script::ScriptHash;

/// Answers that contradict each other are asked for again so often; a server that changes its mind in between
/// does that once or twice.
const CONTRADICTIONS_MAX: u32 = 5;
const CONTRADICTION_PAUSE: Duration = Duration::from_millis(200);
/// Pauses after a script was refused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(2);
const REFUSAL_PAUSE_MAX: Duration = Duration::from_secs(600);
/// After so many refusals a script no longer holds up that the rest is caught up.
const REFUSALS_AWAITED: u32 = 3;

/// One script.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) script: ScriptBuf,
    pub(crate) hash: ScriptHash,
    /// Status that the wallet has applied.
    pub(crate) stored: Option<StatusHash>,
    /// Status that the server named last.
    pub(crate) announced: Option<StatusHash>,
    /// To be asked for its history whatever its status.
    pub(crate) forced: bool,
    /// Its history is known since the start or the last rescan.
    answered: bool,
    contradictions: u32,
    refusals: u32,
}

/// Why a script's news could not be finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server refused with this text.
    Refused(String),
    /// Two answers contradict each other. That happens when a block arrives in between, and when a server lies.
    Contradiction(&'static str),
}

/// A watch.
#[derive(Debug)]
pub(crate) struct Session {
    serial: u64,
    /// Serial number of the engine's present session.
    current: watch::Receiver<u64>,
    pub(crate) commands: mpsc::UnboundedReceiver<WatchCommand>,
    pub(crate) events: mpsc::Sender<WatchEvent>,
    /// The wallet's local chain once it has applied everything sent.
    pub(crate) chain: CheckPoint,
    /// Transactions that the wallet has, and the block in which each was proven to be.
    pub(crate) known: HashMap<Txid, Option<BlockId>>,
    pub(crate) scripts: Vec<Watched>,
    by_hash: HashMap<ScriptHash, usize>,
    /// Scripts to subscribe.
    pub(crate) unsubscribed: BTreeSet<usize>,
    /// Scripts whose history must be asked for.
    pub(crate) dirty: BTreeSet<usize>,
    /// Scripts that wait until they are tried again.
    delayed: BTreeMap<usize, Instant>,
    /// Transactions whose block was replaced, with its height.
    pub(crate) unproven: BTreeMap<Txid, u32>,
    /// Whether `chain` was compared with the server's since the last reorganisation or reconnect.
    pub(crate) agreed: bool,
    /// Tip that the wallet was told last.
    pub(crate) told_tip: Option<ChainTip>,
    pub(crate) told_disconnected: bool,
    generation: u64,
    told_generation: Option<u64>,
    answered: usize,
    told_progress: Option<(usize, usize)>,
}

impl Session {
    /// `current` holds the serial number of this session until another one takes its place.
    pub(crate) fn new(
        current: watch::Receiver<u64>,
        start: WatchStart,
        commands: mpsc::UnboundedReceiver<WatchCommand>,
        events: mpsc::Sender<WatchEvent>,
    ) -> Self {
        let serial = *current.borrow();
        let mut session = Self {
            serial,
            current,
            commands,
            events,
            chain: start.checkpoint,
            known: start.known,
            scripts: Vec::new(),
            by_hash: HashMap::new(),
            unsubscribed: BTreeSet::new(),
            dirty: BTreeSet::new(),
            delayed: BTreeMap::new(),
            unproven: BTreeMap::new(),
            agreed: false,
            told_tip: None,
            told_disconnected: false,
            generation: 0,
            told_generation: None,
            answered: 0,
            told_progress: None,
        };
        session.add(start.scripts);
        session
    }

    /// Watches more scripts; one that is watched already keeps its place and state.
    fn add(&mut self, scripts: Vec<WatchedScript>) {
        for WatchedScript { script, status } in scripts {
            let hash = ScriptHash::of(&script);
            let index = self.scripts.len();
            if self.by_hash.contains_key(&hash) {
                continue;
            }
            self.by_hash.insert(hash, index);
            self.unsubscribed.insert(index);
            self.scripts.push(Watched {
                script,
                hash,
                stored: status,
                announced: None,
                forced: false,
                answered: false,
                contradictions: 0,
                refusals: 0,
            });
        }
    }

    /// Carries out what the wallet commanded.
    pub(crate) fn obey(&mut self, command: WatchCommand) {
        self.generation += 1;
        match command {
            WatchCommand::Watch(scripts) => self.add(scripts),
            WatchCommand::Rescan => {
                self.answered = 0;
                for watched in &mut self.scripts {
                    watched.forced = true;
                    watched.answered = false;
                }
                self.subscribe_all();
            }
        }
    }

    /// Takes the commands that have arrived. Returns whether the wallet is still there.
    pub(crate) fn obey_all(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(mpsc::error::TryRecvError::Empty) => {
                    return !self.events.is_closed() && *self.current.borrow() == self.serial;
                }
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Waits until another session has taken the place of this one.
    pub(crate) async fn replaced(&self) {
        // An error means that the engine ends, which is as good a reason to stop.
        let _ = self.current.clone().wait_for(|serial| *serial != self.serial).await;
    }

    /// A new connection: nothing is subscribed there, and it may lead to another chain.
    pub(crate) fn reconnected(&mut self) {
        self.agreed = false;
        self.told_disconnected = false;
        self.told_generation = None;
        self.subscribe_all();
    }

    /// Subscribes every script (again), which costs one small answer each.
    pub(crate) fn subscribe_all(&mut self) {
        self.delayed.clear();
        self.unsubscribed = (0..self.scripts.len()).collect();
    }

    /// Asks for every history again: something about the chain is not as it should be.
    pub(crate) fn force_all(&mut self) {
        for watched in &mut self.scripts {
            watched.forced = true;
        }
        self.subscribe_all();
    }

    /// The server named the status of a script that we watch.
    pub(crate) fn announce(&mut self, index: usize, status: Option<StatusHash>) {
        self.unsubscribed.remove(&index);
        self.delayed.remove(&index);
        let Some(watched) = self.scripts.get_mut(index) else { return };
        if watched.announced != status {
            watched.announced = status;
            watched.contradictions = 0;
        }
        // A script that never had a history and has none now needs no question even in a rescan.
        let unused = watched.stored.is_none() && status.is_none();
        if watched.stored != status || (watched.forced && !unused) {
            self.dirty.insert(index);
        } else {
            watched.forced = false;
            self.dirty.remove(&index);
            self.settle(index);
        }
    }

    /// As [`Self::announce`], for a notification, which may name a script that is not ours.
    pub(crate) fn announce_hash(&mut self, hash: &ScriptHash, status: Option<StatusHash>) {
        // One that waits to be subscribed is answered by that.
        if let Some(index) = self.by_hash.get(hash).copied()
            && !self.unsubscribed.contains(&index)
        {
            self.announce(index, status);
        }
    }

    /// The wallet was sent the history that belongs to this status.
    pub(crate) fn applied(&mut self, index: usize, status: Option<StatusHash>) {
        let Some(watched) = self.scripts.get_mut(index) else { return };
        watched.stored = status;
        watched.forced = false;
        if watched.announced == status {
            self.dirty.remove(&index);
            self.settle(index);
        }
    }

    fn settle(&mut self, index: usize) {
        let Some(watched) = self.scripts.get_mut(index) else { return };
        watched.contradictions = 0;
        watched.refusals = 0;
        if !watched.answered {
            watched.answered = true;
            self.answered += 1;
        }
    }

    /// Something about a script could not be finished: it is tried again later.
    ///
    /// # Errors
    /// When the server has contradicted itself so often that it must be lying.
    pub(crate) fn trouble(&mut self, index: usize, trouble: Trouble) -> Result<(), LinkError> {
        let Some(watched) = self.scripts.get_mut(index) else { return Ok(()) };
        let pause = match trouble {
            Trouble::Contradiction(what) => {
                watched.contradictions += 1;
                if watched.contradictions > CONTRADICTIONS_MAX {
                    watched.contradictions = 0;
                    return Err(LinkError::lie(what));
                }
                exponential(CONTRADICTION_PAUSE, REFUSAL_PAUSE_MAX, watched.contradictions - 1)
            }
            Trouble::Refused(text) => {
                tracing::warn!(script = %watched.hash, text, "the server refuses a script");
                watched.refusals = watched.refusals.saturating_add(1);
                exponential(REFUSAL_PAUSE, REFUSAL_PAUSE_MAX, watched.refusals - 1)
            }
        };
        self.dirty.remove(&index);
        self.unsubscribed.remove(&index);
        self.delayed.insert(index, Instant::now() + pause);
        Ok(())
    }

    /// Lets scripts whose pause is over be tried again, from their subscription on.
    pub(crate) fn wake_delayed(&mut self) {
        let now = Instant::now();
        let due: Vec<usize> = self
            .delayed
            .iter()
            .filter(|(_, when)| **when <= now)
            .map(|(index, _)| *index)
            .collect();
        for index in due {
            self.delayed.remove(&index);
            self.unsubscribed.insert(index);
        }
    }

    /// When the next pause is over.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.delayed.values().min().copied()
    }

    /// Count of scripts that the server has refused for long.
    pub(crate) fn refused(&self) -> usize {
        self.delayed
            .keys()
            .filter(|index| {
                self.scripts.get(**index).is_some_and(|w| w.refusals >= REFUSALS_AWAITED)
            })
            .count()
    }

    /// Progress to be told, unless it was told already.
    pub(crate) fn progress(&mut self) -> Option<WatchEvent> {
        let progress = (self.answered, self.scripts.len());
        if self.told_progress == Some(progress) {
            return None;
        }
        self.told_progress = Some(progress);
        Some(WatchEvent::Progress { answered: progress.0, planned: progress.1 })
    }

    /// Forgets that progress was told, because it could not be sent.
    pub(crate) const fn progress_unsent(&mut self) {
        self.told_progress = None;
    }

    /// `CaughtUp` to be told, unless it was told for this generation and connection, or work is left.
    pub(crate) fn caught_up(&mut self) -> Option<WatchEvent> {
        let waits = self.delayed.len() > self.refused();
        if waits || !self.dirty.is_empty() || !self.unsubscribed.is_empty() {
            return None;
        }
        if self.told_generation == Some(self.generation) {
            return None;
        }
        self.told_generation = Some(self.generation);
        Some(WatchEvent::CaughtUp { generation: self.generation })
    }

    /// Adds verified blocks of the agreed chain.
    pub(crate) fn insert_blocks(&mut self, blocks: &BTreeMap<u32, BlockHash>) {
        self.chain = with_blocks(&self.chain, blocks);
    }

    /// The chain was compared: `agreed` is the highest common block. Everything proven above it must be proven
    /// anew. Returns the heights that the wallet's chain had above.
    pub(crate) fn agree(&mut self, agreed: CheckPoint) -> Vec<u32> {
        let above = agreed.height();
        let stale: Vec<u32> =
            self.chain.iter().map(|c| c.height()).take_while(|height| *height > above).collect();
        if !stale.is_empty() {
            for (txid, anchor) in &mut self.known {
                if let Some(block) = anchor
                    && block.height > above
                {
                    self.unproven.insert(*txid, block.height);
                    *anchor = None;
                }
            }
            self.chain = agreed;
        }
        self.agreed = true;
        stale
    }
}

/// A chain with these blocks added. All belong to the same branch, so heights that are there already stay.
pub(crate) fn with_blocks(chain: &CheckPoint, blocks: &BTreeMap<u32, BlockHash>) -> CheckPoint {
    let Some((lowest, _)) = blocks.first_key_value() else { return chain.clone() };
    let mut merged = blocks.clone();
    let mut base = None;
    for block in chain.iter() {
        if block.height() < *lowest {
            base = Some(block);
            break;
        }
        merged.insert(block.height(), block.hash());
    }
    let merged = merged.into_iter().map(|(height, hash)| BlockId { height, hash });
    let whole = match base {
        Some(base) => base.extend(merged).ok(),
        None => CheckPoint::from_block_ids(merged).ok(),
    };
    // Heights ascend, so both succeed.
    whole.unwrap_or_else(|| chain.clone())
}

#[cfg(test)]
mod tests {
    use bdk_wallet::bitcoin::hashes::Hash;

    use super::*;

    fn hash(byte: u8) -> BlockHash {
        BlockHash::from_byte_array([byte; 32])
    }

    fn chain(heights: &[u8]) -> CheckPoint {
        CheckPoint::from_block_ids(
            heights.iter().map(|h| BlockId { height: u32::from(*h), hash: hash(*h) }),
        )
        .unwrap()
    }

    fn watched(byte: u8, status: Option<u8>) -> WatchedScript {
        WatchedScript {
            script: ScriptBuf::from_bytes(vec![byte; 22]),
            status: status.map(|byte| [byte; 32]),
        }
    }

    fn session(scripts: Vec<WatchedScript>) -> (Session, mpsc::Receiver<WatchEvent>) {
        let (_, commands) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::channel(1);
        let start = WatchStart { checkpoint: chain(&[0]), known: HashMap::new(), scripts };
        (Session::new(watch::channel(1).1, start, commands, events), receiver)
    }

    fn is_caught_up(event: &Option<WatchEvent>, expected: u64) -> bool {
        matches!(event, Some(WatchEvent::CaughtUp { generation }) if *generation == expected)
    }

    #[test]
    fn blocks_are_merged_in_order_and_present_ones_stay() {
        let merged =
            with_blocks(&chain(&[0, 5, 9]), &[(3, hash(3)), (5, hash(77)), (12, hash(12))].into());
        assert_eq!(merged, chain(&[0, 3, 5, 9, 12]));
        assert_eq!(with_blocks(&chain(&[0, 5]), &BTreeMap::new()), chain(&[0, 5]));
        assert_eq!(with_blocks(&chain(&[5]), &[(3, hash(3))].into()), chain(&[3, 5]));
    }

    #[test]
    fn only_scripts_with_another_status_are_asked_for() {
        let (mut session, _receiver) =
            session(vec![watched(1, None), watched(2, Some(2)), watched(3, Some(3))]);
        assert_eq!(session.unsubscribed.len(), 3);
        session.announce(0, None);
        session.announce(1, Some([2; 32]));
        session.announce(2, Some([9; 32]));
        assert_eq!(session.dirty, [2].into());
        assert!(session.caught_up().is_none());
        session.applied(2, Some([9; 32]));
        assert!(is_caught_up(&session.caught_up(), 0));
        assert!(session.caught_up().is_none(), "told once");
    }

    #[test]
    fn each_command_raises_the_generation_and_reconnects_repeat_the_news() {
        let (mut session, _receiver) = session(vec![watched(1, None)]);
        session.obey(WatchCommand::Watch(vec![watched(1, None), watched(2, None)]));
        assert_eq!(session.scripts.len(), 2, "one was watched already");
        session.announce(0, None);
        assert!(session.caught_up().is_none());
        session.announce(1, None);
        assert!(is_caught_up(&session.caught_up(), 1));
        session.reconnected();
        assert!(session.caught_up().is_none());
        session.announce(0, None);
        session.announce(1, None);
        assert!(is_caught_up(&session.caught_up(), 1));
    }

    #[test]
    fn rescan_asks_used_scripts_again_whatever_their_status() {
        let (mut session, _receiver) = session(vec![watched(1, None), watched(2, Some(2))]);
        session.announce(0, None);
        session.announce(1, Some([2; 32]));
        assert!(session.dirty.is_empty());
        session.obey(WatchCommand::Rescan);
        session.announce(0, None);
        session.announce(1, Some([2; 32]));
        assert_eq!(session.dirty, [1].into());
        session.applied(1, Some([2; 32]));
        assert!(is_caught_up(&session.caught_up(), 1));
        session.announce(1, Some([2; 32]));
        assert!(session.dirty.is_empty(), "only once");
    }

    #[test]
    fn contradictions_become_a_lie_and_refusals_do_not() {
        let (mut session, _receiver) = session(vec![watched(1, None), watched(2, None)]);
        session.announce(1, None);
        for _ in 0..CONTRADICTIONS_MAX {
            session.trouble(0, Trouble::Contradiction("a proof that proves nothing")).unwrap();
        }
        assert!(session.caught_up().is_none());
        assert!(session.trouble(0, Trouble::Contradiction("a proof that proves nothing")).is_err());
        for _ in 0..REFUSALS_AWAITED {
            assert!(session.caught_up().is_none());
            session.trouble(0, Trouble::Refused("history too large".into())).unwrap();
        }
        assert!(is_caught_up(&session.caught_up(), 0), "the rest must not wait for ever");
        assert_eq!(session.refused(), 1);
        assert!(session.next_wake().is_some());
    }

    #[test]
    fn what_was_proven_above_the_common_block_must_be_proven_again() {
        let (mut session, _receiver) = session(vec![]);
        session.chain = chain(&[0, 5, 8, 9]);
        let [old, new] = [1, 2].map(|byte| Txid::from_byte_array([byte; 32]));
        session.known.insert(old, Some(BlockId { height: 5, hash: hash(5) }));
        session.known.insert(new, Some(BlockId { height: 9, hash: hash(9) }));
        let agreed = session.chain.get(5).unwrap();
        assert_eq!(session.agree(agreed), [9, 8]);
        assert_eq!(session.unproven, [(new, 9)].into());
        assert_eq!(session.known[&new], None);
        assert!(session.known[&old].is_some());
        assert_eq!(session.chain, chain(&[0, 5]));
    }
}
