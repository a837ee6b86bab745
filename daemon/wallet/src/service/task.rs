//! The loop of the wallet task, on a thread of its own: the store blocks.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use secrecy::SecretString;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::command::{BegunRound, Command, Outcome, Reply};
use super::state::State;
use crate::chain::WatchEvent;
use crate::directory::OpenedKeys;

/// News that are taken together before the snapshot is rebuilt.
const EVENTS_AT_ONCE: usize = 64;

/// Starts the task. If it panics, the wallet is closed: the panic is logged, waiting callers and all
/// later ones are told that it is closed.
pub(super) fn spawn(
    state: State,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Receiver<WatchEvent>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Chain backends may start tasks of their own when they are asked something.
    let outside = Handle::try_current().ok();
    thread::Builder::new().name("wallet".to_owned()).spawn(move || {
        let run = AssertUnwindSafe(|| {
            let closing = runtime.block_on(run(state, commands, events, outside));
            // Ends resending; only then everything of the wallet is let go.
            drop(runtime);
            closing
        });
        match catch_unwind(run) {
            Ok(Some(closed)) => {
                // An error means that whoever asked has gone away.
                let _ = closed.send(());
            }
            Ok(None) => {}
            Err(_) => tracing::error!("the wallet task panicked; the wallet is closed"),
        }
    })?;
    Ok(())
}

async fn run(
    mut state: State,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut events: mpsc::Receiver<WatchEvent>,
    outside: Option<Handle>,
) -> Option<oneshot::Sender<()>> {
    state.outside = outside;
    let mut engine_lives = true;
    let closing = loop {
        let deadline = state.deadline();
        tokio::select! {
            command = commands.recv() => match command {
                // Every handle is gone.
                None => break None,
                Some(Command::Close { reply }) => break Some(reply),
                Some(command) => state.command(command),
            },
            event = events.recv(), if engine_lives => match event {
                Some(event) => {
                    state.event(event);
                    for _ in 1..EVENTS_AT_ONCE {
                        let Ok(event) = events.try_recv() else { break };
                        state.event(event);
                    }
                    state.refresh_if_due();
                    state.send_again_on_block();
                }
                None => {
                    // Ordinary when another wallet is opened in place of this one.
                    tracing::info!("the chain backend watches for this wallet no more");
                    engine_lives = false;
                }
            },
            () = sleep_until(deadline.map_or_else(Instant::now, Instant::from_std)),
                if deadline.is_some() => state.tick(),
        }
    };
    // No command may be answered by a wallet that is half closed.
    drop(commands);
    drop(events);
    state.shut_down();
    closing
}

/// Sends an answer; whoever asked may have gone away.
fn answer<T, E>(reply: Reply<T, E>, result: Result<T, E>) {
    let _ = reply.send(result);
}

impl State {
    fn command(&mut self, command: Command) {
        match command {
            Command::IssueAddress { mixdepth, branch, reply } => {
                answer(reply, self.issue_address(mixdepth, branch));
            }
            Command::BondAddress { timenumber, reply } => {
                answer(reply, self.bond_address(timenumber));
            }
            Command::SetFrozen { changes, reply } => answer(reply, self.set_frozen(&changes)),
            Command::SetLabel { address, label, reply } => {
                answer(reply, self.set_label(&address, &label));
            }
            Command::Prepare { request, rate, reply } => {
                if let Err(Ok(unsent)) = reply.send(self.prepare(&request, rate)) {
                    // The sender is gone, so nothing left the machine and nothing will.
                    self.sent(unsent.txid, Outcome::Rejected, true);
                }
            }
            Command::Sent { txid, outcome, first, reply } => {
                self.sent(txid, outcome, first);
                if let Some(reply) = reply {
                    let _ = reply.send(());
                }
            }
            Command::SignMessage { path, message, reply } => {
                answer(reply, self.sign_message(&path, &message));
            }
            Command::Rescan { gap, reply } => {
                self.rescan(gap);
                answer(reply, Ok(()));
            }
            Command::Seed { reply } => {
                let seed = self
                    .check_full()
                    .map(|()| (self.keys.phrase(), self.keys.extension().map(SecretString::from)));
                answer(reply, seed);
            }
            Command::VerifyPassword { password, reply } => self.verify_password(password, reply),
            Command::AllowEverything { reply } => answer(reply, self.allow_everything()),
            Command::Seal { key, note, reply } => {
                self.with_keys(reply, move |keys| keys.seal(&key, &note));
            }
            Command::ChangePassword { current, new, reply } => {
                self.with_keys(reply, move |keys| keys.change_password(&current, &new));
            }
            Command::Close { reply } => drop(reply),
            command => self.round_command(command),
        }
    }

    fn round_command(&mut self, command: Command) {
        match command {
            Command::BeginRound { begin, reply } => {
                let begun = self.begin_round(*begin);
                answer(reply, begun.map(|id| BegunRound::new(id, id, self.commands.clone())));
            }
            Command::OpenRound { round, reply } => {
                let opened = self.open_round(&round);
                let commands = self.commands.clone();
                answer(reply, opened.map(|round| BegunRound::new(round.id, round, commands)));
            }
            Command::RevealRound { round, commitment, session, coin, reply } => {
                answer(reply, self.reveal_round(round, commitment, &session, coin));
            }
            Command::SignRound { round, transaction, time, reply } => {
                answer(reply, self.sign_round(round, *transaction, time));
            }
            Command::Reserve { round, outpoints, reply } => {
                answer(reply, self.reserve(round, outpoints));
            }
            Command::RecordRound { round, event, reply } => {
                answer(reply, self.record_round(round, *event));
            }
            Command::CoinjoinCoins { round, outpoints, reply } => {
                answer(reply, self.coinjoin_coins(round, &outpoints));
            }
            Command::EndRound { round, end, reply } => answer(reply, self.end_round(round, end)),
            Command::KeepTransaction { round, transaction, sums, send, reply } => {
                answer(reply, self.keep_transaction(round, &transaction, *sums, send));
            }
            Command::TakeTransaction { round, reply } => {
                if let Err(Ok(Some((txid, _)))) = reply.send(self.take_round_transaction(round)) {
                    // Durable and not sent: it is sent with the others that nobody has listed.
                    self.sent(txid, Outcome::Unknown, true);
                }
            }
            Command::CertifyBond { outpoint, cert_key, expiry, reply } => {
                answer(reply, self.certify_bond(outpoint, &cert_key, expiry));
            }
            other => tracing::error!(?other, "a command that nobody carries out"),
        }
    }

    fn verify_password(&mut self, password: SecretString, reply: Reply<bool>) {
        self.with_keys(reply, move |keys| Ok(keys.verify_password(&password)));
    }

    /// Derives keys from passwords on a thread of its own: the wallet must not stand still meanwhile.
    fn with_keys<T: Send + 'static, E: Send + 'static>(
        &mut self,
        reply: Reply<T, E>,
        work: impl FnOnce(&OpenedKeys) -> Result<T, E> + Send + 'static,
    ) {
        self.checks.retain(|check| !check.is_finished());
        let keys = self.keys.clone();
        let check = thread::Builder::new().name("password".to_owned()).spawn(move || {
            let outcome = work(&keys);
            drop(keys);
            answer(reply, outcome);
        });
        match check {
            Ok(check) => self.checks.push(check),
            // The reply is dropped with the closure: the caller hears "closed".
            Err(error) => tracing::error!(%error, "no thread for working with a password"),
        }
    }
}
