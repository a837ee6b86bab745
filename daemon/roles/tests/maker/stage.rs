//! A maker on a stage: its wallet, its chain and its takers are here, and every message is seen.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::bitcoin::absolute::LockTime;
use bdk_wallet::bitcoin::consensus::encode::serialize;
use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::secp256k1::SecretKey;
use bdk_wallet::bitcoin::transaction::Version;
use bdk_wallet::bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::bond_proof::Certificate;
use joinery_proto::message::{Fill, IoAuth, PubKey, tx_payload};
use joinery_proto::nacl_box::{NaclBox, NaclSecretKey};
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OfferId, OrderType};
use joinery_proto::podle::{Commitment, Proof, Revelation};
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_proto::transaction::maker::MakerRefusal;
use joinery_proto::transaction::signing::OwnCoin;
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_proto::utxo::WireUtxo;
use joinery_roles::ask::{
    Answer, AskError, AttemptFeeRate, CertifiedBond, Question, QuestionId, SendResult, WalletCoin,
    WalletView,
};
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use joinery_roles::maker::{Maker, MakerConfig, MakerEnd, MakerState, MakerTerms, Output};
use joinery_wallet::round::{Round, RoundEvent, RoundId};
use joinery_wallet::service::{OpenedRound, RoundOutputs};
use joinery_wallet::snapshot::CoinKind;
use joinery_wallet::types::Mixdepth;

/// Height of the chain when the stage opens.
pub(crate) const HEIGHT: u32 = 1_000;
/// Median time of the chain when the stage opens.
pub(crate) const MEDIAN_TIME: u32 = 1_700_000_000;
/// The directory that everything comes from unless said otherwise.
pub(crate) const DIRECTORY: Source = Source::Directory(DirectoryId(0));

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn key(tag: u8, number: u32) -> SecretKey {
    let mut bytes = [tag; 32];
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    bytes[0] = 1;
    SecretKey::from_slice(&bytes).unwrap()
}

pub(crate) fn outpoint(tag: u8, number: u32) -> OutPoint {
    let mut bytes = [tag; 32];
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    OutPoint { txid: Txid::from_byte_array(bytes), vout: 0 }
}

/// A coin of ours.
#[derive(Debug, Clone)]
pub(crate) struct FakeCoin {
    pub(crate) outpoint: OutPoint,
    pub(crate) value: u64,
    pub(crate) mixdepth: u8,
    pub(crate) height: Option<u32>,
    pub(crate) frozen: bool,
    pub(crate) locktime: Option<u32>,
    pub(crate) kind: CoinKind,
    pub(crate) key: SecretKey,
}

/// Our wallet and the chain. What is recorded is what a real journal would hold.
#[derive(Debug, Clone)]
pub(crate) struct FakeWallet {
    pub(crate) coins: Vec<FakeCoin>,
    pub(crate) height: u32,
    pub(crate) max_mixdepth: u8,
    pub(crate) next_address: u32,
    /// Addresses that are handed out before others.
    pub(crate) preset: VecDeque<Address>,
    /// Addresses handed out, with their account.
    pub(crate) addresses: Vec<(u8, Address)>,
    /// Events of each round, in order.
    pub(crate) journal: BTreeMap<RoundId, Vec<RoundEvent>>,
    /// Commitments that were remembered because somebody published them.
    pub(crate) remembered: Vec<Commitment>,
    /// Coins of others.
    pub(crate) chain: HashMap<OutPoint, ForeignCoin>,
    /// What the mempool takes.
    pub(crate) floor: u64,
    /// Looking up fails.
    pub(crate) unreachable: bool,
    /// The journal fails.
    pub(crate) broken: Option<AskError>,
    /// Coins that cannot be held whatever the view says.
    pub(crate) unusable: HashSet<OutPoint>,
    pub(crate) pushed: Vec<Transaction>,
    /// Kinds of all questions, in order.
    pub(crate) asked: Vec<&'static str>,
    pub(crate) synced: bool,
}

impl FakeWallet {
    pub(crate) fn new() -> Self {
        Self {
            coins: Vec::new(),
            height: HEIGHT,
            max_mixdepth: 4,
            next_address: 0,
            preset: VecDeque::new(),
            addresses: Vec::new(),
            journal: BTreeMap::new(),
            remembered: Vec::new(),
            chain: HashMap::new(),
            floor: 1_000,
            unreachable: false,
            broken: None,
            unusable: HashSet::new(),
            pushed: Vec::new(),
            asked: Vec::new(),
            synced: true,
        }
    }

