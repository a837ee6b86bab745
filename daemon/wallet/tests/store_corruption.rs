//! Damage to the database directory: the wallet opens, no fact is lost, the damaged files are kept
//! (`spec/wallet.md` 15 item 7).

mod common;

use std::path::Path;

use common::{block, copy_tree, files, fold, names, open, outpoint, script};
use joinery_wallet::store::{Fact, Facts, FreezeOrigin};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn sample_facts() -> Vec<Fact> {
    let mut facts = vec![Fact::SyncedOnce];
    for n in 0..60u8 {
        facts.push(Fact::Issued { mixdepth: n % 5, branch: n % 2, next_unused: u32::from(n) });
        facts.push(Fact::Frozen {
            outpoint: outpoint(n),
            frozen: n % 3 != 0,
            by: FreezeOrigin::User,
            time: 1,
        });
        facts.push(Fact::Label { address: format!("bcrt1{n}"), label: format!("label {n}") });
    }
    facts
}

/// A store with facts, a snapshot, a log and statuses, closed.
fn template(dir: &Path) {
    let mut store = open(dir);
    store.load_chain().expect("loads");
    for facts in sample_facts().chunks(7) {
        store.record(facts).expect("records");
    }
    store.append_chain(&block(0), &[]).expect("appends");
    store.compact(&block(0)).expect("compacts");
    for n in 1..60u32 {
        let statuses: Vec<_> =
            (0..20).map(|i| (script(n * 20 + i), Some([n.to_le_bytes()[0]; 32]))).collect();
        store.append_chain(&block(n), &statuses).expect("appends");
    }
    store.commit().expect("commits");
}

/// Damages one or several files below `dir`; returns what was done.
fn damage(dir: &Path, rng: &mut StdRng) -> String {
    let mut done = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let mut all = files(dir);
        all.sort();
        let Some(file) = all.get(rng.random_range(0..all.len().max(1))) else { break };
        let mut bytes = std::fs::read(file).expect("reads");
        // sled writes segments far ahead; damage where the data is.
        let used = bytes.iter().rposition(|&b| b != 0).map_or(1, |at| at + 1);
        let what = match rng.random_range(0..6) {
            0 => {
                std::fs::remove_file(file).expect("removes");
                done.push(format!("removed {}", file.display()));
                continue;
            }
            1 => {
                bytes.truncate(rng.random_range(0..=used));
                "cut"
            }
            2 => {
                let at = rng.random_range(0..used);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
                "flipped"
            }
            3 => {
                let from = rng.random_range(0..used);
                let to = (from + rng.random_range(1..5000)).min(bytes.len());
                if let Some(part) = bytes.get_mut(from..to) {
                    rng.fill(part);
                }
                "overwrote"
            }
            4 => {
                let from = rng.random_range(0..used);
                let to = (from + rng.random_range(1..5000)).min(bytes.len());
                if let Some(part) = bytes.get_mut(from..to) {
                    part.fill(0);
                }
                "zeroed"
            }
            _ => {
                rng.fill(bytes.as_mut_slice());
                "randomised"
            }
        };
        std::fs::write(file, bytes).expect("writes");
        done.push(format!("{what} {}", file.display()));
    }
    done.join(", ")
}

fn silence_sled() {
    let standard = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Panics inside sled are what this test provokes.
        if !info.location().is_some_and(|at| at.file().contains("sled-")) {
            standard(info);
        }
    }));
}

/// Uses the whole interface, closes and reopens.
fn exercise(dir: &Path, expected: &Facts, case: &str) {
    let mut facts = expected.clone();
    {
        let mut store = open(dir);
        let (chain, statuses) = store.load_chain().expect("loads");
        // What is there is true: a status only together with its change.
        for (found, hash) in &statuses {
            let n = u32::from(hash[0]);
            let known = (0..20).any(|i| *found == script(n * 20 + i));
            assert!(known && chain.chain.blocks.contains_key(&n), "{case}: status of change {n}");
        }
        let heights: Vec<u32> = chain.chain.blocks.keys().copied().collect();
        assert!(
            heights.iter().copied().eq((0..60).take(heights.len())),
            "{case}: gap in the chain"
        );
        let fact = Fact::BondIssued { timenumber: 77 };
        store.record(std::slice::from_ref(&fact)).expect("records");
        facts.apply(&fact);
        store.append_chain(&block(1000), &[(script(1_000_000), Some([5; 32]))]).expect("appends");
        store.commit().expect("commits");
        store.compact(&chain).expect("compacts");
    }
    let mut store = open(dir);
    assert_eq!(store.facts(), &facts, "{case}");
    let (_, statuses) = store.load_chain().expect("loads");
    assert!(statuses.contains_key(&script(1_000_000)), "{case}");
}

fn without_loss(facts: &Facts) -> Facts {
    Facts { state_lost: false, ..facts.clone() }
}

#[test]
fn damaged_database_never_loses_a_fact_and_is_kept() {
    silence_sled();
    let source = tempfile::tempdir().expect("temp dir");
    template(source.path());
    let facts = fold(&sample_facts());
    let (mut rebuilt, mut healed) = (0, 0);
    for seed in 0..cases() {
        let dir = tempfile::tempdir().expect("temp dir");
        copy_tree(source.path(), dir.path());
        let done = damage(&dir.path().join(".w.jmdat.db"), &mut StdRng::seed_from_u64(seed));
        let case = format!("seed {seed}: {done}");
        {
            let store = open(dir.path());
            assert_eq!(without_loss(store.facts()), facts, "{case}");
            let aside = names(dir.path()).iter().any(|name| name.contains(".db.corrupt-"));
            if aside {
                rebuilt += 1;
                assert!(store.recovered_from_loss(), "{case}");
            } else {
                healed += 1;
            }
        }
        let lost = open(dir.path()).facts().clone();
        exercise(dir.path(), &lost, &case);
    }
    assert!(rebuilt > healed / 50 && healed > 0, "{rebuilt} rebuilt, {healed} healed by sled");
}

#[test]
fn damage_anywhere_leaves_a_wallet_that_opens() {
    silence_sled();
    let source = tempfile::tempdir().expect("temp dir");
    template(source.path());
    let facts = fold(&sample_facts());
    for seed in 0..cases() / 2 {
        let dir = tempfile::tempdir().expect("temp dir");
        copy_tree(source.path(), dir.path());
        let mut rng = StdRng::seed_from_u64(seed ^ 0xdead_0000);
        // One of the three at a time: the other two must make up for it.
        let target = match seed % 3 {
            0 => ".w.jmdat.journal",
            1 => ".w.jmdat.chain",
            _ => ".w.jmdat.db",
        };
        let sole = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(target);
        let inside = sole.path().join(target);
        std::fs::rename(&path, &inside).expect("same file system");
        let done = damage(sole.path(), &mut rng);
        if inside.exists() {
            std::fs::rename(&inside, &path).expect("same file system");
        }
        let case = format!("seed {seed}: {done}");
        let lost = {
            let store = open(dir.path());
            assert_eq!(without_loss(store.facts()), facts, "{case}");
            store.facts().clone()
        };
        exercise(dir.path(), &lost, &case);
    }
}

/// Seeded cases; more for a soak run.
fn cases() -> u64 {
    std::env::var("STORE_CORRUPTION_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}
