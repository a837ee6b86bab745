//! From the last signature of a maker to the moment at which the transaction is seen (`spec/roles.md` 3.11, 3.12).

use std::time::Duration;

use joinery_proto::message::tx_payload;
use joinery_proto::nick::Nick;
use joinery_proto::private_message::PrivateWord;
use joinery_proto::transaction::taker::ForeignCoin;
use joinery_proto::utxo::WireUtxo;
use rand::Rng;
use rand::seq::SliceRandom;

use super::attempt::{Attempt, CHAIN_PAUSE, Flow, Step, WALLET_TIMEOUT, failure, impossible};
use super::context::{Context, Purpose};
use super::outcome::{Reason, Verdict};
use super::request::BroadcastPolicy;
use super::signing::MOST_SHOWN;
use super::slot::{Slot, Stage};
use crate::ask::{AskError, Question, SendResult};

/// Longest wait for the wallet to see what our server has accepted.
const ACCEPTED_WAIT: Duration = Duration::from_secs(30);

/// How often our server is given a transaction of which nobody knows whether it has it.
const MOST_SENT: u8 = 3;

/// How the complete transaction gets out.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Makers that are asked to send it; none when we do.
    peers: Vec<Nick>,
    /// How often our server was given it.
    sent: u8,
    /// Our server took it.
    accepted: bool,
    /// Somebody else has it.
    pushed: bool,
}

impl Attempt {
    /// All makers have signed: the chain is asked about their coins once more.
    pub(super) fn recheck(&mut self, ctx: &mut Context) -> Flow {
        let wait = ctx.setup.policy.maker_timeout;
        self.wait(Step::Recheck, wait, ctx);
        self.ask_recheck(ctx);
        Ok(())
    }

    fn ask_recheck(&mut self, ctx: &mut Context) {
        self.ask_again = None;
        let coins = self.foreign_coins().map(|(_, coin)| WireUtxo::plain(coin.outpoint)).collect();
        ctx.ask(Purpose::Recheck, Question::LookUp(coins));
    }

    fn foreign_coins(&self) -> impl Iterator<Item = (usize, &ForeignCoin)> {
        let active = |(_, slot): &(usize, &Slot)| !slot.is_dropped();
        let slots = (0_usize..).zip(&self.slots).filter(active);
        slots.flat_map(|(index, slot)| slot.coins.iter().map(move |coin| (index, coin)))
    }

    pub(super) fn recheck_again(&mut self, late: bool, ctx: &mut Context) -> Flow {
        if late {
            let text = "the Electrum server could not be asked whether all inputs are unspent";
            return Err(Verdict::new(Reason::ChainUnreachable, text));
        }
        if self.ask_again.is_some_and(|again| again <= ctx.now) {
            self.ask_recheck(ctx);
        }
        Ok(())
    }

    /// The chain's answer about all inputs of makers. Ours are in the wallet's view.
    pub(super) fn rechecked(
        &mut self,
        found: Result<Vec<Option<ForeignCoin>>, AskError>,
        ctx: &mut Context,
    ) -> Flow {
        if self.step != Step::Recheck {
            return Ok(());
        }
        let found = match found {
            Ok(found) => found,
            Err(AskError::Unreachable(_)) => {
                self.ask_again = Some(ctx.after(CHAIN_PAUSE));
                return Ok(());
            }
            Err(error) => return Err(failure(&error)),
        };
        let same = |known: &ForeignCoin, now: Option<&Option<ForeignCoin>>| {
            now.and_then(Option::as_ref).is_some_and(|now| {
                (now.outpoint, now.value, &now.script)
                    == (known.outpoint, known.value, &known.script)
            })
        };
        let spent = self
            .foreign_coins()
            .enumerate()
            .find(|(place, (_, coin))| !same(coin, found.get(*place)))
            .map(|(_, (index, _))| index);
        let Some(index) = spent else { return self.sign(ctx) };
        let nick = self.slots.get(index).map(|slot| slot.nick.to_string()).unwrap_or_default();
        self.fail(index, "input_spent", "spent a coin that it had put in", ctx);
        ctx.honest = self.signers();
        if self.active() >= self.plan()?.enough && self.shown < MOST_SHOWN {
            // The others are here and nothing of ours is signed: they are shown a transaction without it.
            return self.build(ctx);
        }
        let text = format!("maker {nick} spent a coin of the round before it was complete");
        Err(Verdict::new(Reason::InputSpent, text))
    }

    /// Our own signatures: the last thing before the transaction leaves.
    fn sign(&mut self, ctx: &mut Context) -> Flow {
        let sums = self.guarded(ctx)?;
        let (shown, round) = (self.txid()?, self.round()?);
        let coinjoin = self.coinjoin.take().ok_or_else(|| impossible("no transaction"))?;
        let transaction = coinjoin.finish().map_err(|error| impossible(&error.to_string()))?;
        let txid = transaction.compute_txid();
        if txid != shown {
            return Err(impossible("the signed transaction is another one"));
        }
        self.sums = Some(sums.clone());
        ctx.sums = Some(sums.clone());
        ctx.honest = self.signers();
        ctx.signed = Some((txid, transaction.clone()));
        let peers = self.draw_peers(ctx);
        let send = peers.is_empty();
        let sent = u8::from(send);
        self.delivery = Some(Delivery { peers, sent, accepted: false, pushed: false });
        self.wait(Step::Deliver, WALLET_TIMEOUT, ctx);
        let transaction = Box::new(transaction);
        ctx.ask(Purpose::Broadcast, Question::Broadcast { round, transaction, sums, send });
        Ok(())
    }