    /// Adds a confirmed coin.
    pub(crate) fn fund(&mut self, mixdepth: u8, value: u64) -> OutPoint {
        let number = u32::try_from(self.coins.len()).unwrap();
        let coin = FakeCoin {
            outpoint: outpoint(0xc0, number),
            value,
            mixdepth,
            height: Some(500),
            frozen: false,
            locktime: None,
            kind: CoinKind::Deposit,
            key: key(0xc0, number),
        };
        self.coins.push(coin);
        self.coins.last().unwrap().outpoint
    }

    pub(crate) fn rounds(&self) -> Vec<Round> {
        let fold = |(id, events): (&RoundId, &Vec<RoundEvent>)| {
            let RoundEvent::Begun(begin) = &events[0] else { panic!("a round begins first") };
            let mut round = Round::new(*id, begin.clone());
            events.iter().for_each(|event| round.apply(event));
            round
        };
        self.journal.iter().map(fold).collect()
    }

    fn held(&self) -> HashSet<OutPoint> {
        let holding = self.rounds().into_iter().filter(Round::holds_coins);
        holding.flat_map(|round| round.coins).collect()
    }

    /// Commitments that are durably used, ours and those of others.
    pub(crate) fn blacklist(&self) -> CommitmentBlacklist {
        let mut list = CommitmentBlacklist::default();
        for event in self.journal.values().flatten() {
            if let RoundEvent::Revealed { commitment, .. } = event {
                list.use_up(Commitment::from_bytes(*commitment));
            }
        }
        for commitment in &self.remembered {
            list.seen(*commitment);
        }
        list
    }

    pub(crate) fn view(&self) -> Arc<WalletView> {
        let held = self.held();
        let coins = self.coins.iter().map(|coin| WalletCoin {
            outpoint: coin.outpoint,
            value: coin.value,
            mixdepth: Mixdepth(coin.mixdepth),
            confirmations: coin.height.map_or(0, |height| self.height - height + 1),
            height: coin.height,
            free: !coin.frozen && coin.locktime.is_none() && !held.contains(&coin.outpoint),
            frozen: coin.frozen,
            locktime: coin.locktime,
            kind: coin.kind,
            commitments_used: Vec::new(),
        });
        Arc::new(WalletView {
            coins: coins.collect(),
            max_mixdepth: self.max_mixdepth,
            height: Some(self.height),
            median_time: Some(MEDIAN_TIME),
            synced: self.synced,
        })
    }

    pub(crate) fn own(&self, outpoint: &OutPoint) -> Option<&FakeCoin> {
        self.coins.iter().find(|coin| coin.outpoint == *outpoint)
    }

    fn keyed(&self, outpoint: &OutPoint) -> OwnCoin {
        let coin = self.own(outpoint).unwrap();
        OwnCoin::new(coin.outpoint, coin.value, coin.key)
    }

    fn round(&self, id: RoundId) -> Round {
        self.rounds().into_iter().find(|round| round.id == id).unwrap()
    }

    fn address(&mut self, mixdepth: u8) -> Address {
        self.next_address += 1;
        let coin = OwnCoin::new(OutPoint::null(), 0, key(0xad, self.next_address));
        let fresh = Address::from_script(coin.script(), Network::Regtest).unwrap();
        let address = self.preset.pop_front().unwrap_or(fresh);
        self.addresses.push((mixdepth, address.clone()));
        address
    }

