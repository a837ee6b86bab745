//! Our takers and our makers together, with the chain and the wallets of `market_sim`: whole coinjoins in which nobody is
//! scripted, several takers at once, messages that are lost, makers that are killed and come back.
//!
//! A failing seed is printed; `JOINERY_SEED=N` plays only that one. The same seed gives the same history.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests, where a panic is the report and a seed is printed

#[allow(dead_code)] // shared with another test, which uses all of it
#[path = "../market_sim/chain.rs"]
mod chain;
#[allow(dead_code)] // as above
#[path = "../market_sim/wallet.rs"]
mod wallet;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use joinery_roles::taker::Reason;
use rand::Rng;

use world::{Plan, World};

/// Runs a check for many seeds; a failure names its seed.
fn for_seeds(count: u64, mut check: impl FnMut(u64)) {
    let chosen = std::env::var("JOINERY_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = chosen.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed)));
        if let Err(panic) = outcome {
            println!("failed with JOINERY_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn one_taker_and_four_makers_make_a_coinjoin_and_everybody_gets_what_was_agreed() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed, &Plan { makers: 4, ..Plan::default() });
        world.request(0, 1_000_000, 4);
        world.run();
        assert_eq!(world.reason(0), Some(Reason::Complete), "{:?}", world.trace);
        let tx = world.chain.transactions.values().next().unwrap();
        let equal = tx.output.iter().filter(|output| output.value.to_sat() == 1_000_000).count();
        assert_eq!(equal, 5);
        assert_eq!(world.signed(), 4);
    });
}

#[test]
fn sweep_leaves_no_change() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed, &Plan { makers: 4, ..Plan::default() });
        world.request(0, 0, 4);
        world.run();
        assert_eq!(world.reason(0), Some(Reason::Complete), "{:?}", world.trace);
        let tx = world.chain.transactions.values().next().unwrap();
        assert_eq!(tx.output.len(), 9, "five equal ones and the change of four makers");
    });
}

#[test]
fn two_takers_at_once_never_get_the_same_coin_of_a_maker() {
    let mut complete = 0;
    for_seeds(30, |seed| {
        let mut world = World::new(seed, &Plan { makers: 10, takers: 2, ..Plan::default() });
        world.request(0, 900_000, 4);
        world.request(1, 1_100_000, 4);
        world.run();
        complete += (0..2).filter(|i| world.reason(*i) == Some(Reason::Complete)).count();
        assert!(!world.trace.iter().any(|line| line.contains("conflict")), "{:?}", world.trace);
    });
    if std::env::var("JOINERY_SEED").is_err() {
        assert!(complete >= 58, "{complete} of 60");
    }
}

#[test]
fn lost_messages_and_makers_that_are_killed_do_not_harm_anybody() {
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    let mut kills = 0;
    for_seeds(120, |seed| {
        let plan = Plan { makers: 14, takers: 2, loss: 0.03, kills: 0.02 };
        let mut world = World::new(seed, &plan);
        let sweep = world.rng.random_bool(0.3);
        world.request(0, if sweep { 0 } else { 800_000 }, 4);
        world.pass(Duration::from_secs(3));
        world.request(1, 1_000_000, 5);
        world.run();
        kills += world.kills;
        for taker in 0..2 {
            *reasons.entry(world.reason(taker).unwrap().code()).or_default() += 1;
        }
    });
    println!("{reasons:?}, {kills} kills");
    if std::env::var("JOINERY_SEED").is_err() {
        let complete = reasons.get(Reason::Complete.code()).copied().unwrap_or_default();
        assert!(complete >= 228, "{complete} of 240: {reasons:?}");
        assert!(kills >= 200, "{kills} kills");
    }
}

#[test]
fn makers_that_stop_finish_what_they_showed() {
    for_seeds(30, |seed| {
        let mut world = World::new(seed, &Plan { makers: 8, ..Plan::default() });
        world.request(0, 1_000_000, 4);
        let wait = Duration::from_millis(world.rng.random_range(0..6_000));
        world.pass(wait);
        world.stop_maker(0);
        world.stop_maker(1);
        world.run();
        assert_eq!(world.reason(0), Some(Reason::Complete), "{:?}", world.trace);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let plan = Plan { makers: 10, takers: 2, loss: 0.05, kills: 0.02 };
        let mut world = World::new(seed, &plan);
        world.request(0, 900_000, 4);
        world.request(1, 1_000_000, 4);
        world.run();
        (world.trace.clone(), world.now)
    };
    assert_eq!(history(5), history(5));
    assert_ne!(history(5).0, history(6).0);
}