    /// Makers that send the transaction; none: we do.
    fn draw_peers(&self, ctx: &mut Context) -> Vec<Nick> {
        let mut makers: Vec<Nick> =
            self.slots.iter().filter(|s| s.stage == Stage::Signed).map(|s| s.nick).collect();
        makers.shuffle(&mut ctx.rng);
        let count = match ctx.setup.policy.broadcast {
            BroadcastPolicy::Own => 0,
            // Each of the makers and we ourselves with the same probability.
            BroadcastPolicy::RandomPeer => {
                usize::from(ctx.rng.random_range(0..=makers.len()) < makers.len())
            }
            BroadcastPolicy::NotSelf => 1,
            BroadcastPolicy::MultiplePeers => ctx.setup.policy.broadcast_peers.max(1).into(),
        };
        makers.truncate(count);
        makers
    }

    /// What became of the complete transaction.
    pub(super) fn delivered(
        &mut self,
        result: Result<SendResult, AskError>,
        ctx: &mut Context,
    ) -> Flow {
        let Some(delivery) = self.delivery.as_mut() else { return Ok(()) };
        if self.step != Step::Deliver {
            // It came late; that our server has it is still good to know.
            delivery.accepted |= matches!(result, Ok(SendResult::Accepted));
            return Ok(());
        }
        let unconfirmed = ctx.setup.policy.unconfirm_timeout;
        let result = match result {
            Ok(result) => result,
            // Whether our server has it is not known; it is asked again when the transaction is not seen.
            Err(AskError::Unreachable(_)) => SendResult::Unknown,
            Err(error) => return Err(failure(&error)),
        };
        match result {
            SendResult::Kept => {
                let payload = ctx.signed.as_ref().map(|(_, tx)| tx_payload(tx)).unwrap_or_default();
                let peers = std::mem::take(&mut delivery.peers);
                delivery.pushed = true;
                for nick in peers {
                    let via = self.slots.iter().find(|s| s.nick == nick).and_then(|s| s.via);
                    ctx.send(nick, PrivateWord::Push, payload.clone(), via);
                }
                self.wait(Step::Seen, unconfirmed, ctx);
                if ctx.stopping { self.hasten(ctx) } else { Ok(()) }
            }
            SendResult::Accepted => {
                delivery.accepted = true;
                self.wait(Step::Seen, ACCEPTED_WAIT.min(unconfirmed), ctx);
                Ok(())
            }
            SendResult::Unknown => {
                self.wait(Step::Seen, unconfirmed, ctx);
                Ok(())
            }
            SendResult::Rejected(text) if delivery.pushed => {
                let text = format!("neither makers nor our server have it: {text}");
                Err(Verdict::new(Reason::NotBroadcast, text))
            }
            SendResult::Rejected(text) => {
                Err(Verdict::new(Reason::Rejected, format!("our server refused it: {text}")))
            }
        }
    }

    /// It was not seen in time.
    pub(super) fn not_seen(&mut self, ctx: &mut Context) -> Flow {
        let Some(delivery) = &self.delivery else { return Err(impossible("nothing was sent")) };
        if delivery.accepted {
            let text = "our server has the transaction";
            return Err(Verdict::new(Reason::Complete, text));
        }
        if self.step == Step::Deliver && delivery.sent > 0 {
            // Our server may have it by now.
            let wait = ctx.setup.policy.unconfirm_timeout;
            self.wait(Step::Seen, wait, ctx);
            return Ok(());
        }
        if self.step == Step::Deliver {
            let text = "the wallet did not say what became of the transaction; it is kept";
            return Err(Verdict::new(Reason::NotBroadcast, text));
        }
        if ctx.setup.policy.broadcast == BroadcastPolicy::NotSelf {
            let text = "You have chosen not to broadcast from your own node. The transaction is NOT broadcast.";
            return Err(Verdict::new(Reason::NotBroadcast, text));
        }
        if delivery.sent >= MOST_SENT {
            let text =
                "the transaction was not seen, although it was sent several times; it is kept";
            return Err(Verdict::new(Reason::NotBroadcast, text));
        }
        self.send_it_ourselves(ctx)
    }

    /// A person wants it to end: our server gets the transaction now unless that is ruled out.
    pub(super) fn hasten(&mut self, ctx: &mut Context) -> Flow {
        let waits = self.step == Step::Seen
            && self.delivery.as_ref().is_some_and(|delivery| delivery.sent == 0);
        if waits && ctx.setup.policy.broadcast != BroadcastPolicy::NotSelf {
            return self.send_it_ourselves(ctx);
        }
        Ok(())
    }

    fn send_it_ourselves(&mut self, ctx: &mut Context) -> Flow {
        let round = self.round()?;
        let (Some((_, tx)), Some(sums)) = (&ctx.signed, &self.sums) else {
            return Err(impossible("nothing was signed"));
        };
        let (transaction, sums) = (Box::new(tx.clone()), sums.clone());
        if let Some(delivery) = &mut self.delivery {
            // From here on somebody else may have it.
            (delivery.sent, delivery.pushed) = (delivery.sent.saturating_add(1), true);
        }
        self.wait(Step::Deliver, WALLET_TIMEOUT, ctx);
        ctx.ask(Purpose::Broadcast, Question::Broadcast { round, transaction, sums, send: true });
        Ok(())
    }
}