    pub(crate) fn answer(&mut self, question: Question) -> Answer {
        let kind = match &question {
            Question::Open(_) => "open",
            Question::Reveal { .. } => "revealed",
            Question::Sign { .. } => "signed",
            Question::End { .. } => "end",
            Question::LookUp(_) => "look up",
            Question::FeeRate => "fee rate",
            Question::Push(_) => "push",
            Question::CertifyBond { .. } => "certify",
            Question::RememberCommitment(_) => "remember",
            other => panic!("{other:?} is not a maker's question"),
        };
        self.asked.push(kind);
        if let Some(error) = self.broken.clone() {
            let broken = match &question {
                Question::Open(_) => Some(Answer::Opened(Err(error))),
                Question::Reveal { .. } => Some(Answer::Revealed(Err(error))),
                Question::Sign { .. } => Some(Answer::Signed(Err(error))),
                Question::End { .. } | Question::RememberCommitment(_) => {
                    Some(Answer::Recorded(Err(error)))
                }
                _ => None,
            };
            if let Some(broken) = broken {
                return broken;
            }
        }
        match question {
            Question::Open(asked) => {
                let held = self.held();
                let free = |outpoint: &OutPoint| {
                    let ours = self.own(outpoint);
                    ours.is_some_and(|c| !c.frozen && c.locktime.is_none() && c.height.is_some())
                        && !held.contains(outpoint)
                        && !self.unusable.contains(outpoint)
                };
                if let Some(bad) = asked.coins.iter().find(|outpoint| !free(outpoint)) {
                    return Answer::Opened(Err(AskError::Unusable(*bad)));
                }
                let coins = asked.coins.iter().map(|outpoint| self.keyed(outpoint).lent());
                let coins = coins.collect();
                let (equal, change) = match &asked.outputs {
                    RoundOutputs::Known { equal, change } => (equal.clone(), change.clone()),
                    RoundOutputs::Fresh(accounts) => {
                        (self.address(accounts.equal.0), self.address(accounts.change.0))
                    }
                };
                let id = RoundId(u64::try_from(self.journal.len()).unwrap() + 1);
                let outpoints = asked.coins.clone();
                let begin = asked.begin(&equal, &change);
                let events = vec![RoundEvent::Begun(begin), RoundEvent::Reserved { outpoints }];
                self.journal.insert(id, events);
                Answer::Opened(Ok(OpenedRound { id, coins, equal, change }))
            }
            Question::Reveal { round, commitment, session, coin } => {
                let known = self.round(round);
                assert!(known.coins.contains(&coin));
                let agreed = known.begin.agreed.unwrap();
                let (scripts, commitment) =
                    (vec![agreed.equal, agreed.change], *commitment.as_bytes());
                let event = RoundEvent::Revealed { scripts, commitment };
                self.journal.get_mut(&round).unwrap().push(event);
                Answer::Revealed(Ok(self.keyed(&coin).authorise(&session)))
            }
            Question::Sign { round: id, transaction, time } => {
                let round = self.round(id);
                let keys: Vec<OwnCoin> = round.coins.iter().map(|coin| self.keyed(coin)).collect();
                let mut inputs = transaction.input.iter().map(|input| input.previous_output);
                let other =
                    |input: &OutPoint| !round.coins.contains(input) && self.own(input).is_some();
                let other = inputs.find(other);
                if let Some(other) = other {
                    return Answer::Signed(Err(AskError::Refused(MakerRefusal::OtherCoin(other))));
                }
                let share = round.share(keys.iter().map(OwnCoin::lent).collect()).unwrap();
                let signed = share.verify(*transaction, Some(self.height)).map(|verified| {
                    let tx = verified.transaction();
                    let txid = tx.compute_txid();
                    let (raw, sums) = (serialize(tx), round.sums_of(&share));
                    let event = RoundEvent::Signed { txid, raw, sums, time };
                    self.journal.get_mut(&id).unwrap().push(event);
                    verified.sign(&keys).unwrap()
                });
                Answer::Signed(signed.map_err(AskError::Refused))
            }
            Question::End { round, end } => {
                let events = self.journal.get_mut(&round).unwrap();
                events.push(RoundEvent::Ended(end));
                Answer::Recorded(Ok(()))
            }
            Question::LookUp(_) if self.unreachable => {
                Answer::Found(Err(AskError::Unreachable("test".to_owned())))
            }
            Question::LookUp(utxos) => Answer::Found(Ok(utxos
                .iter()
                .map(|u| self.chain.get(&u.outpoint).cloned())
                .collect())),
            Question::FeeRate => {
                Answer::FeeRate(Ok(AttemptFeeRate { rate: 2 * self.floor, floor: self.floor }))
            }
            Question::Push(tx) => {
                self.pushed.push(*tx);
                Answer::Broadcast(Ok(SendResult::Accepted))
            }
            Question::CertifyBond { outpoint, cert_key, expiry } => {
                let Some(coin) = self.own(&outpoint).filter(|coin| coin.locktime.is_some()) else {
                    return Answer::Certified(Err(AskError::Unusable(outpoint)));
                };
                let certificate = Certificate::sign(&coin.key, &cert_key, expiry);
                let coin_key = OwnCoin::new(outpoint, 0, coin.key).public_key();
                let locktime = coin.locktime.unwrap();
                Answer::Certified(Ok(Box::new(CertifiedBond {
                    outpoint,
                    locktime,
                    coin_key,
                    certificate,
                })))
            }
            Question::RememberCommitment(commitment) => {
                self.remembered.push(commitment);
                Answer::Recorded(Ok(()))
            }
            other => panic!("{other:?} is not a maker's question"),
        }
    }
}

