//! The maker against scripted takers, with a wallet and a chain that the test holds in its hands.
//!
//! # Known failures of other makers, and their tests
//!
//! `spec/roles.md` 11.2:
//!
//! | row | test |
//! |---|---|
//! | M1 | `offers::maker_knows_whether_it_can_be_found`; listener and service are the channel's (`net::onion`) |
//! | M2 | `offers::start_that_cannot_work_says_why`, `offers::frozen_unconfirmed_and_bonded_coins_are_no_coins` |
//! | M3 | `offers::no_offer_near_the_minimum_and_the_maker_goes_on` |
//! | M4 | `offers::offer_update_quantised_and_delayed` |
//! | M5 | `offers::exact_offer_is_the_references_and_can_be_filled`, `offers::randomised_offers_stay_within_their_factors_and_can_be_filled`, `offers::most_inputs_bound_what_is_offered` |
//! | M6 | `defects::loss_by_a_small_amount_with_a_share_of_the_miner_fee_is_refused` |
//! | M7 | `offers::certificate_is_renewed_before_the_boundary_and_the_nick_stays` |
//! | M8, M9 | `offers::frozen_unconfirmed_and_bonded_coins_are_no_coins`: derived from the script, nothing is frozen |
//! | M10 | `rounds::utxo_lease_exclusive` |
//! | M11 | `stories::second_auth_shows_nothing_more`, `rounds::gap_is_not_inflated_by_one_taker`, `stories::liar_is_not_talked_to_after_three_lies`, `stories::used_commitment_is_refused_and_one_more_maker_hears_of_it` |
//! | M12 | `stories::transaction_below_the_relay_rate_is_refused_when_its_inputs_are_known`; giving up is the wallet's |
//! | M13 | `maker::replies` in the crate, `offers::orderbook_request_is_answered_in_private_for_each_offer` |
//! | M14 | `defects::malformed_messages_of_every_kind_do_nothing`, fuzz targets |
//! | M15 | `defects::podle_blacklist_is_over_bytes` |
//! | M16 | `offers::hp2_priority_own_first` |
//! | M17 | `maker::statement` in the crate; rows are written from the wallet's rounds, without a time limit |
//! | M18 | `offers::small_changes_are_not_told`, `offers::offer_update_quantised_and_delayed`, `offers::running_sessions_do_not_show_in_the_announced_size` |
//! | M19 | `offers::md0_single_input` |
//! | M20 | not of the machine: unlocking is the daemon's and the board's |
//! | M21 | not of the machine: `channel` tests (`econnreset_backoff`) |
//! | M22 | `stories::each_bad_commitment_has_its_reason_and_is_not_used_up`, `stories::chain_that_cannot_be_asked_is_never_the_takers_fault` |
//!
//! `spec/defects.md` 1, rows that touch a maker: 1, 3, 5, 11, 14, 16, 20, 36 in [`defects`]; 13, 29, 30 in [`offers`];
//! 15 and 40 in [`rounds`]; 21 and 34 in `rounds::killed_at_each_step_nothing_is_lost_and_nothing_used_twice`; 37 in
//! `offers::start_that_cannot_work_says_why`; 7, 8, 10, 31, 32 and 42 in `joinery-proto`; 12 in the tests of the channel. Rows
//! 2, 4, 6, 9, 17, 18 and 45 are a taker's, the others are of wallet, API and daemon.

#![allow(clippy::unwrap_used)] // the stage and its takers are test code, too

mod chaos;
mod defects;
mod offers;
mod recorded;
mod rounds;
mod stage;
mod stories;
