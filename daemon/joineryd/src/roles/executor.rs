//! Answers what the roles ask: by the wallet, by the chain, and by the list of used commitments.
//!
//! What changes the wallet is done in the order in which it was asked. Questions to the chain run beside it, a few at a
//! time: a server that does not answer holds up nobody's promise.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::podle::Commitment;
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_proto::utxo::WireUtxo;
use joinery_roles::ask::{
    Answer, AskError, AttemptFeeRate, CertifiedBond, Question, QuestionId, SendResult,
};
use joinery_wallet::bitcoin::Transaction;
use joinery_wallet::chain::{BroadcastError, ChainError, ChainSource};
use joinery_wallet::commitments::Commitments;
use joinery_wallet::policy::TxFees;
use joinery_wallet::service::{RoundError, RoundSent, SendError, ServiceError, WalletHandle};
use joinery_wallet::types::Branch;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest time for all coins of one counterparty together.
const LOOKUP: Duration = Duration::from_secs(30);
/// Longest time for a fee rate.
const FEE_RATE: Duration = Duration::from_secs(30);
/// Questions to the chain that run at once.
const CHAIN_QUESTIONS: usize = 8;
/// Longest text of a failure that is passed on, bytes.
const MAX_TEXT: usize = 200;

/// What the answers come from.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    /// The wallet.
    pub(super) wallet: WalletHandle,
    /// Used commitments of others and of ours.
    pub(super) commitments: Arc<Commitments>,
    /// Fee rule of this request only.
    pub(super) fees: Option<TxFees>,
}

/// Takes questions; answers come out of the channel that [`Executor::start`] gives.
#[derive(Debug)]
pub(super) struct Executor {
    sources: Sources,
    wallet: mpsc::UnboundedSender<(QuestionId, Question)>,
    answers: mpsc::UnboundedSender<(QuestionId, Answer)>,
    places: Arc<Semaphore>,
}

impl Executor {
    /// Starts. It ends with its owner. Questions are bounded by the machines: a few for each conversation.
    pub(super) fn start(sources: Sources) -> (Self, mpsc::UnboundedReceiver<(QuestionId, Answer)>) {
        let (answers, answered) = mpsc::unbounded_channel();
        let (wallet, mut asked) = mpsc::unbounded_channel();
        let (of_wallet, replies) = (sources.clone(), answers.clone());
        tokio::spawn(async move {
            while let Some((id, question)) = asked.recv().await {
                let answer = of_wallet.wallet_answer(question).await;
                if replies.send((id, answer)).is_err() {
                    // What was begun stands in the journal; nobody wants to hear more.
                    return;
                }
            }
        });
        let places = Arc::new(Semaphore::new(CHAIN_QUESTIONS));
        (Self { sources, wallet, answers, places }, answered)
    }

    /// Takes a question.
    pub(super) fn ask(&self, id: QuestionId, question: Question) {
        if !is_for_chain(&question) {
            // An error means that the task ended with a panic: its deadline ends what waits for this.
            let _ = self.wallet.send((id, question));
            return;
        }
        let (sources, answers) = (self.sources.clone(), self.answers.clone());
        let places = Arc::clone(&self.places);
        tokio::spawn(async move {
            // Never closed.
            let _place = places.acquire_owned().await;
            let answer = sources.chain_answer(question).await;
            let _ = answers.send((id, answer));
        });
    }
}

/// Whether a question waits for the network and changes nothing in the wallet.
const fn is_for_chain(question: &Question) -> bool {
    matches!(question, Question::LookUp(_) | Question::FeeRate | Question::Push(_))
}