/// What left the maker, except questions and states.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Left {
    Said { to: Nick, word: PrivateWord, payload: String, prefer: Option<Source> },
    Announced(String),
    Published(Commitment),
    Finished(MakerEnd),
}

/// A maker and its world.
pub(crate) struct Stage {
    pub(crate) maker: Maker,
    pub(crate) wallet: FakeWallet,
    pub(crate) now: Duration,
    pub(crate) left: Vec<Left>,
    pub(crate) state: Option<Arc<MakerState>>,
    /// Questions that are not answered yet, while [`Self::slow`] holds for their kind.
    pub(crate) waiting: Vec<(QuestionId, Question)>,
    /// Questions of this kind wait until the test answers them.
    pub(crate) slow: fn(&Question) -> bool,
}

pub(crate) fn maker_nick() -> Nick {
    NickKey::new(key(0x77, 0)).nick()
}

pub(crate) fn config() -> MakerConfig {
    MakerConfig::new(maker_nick(), MakerTerms::new(OrderType::Sw0Relative), 1_700_000_000)
}

impl Stage {
    /// A maker with these coins (account, value), whose directory is up.
    pub(crate) fn new(coins: &[(u8, u64)]) -> Self {
        Self::with(config(), coins)
    }

    pub(crate) fn with(config: MakerConfig, coins: &[(u8, u64)]) -> Self {
        let mut wallet = FakeWallet::new();
        for (mixdepth, value) in coins {
            wallet.fund(*mixdepth, *value);
        }
        Self::open(config, wallet)
    }

    pub(crate) fn open(config: MakerConfig, wallet: FakeWallet) -> Self {
        let now = secs(10);
        let maker = Maker::new(config, wallet.blacklist(), wallet.view(), [9; 32], now);
        let mut stage = Self {
            maker,
            wallet,
            now,
            left: Vec::new(),
            state: None,
            waiting: Vec::new(),
            slow: |_| false,
        };
        stage.run();
        stage.heard(&ChannelEvent::Up(DIRECTORY));
        stage
    }

    /// Takes outputs and answers questions until nothing comes any more.
    pub(crate) fn run(&mut self) {
        while let Some(output) = self.maker.poll() {
            match output {
                Output::Ask(id, question) if (self.slow)(&question) => {
                    self.waiting.push((id, question));
                }
                Output::Ask(id, question) => {
                    let answer = self.wallet.answer(question);
                    self.maker.answered(id, answer, self.now);
                }
                Output::Send { to, word, payload, prefer } => {
                    self.left.push(Left::Said { to, word, payload, prefer });
                }
                Output::Announce { text, .. } => self.left.push(Left::Announced(text)),
                Output::PublishCommitment(commitment) => {
                    self.left.push(Left::Published(commitment));
                }
                Output::State(state) => self.state = Some(state),
                Output::Finished(end) => self.left.push(Left::Finished(end)),
            }
        }
    }

    /// Answers what waits, in order.
    pub(crate) fn answer_all(&mut self) {
        for (id, question) in std::mem::take(&mut self.waiting) {
            let answer = self.wallet.answer(question);
            self.maker.answered(id, answer, self.now);
        }
        self.run();
    }

    pub(crate) fn heard(&mut self, event: &ChannelEvent) {
        self.maker.heard(event, self.now);
        self.run();
    }

    /// The wallet's news reach the maker.
    pub(crate) fn refresh(&mut self) {
        self.maker.wallet(self.wallet.view(), self.now);
        self.run();
    }

