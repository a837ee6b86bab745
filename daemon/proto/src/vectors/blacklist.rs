//! `commitment_blacklist.json`.

use serde::Deserialize;

use crate::blacklist::CommitmentBlacklist;
use crate::podle::Commitment;

#[derive(Deserialize)]
struct File {
    sequence_reference: Vec<Step>,
    format_rule_second_implementation: Vec<Format>,
}

#[derive(Deserialize)]
struct Step {
    step: String,
    commitment: String,
    persist: bool,
    expected: String,
}

#[derive(Deserialize)]
struct Format {
    commitment: String,
    second_implementation_valid: bool,
}

#[test]
fn reuse_is_refused_in_every_spelling() {
    let file: File = super::load("commitment_blacklist");
    let mut list = CommitmentBlacklist::default();
    for step in &file.sequence_reference {
        let outcome = match Commitment::from_hex(&step.commitment) {
            Err(_) => "invalid_format",
            Ok(commitment) if list.refuses(&commitment) => "blacklisted",
            Ok(commitment) => {
                if step.persist {
                    list.use_up(commitment);
                }
                "accepted"
            }
        };
        // Two spellings that the reference reads: white space inside, and short values. Exactly 64
        // digits are taken here.
        let stricter = step.commitment.len() != 64;
        let expected = if stricter { "invalid_format" } else { step.expected.as_str() };
        assert_eq!(outcome, expected, "{}", step.step);
    }
}

#[test]
fn format_is_that_of_the_second_implementation() {
    let file: File = super::load("commitment_blacklist");
    for case in &file.format_rule_second_implementation {
        let valid = Commitment::from_hex(&case.commitment).is_ok();
        assert_eq!(valid, case.second_implementation_valid, "{:?}", case.commitment);
    }
}
