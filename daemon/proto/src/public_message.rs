//! Public messages: offers, cancellations, requests and used commitments (`spec/protocol.md` 6.1, 6.2;
//! vectors `commands.json`, `offers.json`).

use crate::line::COMMAND_PREFIX;
use crate::offer::{Offer, OfferId, OrderType};
use crate::podle::Commitment;

/// Most commands of one message that are looked at: more than any maker has offers.
pub const MAX_COMMANDS: usize = 64;

/// One command of a public message. The sender is not proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicCommand {
    /// A taker asks every maker for its offers.
    Orderbook,
    /// A maker adds or replaces an offer.
    Offer(Offer),
    /// A maker tried to replace this offer by one that is not acceptable: the old one is gone.
    BadOffer(OfferId),
    /// A maker withdraws an offer.
    Cancel(OfferId),
    /// A commitment that was used.
    CommitmentSeen(Commitment),
}

/// Parses the text of a public message, without its leading `!`.
///
/// Unknown and malformed commands are left out, as the protocol asks for. A message that repeats
/// `orderbook` is ignored as a whole; a bad `cancel` ends it. `tbond` is never accepted in public: a bond
/// proof is bound to one taker (`no_tbond_in_pubmsg`).
#[must_use]
pub fn parse(text: &str) -> Vec<PublicCommand> {
    let commands = || text.split(COMMAND_PREFIX).take(MAX_COMMANDS);
    if commands().filter(|command| *command == "orderbook").count() > 1 {
        return Vec::new();
    }
    let mut parsed = Vec::new();
    for command in commands() {
        let (word, fields) = command.split_once(' ').unwrap_or((command, ""));
        match word {
            "orderbook" => parsed.push(PublicCommand::Orderbook),
            "cancel" => {
                let Ok(id) = first(fields).parse() else { break };
                parsed.push(PublicCommand::Cancel(id));
            }
            "hp2" => parsed.extend(
                Commitment::from_hex(first(fields)).ok().map(PublicCommand::CommitmentSeen),
            ),
            word => {
                let Some(order_type) = OrderType::parse(word) else { continue };
                match Offer::parse(order_type, fields) {
                    Ok(offer) => parsed.push(PublicCommand::Offer(offer)),
                    Err(_) => {
                        parsed.extend(first(fields).parse().ok().map(PublicCommand::BadOffer));
                    }
                }
            }
        }
    }
    parsed
}

fn first(fields: &str) -> &str {
    fields.split(' ').next().unwrap_or_default()
}

/// Text of an announcement of one offer, without the leading `!`. Reference makers send one message per
/// offer on the onion channel; so do we.
#[must_use]
pub fn announce(offer: &Offer) -> String {
    offer.to_string()
}

/// Text that withdraws offers, without the leading `!`: `cancel 0!cancel 3`.
#[must_use]
pub fn cancel(ids: &[OfferId]) -> String {
    ids.iter().map(|id| format!("cancel {id}")).collect::<Vec<_>>().join("!")
}

/// Text that publishes a used commitment, without the leading `!`.
#[must_use]
pub fn publish_commitment(commitment: &Commitment) -> String {
    format!("hp2 {commitment}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PublicCommand, parse};

    #[test]
    fn no_tbond_in_pubmsg() {
        let commands = parse("sw0reloffer 0 100000 5000000000 0 0.00002!tbond QUJD");
        assert_eq!(commands.len(), 1);
        assert!(matches!(commands.first(), Some(PublicCommand::Offer(_))));
    }

    #[test]
    fn commands_of_one_message_are_bounded() {
        let text = vec!["cancel 1"; 1_000].join("!");
        assert_eq!(parse(&text).len(), super::MAX_COMMANDS);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,300}") {
            let _ = parse(&text);
        }
    }
}