    /// Lets time pass, waking the maker when it wants to be woken.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut wakes = 0;
        while let Some(wake) = self.maker.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.maker.tick(self.now);
            self.run();
            wakes += 1;
            assert!(wakes < 10_000, "the maker spins");
        }
        self.now = end;
        self.maker.tick(end);
        self.run();
    }

    pub(crate) fn public(&mut self, from: Nick, text: &str) {
        let event = ChannelEvent::Public { from, via: DIRECTORY, text: text.to_owned() };
        self.heard(&event);
    }

    pub(crate) fn private(
        &mut self,
        from: &NickKey,
        via: Source,
        word: PrivateWord,
        payload: &str,
    ) {
        let text = from.sign_message(word, payload, ONION_HOSTID);
        self.heard(&ChannelEvent::Private { from: from.nick(), via, text });
    }

    /// What left since the last call.
    pub(crate) fn take_left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// What was said to a nick since the last call of `take_left`.
    pub(crate) fn said_to(&self, nick: Nick) -> Vec<(PrivateWord, String)> {
        let said = self.left.iter().filter_map(|left| match left {
            Left::Said { to, word, payload, .. } if *to == nick => Some((*word, payload.clone())),
            _ => None,
        });
        said.collect()
    }

    pub(crate) fn offers(&self) -> Vec<Offer> {
        let state = self.state.as_ref().unwrap();
        let parse = |offer: &joinery_roles::maker::OfferView| {
            let order_type = OrderType::parse(offer.ordertype).unwrap();
            let fields = format!(
                "{} {} {} {} {}",
                offer.oid, offer.minsize, offer.maxsize, offer.txfee, offer.cjfee
            );
            Offer::parse(order_type, &fields).unwrap()
        };
        state.offers.iter().map(parse).collect()
    }

    pub(crate) fn error(&self) -> Option<&'static str> {
        self.state.as_ref().unwrap().last_error.as_ref().map(|problem| problem.code)
    }
}

/// A taker that can say anything.
pub(crate) struct FakeTaker {
    pub(crate) key: NickKey,
    pub(crate) secret: [u8; 32],
    pub(crate) coin: OwnCoin,
    pub(crate) index: u8,
    pub(crate) via: Source,
    pub(crate) amount: u64,
    pub(crate) shared: Option<NaclBox>,
    pub(crate) io: Option<IoAuth>,
    nonce: u8,
}