impl Sources {
    async fn wallet_answer(&self, question: Question) -> Answer {
        let wallet = &self.wallet;
        match question {
            Question::Begin(begin) => {
                Answer::Begun(wallet.begin_round(*begin).await.map_err(refused))
            }
            Question::Open(round) => {
                Answer::Opened(wallet.open_round(*round).await.map_err(refused))
            }
            Question::Reveal { round, commitment, session, coin } => {
                // Two files, both at once, since a taker waits for both. If one of them is not written, or a power cut
                // leaves one alone, nothing was told for the commitment.
                let revealed = wallet.reveal_round(round, *commitment.as_bytes(), session, coin);
                let (burnt, revealed) = tokio::join!(self.burn(commitment), revealed);
                Answer::Revealed(burnt.and_then(|()| revealed.map_err(refused)))
            }
            Question::Sign { round, transaction, time } => {
                let signed = wallet.sign_round(round, *transaction, time).await;
                Answer::Signed(signed.map_err(refused))
            }
            Question::Reserve { round, outpoints } => {
                Answer::Reserved(wallet.reserve(round, outpoints).await.map_err(refused))
            }
            Question::Address { mixdepth } => {
                let address = wallet.issue_address(mixdepth, Branch::Internal).await;
                Answer::Address(address.map_err(not_issued))
            }
            Question::Coins { round, outpoints } => {
                Answer::Coins(wallet.coinjoin_coins(round, outpoints).await.map_err(refused))
            }
            Question::Record { round, event } => {
                Answer::Recorded(wallet.record_round(round, *event).await.map_err(refused))
            }
            Question::End { round, end } => {
                Answer::Recorded(wallet.end_round(round, end).await.map_err(refused))
            }
            Question::Broadcast { round, transaction, sums, send } => {
                let kept = wallet.keep_transaction(round, *transaction, sums, send).await;
                if let Err(error) = kept {
                    return Answer::Broadcast(Err(refused(error)));
                }
                if !send {
                    return Answer::Broadcast(Ok(SendResult::Kept));
                }
                let sent = wallet.send_round_transaction(round).await.map(|sent| match sent {
                    RoundSent::Accepted => SendResult::Accepted,
                    RoundSent::Rejected { text } => SendResult::Rejected(text),
                    RoundSent::Unknown => SendResult::Unknown,
                });
                Answer::Broadcast(sent.map_err(refused))
            }
            Question::CertifyBond { outpoint, cert_key, expiry } => {
                let certified = wallet.certify_bond(outpoint, cert_key, expiry).await;
                Answer::Certified(certified.map_err(refused).map(|bond| {
                    Box::new(CertifiedBond {
                        outpoint: bond.outpoint,
                        locktime: bond.locktime,
                        coin_key: bond.coin_key,
                        certificate: bond.certificate,
                    })
                }))
            }
            Question::RememberCommitment(commitment) => {
                let commitments = Arc::clone(&self.commitments);
                let written = tokio::task::spawn_blocking(move || commitments.remember(commitment));
                match written.await {
                    Ok(Ok(())) => Answer::Recorded(Ok(())),
                    Ok(Err(error)) => {
                        Answer::Recorded(Err(AskError::Storage(bounded(&error.to_string()))))
                    }
                    Err(_) => Answer::Recorded(Err(AskError::Internal("panic".to_owned()))),
                }
            }
            // Not for the wallet; or one that this version does not know.
            _ => Answer::Recorded(Err(AskError::Internal("unknown question".to_owned()))),
        }
    }

    /// Writes a commitment that we answer down as used, durably.
    async fn burn(&self, commitment: Commitment) -> Result<(), AskError> {
        let commitments = Arc::clone(&self.commitments);
        let written = tokio::task::spawn_blocking(move || commitments.burn(commitment));
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(AskError::Storage(bounded(&error.to_string()))),
            Err(_) => Err(AskError::Internal("panic".to_owned())),
        }
    }

    async fn chain_answer(&self, question: Question) -> Answer {
        let chain = Arc::clone(self.wallet.chain());
        match question {
            Question::LookUp(utxos) => {
                let found = timeout(LOOKUP, look_up(&chain, &utxos)).await;
                let late = || Err(AskError::Unreachable("no answer in time".to_owned()));
                Answer::Found(found.unwrap_or_else(|_| late()))
            }
            Question::FeeRate => {
                let rate = timeout(FEE_RATE, self.wallet.fee_rate(self.fees)).await;
                let late = || Err(AskError::Unreachable("no answer in time".to_owned()));
                let drawn = rate.map_or_else(
                    |_| late(),
                    |rate| {
                        rate.map(|drawn| AttemptFeeRate { rate: drawn.rate, floor: drawn.floor })
                            .map_err(no_rate)
                    },
                );
                Answer::FeeRate(drawn)
            }
            Question::Push(transaction) => Answer::Broadcast(push(&*chain, *transaction).await),
            _ => Answer::Recorded(Err(AskError::Internal("unknown question".to_owned()))),
        }
    }
}

/// Looks all coins up at once; one that the server gives no answer about makes the whole unknown.
async fn look_up(
    chain: &Arc<dyn ChainSource>,
    utxos: &[WireUtxo],
) -> Result<Vec<Option<ForeignCoin>>, AskError> {
    let mut questions = JoinSet::new();
    for (place, utxo) in utxos.iter().cloned().enumerate() {
        let chain = Arc::clone(chain);
        questions.spawn(async move { (place, look_up_one(&*chain, &utxo).await) });
    }
    let mut found = vec![None; utxos.len()];
    while let Some(answer) = questions.join_next().await {
        let (place, coin) = answer.map_err(|_| AskError::Internal("panic".to_owned()))?;
        if let Some(entry) = found.get_mut(place) {
            *entry = coin?;
        }
    }
    Ok(found)
}