impl FakeTaker {
    /// A taker with a good coin on the chain of the stage.
    pub(crate) fn new(stage: &mut Stage, number: u32) -> Self {
        let coin = OwnCoin::new(outpoint(0x70, number), 50_000_000, key(0x70, number));
        let known = ForeignCoin {
            outpoint: coin.outpoint,
            value: coin.value,
            script: coin.script().clone(),
            confirmations: 5,
        };
        stage.wallet.chain.insert(coin.outpoint, known);
        let mut secret = [3; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        Self {
            key: NickKey::new(key(0x71, number)),
            secret,
            coin,
            index: 0,
            via: DIRECTORY,
            amount: 1_000_000,
            shared: None,
            io: None,
            nonce: 0,
        }
    }

    pub(crate) fn nick(&self) -> Nick {
        self.key.nick()
    }

    pub(crate) fn proof(&self) -> Proof {
        Proof::generate(
            &self.coin.secret_key().keypair(joinery_proto::secp()),
            &self.coin.outpoint,
            self.index,
        )
    }

    pub(crate) fn commitment(&self) -> Commitment {
        self.proof().commitment()
    }

    pub(crate) fn fill_payload(&self) -> String {
        let key = NaclSecretKey::from_bytes(self.secret).public_key();
        let (amount, commitment) = (self.amount, self.commitment());
        Fill { offer: OfferId::new(0).unwrap(), amount, key, commitment }.to_string()
    }

    /// Sends `!fill`; the words of the answer.
    pub(crate) fn fill(&mut self, stage: &mut Stage) -> Vec<(PrivateWord, String)> {
        let payload = self.fill_payload();
        self.fill_with(stage, &payload)
    }

    pub(crate) fn fill_with(
        &mut self,
        stage: &mut Stage,
        payload: &str,
    ) -> Vec<(PrivateWord, String)> {
        stage.take_left();
        stage.private(&self.key, self.via, PrivateWord::Fill, payload);
        let said = stage.said_to(self.nick());
        if let Some((PrivateWord::PubKey, payload)) = said.last() {
            let key = PubKey::parse(payload).unwrap().key;
            self.shared = Some(NaclSecretKey::from_bytes(self.secret).shared_with(&key).unwrap());
        }
        said
    }

    pub(crate) fn seal(&mut self, text: &str) -> String {
        self.nonce += 1;
        self.shared.as_ref().expect("a session").seal([self.nonce; 24], text)
    }

    pub(crate) fn revelation(&self) -> String {
        Revelation { utxo: WireUtxo::plain(self.coin.outpoint), proof: self.proof() }.to_string()
    }

    /// Sends `!auth`; the words of the answer.
    pub(crate) fn auth(&mut self, stage: &mut Stage) -> Vec<(PrivateWord, String)> {
        let text = self.revelation();
        self.auth_with(stage, &text)
    }

    pub(crate) fn auth_with(
        &mut self,
        stage: &mut Stage,
        text: &str,
    ) -> Vec<(PrivateWord, String)> {
        stage.take_left();
        let sealed = self.seal(text);
        stage.private(&self.key, self.via, PrivateWord::Auth, &sealed);
        let said = stage.said_to(self.nick());
        self.hear(&said);
        said
    }

    /// Reads an `!ioauth`, if there is one.
    pub(crate) fn hear(&mut self, said: &[(PrivateWord, String)]) {
        if let Some((_, sealed)) = said.iter().find(|(word, _)| *word == PrivateWord::IoAuth) {
            let text = self.shared.as_ref().unwrap().open(sealed).unwrap();
            self.io = Some(IoAuth::parse(&text).unwrap());
        }
    }

    /// The transaction that both agreed on.
    pub(crate) fn transaction(&self, stage: &Stage, offer: &Offer) -> Transaction {
        let io = self.io.as_ref().expect("an ioauth");
        let input = |outpoint| TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
            witness: Witness::new(),
        };
        let address = |text: &str| {
            let address: Address<_> = text.parse().unwrap();
            address.require_network(Network::Regtest).unwrap().script_pubkey()
        };
        let ours: u64 = io.utxos.iter().map(|u| stage.wallet.own(&u.outpoint).unwrap().value).sum();
        let change = i128::from(ours) - i128::from(self.amount) + offer.earning(self.amount);
        let output = |value, script_pubkey| TxOut { value: Amount::from_sat(value), script_pubkey };
        let own = OwnCoin::new(OutPoint::null(), 0, key(0x72, 1)).script().clone();
        let fee = offer.cj_fee.of(self.amount);
        let cost = self.amount + fee + 5_000 - offer.tx_fee;
        let own_change = self.coin.value.saturating_sub(cost);
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(stage.wallet.height),
            input: io
                .utxos
                .iter()
                .map(|u| u.outpoint)
                .chain([self.coin.outpoint])
                .map(input)
                .collect(),
            output: vec![
                output(self.amount, address(&io.cj_address)),
                output(u64::try_from(change).unwrap_or(0), address(&io.change_address)),
                output(
                    self.amount,
                    OwnCoin::new(OutPoint::null(), 0, key(0x72, 2)).script().clone(),
                ),
                output(own_change, own),
            ],
        }
    }

    /// Sends `!tx`; the words of the answer.
    pub(crate) fn show(
        &mut self,
        stage: &mut Stage,
        tx: &Transaction,
    ) -> Vec<(PrivateWord, String)> {
        let payload = tx_payload(tx);
        self.show_text(stage, &payload)
    }

    pub(crate) fn show_text(
        &mut self,
        stage: &mut Stage,
        text: &str,
    ) -> Vec<(PrivateWord, String)> {
        stage.take_left();
        let sealed = self.seal(text);
        stage.private(&self.key, self.via, PrivateWord::Tx, &sealed);
        stage.said_to(self.nick())
    }

    /// Fill, auth: the maker's coins are known afterwards.
    pub(crate) fn until_ioauth(&mut self, stage: &mut Stage) {
        let said = self.fill(stage);
        assert!(matches!(said.as_slice(), [(PrivateWord::PubKey, _)]), "{said:?}");
        let said = self.auth(stage);
        assert!(matches!(said.as_slice(), [(PrivateWord::IoAuth, _)]), "{said:?}");
    }
}

/// The one `!error` that was said.
pub(crate) fn error_text(said: &[(PrivateWord, String)]) -> Option<&str> {
    match said {
        [(PrivateWord::Error, text)] => Some(text),
        _ => None,
    }
}

/// Words of what was said.
pub(crate) fn words(said: &[(PrivateWord, String)]) -> Vec<&'static str> {
    said.iter().map(|(word, _)| word.as_str()).collect()
}