/// One coin. The script is that of the transaction, or the hint when the chain agrees with it.
async fn look_up_one(
    chain: &dyn ChainSource,
    utxo: &WireUtxo,
) -> Result<Option<ForeignCoin>, AskError> {
    let outpoint = utxo.outpoint;
    let script = match &utxo.hint {
        Some(hint) => hint.script.clone(),
        None => {
            let tx = chain.transaction(outpoint.txid).await.map_err(|error| no_answer(&error))?;
            let Some(tx) = tx else { return Ok(None) };
            let Some(output) = tx.output.get(outpoint.vout as usize) else { return Ok(None) };
            output.script_pubkey.clone()
        }
    };
    let found =
        chain.unspent_output(outpoint, script.clone()).await.map_err(|error| no_answer(&error))?;
    Ok(found.map(|output| ForeignCoin {
        outpoint,
        value: output.value,
        script,
        confirmations: output.confirmations,
    }))
}

/// A coin is not there when the server says so, and only then. Whatever else comes back (nothing, a refusal, a
/// contradiction) is about our server: no counterparty hears that its coin does not exist (`spec/roles.md` 1.6).
fn no_answer(error: &ChainError) -> AskError {
    if matches!(error, ChainError::Lie { .. } | ChainError::Server { .. }) {
        tracing::debug!(%error, "the Electrum server gives no answer about a coin");
    }
    AskError::Unreachable(bounded(&error.to_string()))
}

/// Sends a transaction that a taker asked us to send.
async fn push(chain: &dyn ChainSource, transaction: Transaction) -> Result<SendResult, AskError> {
    match chain.broadcast(transaction).await {
        Ok(()) => Ok(SendResult::Accepted),
        Err(BroadcastError::Rejected { text }) => Ok(SendResult::Rejected(text)),
        Err(error) => {
            tracing::warn!(%error, "outcome of a broadcast for a taker is unknown");
            Ok(SendResult::Unknown)
        }
    }
}

fn refused(error: RoundError) -> AskError {
    match error {
        RoundError::Closed => AskError::Closed,
        RoundError::Store(error) => AskError::Storage(bounded(&error.to_string())),
        RoundError::Unusable { outpoint, reason } => {
            tracing::debug!(%outpoint, %reason, "coin cannot be used");
            AskError::Unusable(outpoint)
        }
        RoundError::NotHeld { outpoint, .. } => AskError::Unusable(outpoint),
        // The taker's doing, and for the role to tell.
        RoundError::Refused(refusal) => AskError::Refused(refusal),
        error => {
            tracing::error!(%error, "the wallet refused what a role asked");
            AskError::Internal(bounded(&error.to_string()))
        }
    }
}

fn not_issued(error: ServiceError) -> AskError {
    match error {
        ServiceError::Closed => AskError::Closed,
        ServiceError::Store(error) => AskError::Storage(bounded(&error.to_string())),
        error => AskError::Internal(bounded(&error.to_string())),
    }
}

fn no_rate(error: SendError) -> AskError {
    match error {
        error @ SendError::AbsurdFee { .. } => AskError::AbsurdFee(bounded(&error.to_string())),
        SendError::Closed => AskError::Closed,
        error => AskError::Unreachable(bounded(&error.to_string())),
    }
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use joinery_proto::utxo::UtxoHint;
    use joinery_wallet::bitcoin::{OutPoint, ScriptBuf};
    use joinery_wallet::chain::ForeignOutput;

    use super::*;
    use crate::scripted_chain::{NO_ANSWERS, ScriptedChain};

    fn coins() -> [WireUtxo; 2] {
        let plain = WireUtxo::plain(OutPoint::null());
        let hint = Some(UtxoHint { script: ScriptBuf::new(), height: 1 });
        [plain.clone(), WireUtxo { hint, ..plain }]
    }

    #[tokio::test]
    async fn coin_is_not_there_only_when_the_server_says_so() {
        for reply in NO_ANSWERS {
            let chain: Arc<dyn ChainSource> = Arc::new(ScriptedChain::new(reply));
            for coin in coins() {
                let found = look_up(&chain, &[coin]).await;
                assert!(matches!(found, Err(AskError::Unreachable(_))), "{found:?}");
            }
        }
        let chain: Arc<dyn ChainSource> = Arc::new(ScriptedChain::new(|| Ok(None)));
        assert_eq!(look_up(&chain, &coins()).await, Ok(vec![None, None]));
    }

    #[tokio::test]
    async fn hint_is_asked_about_as_it_is() {
        let there = || Ok(Some(ForeignOutput { value: 7, confirmations: 5, height: Some(1) }));
        let chain: Arc<dyn ChainSource> = Arc::new(ScriptedChain::new(there));
        let [_, hinted] = coins();
        let found = look_up(&chain, &[hinted]).await.expect("answered");
        assert_eq!(found[0].as_ref().map(|coin| (coin.value, coin.confirmations)), Some((7, 5)));
    }
}
