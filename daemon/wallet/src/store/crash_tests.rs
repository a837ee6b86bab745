//! Power cuts and failures at every operation, and every kind of damage to every byte
//! (`spec/defects.md` rows 21 and 34).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};

use super::disk::{Disk, read_range, replace};
use super::durable::DurableStore;
use super::journal::{self, Condition, Journal};
use super::seal::Keys;
use super::sim_disk::{Fault, SimDisk};
use super::snapshot_file::{self, Loaded};
use super::{ChainData, Fact, Facts, Store, StorePaths};
use crate::round::{Agreed, RoundBegin, RoundEnd, RoundEvent, RoundRole, RoundSums};

const PATH: &str = "/w.journal";

fn keys() -> Arc<Keys> {
    Arc::new(Keys::derive(&[9; 32]))
}

fn paths(directory: &Path) -> StorePaths {
    StorePaths {
        db: directory.join("db"),
        journal: directory.join("journal"),
        snapshot: directory.join("chain"),
    }
}

fn month(n: u16) -> Fact {
    Fact::BondIssued { timenumber: n }
}

/// Reads the journal and continues it, as the store does when the database knows nothing.
fn reopen(disk: &SimDisk) -> (Journal, Facts, Condition) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut reading = journal::read(disk, Path::new(PATH), &keys()).expect("reading never fails");
    let mut facts = Facts::default();
    for record in &reading.records {
        record.facts.iter().for_each(|fact| facts.apply(fact));
    }
    let condition = reading.condition;
    let journal = if condition == Condition::Damaged {
        let next = reading.last_number() + 1;
        Journal::replace(shared, Path::new(PATH), keys(), &reading, next, &facts)
    } else {
        Journal::resume(shared, Path::new(PATH), keys(), &mut reading)
    };
    (journal.expect("the disk works again"), facts, condition)
}

/// Records months 0 to 11, rotating twice. Returns what was acknowledged.
fn run(journal: &mut Journal, facts: &mut Facts) -> BTreeSet<u16> {
    let mut acknowledged = BTreeSet::new();
    for n in 0..12 {
        if journal.append(&[month(n)], facts).is_ok() {
            facts.apply(&month(n));
            acknowledged.insert(n);
        }
        if n % 5 == 3 {
            // A failure changes nothing; the next append tells.
            let _ = journal.rotate(facts);
        }
    }
    acknowledged
}

#[test]
fn crash_at_every_write() {
    for fault in [Fault::Once, Fault::PowerCut] {
        for at in 0.. {
            let mut happened = false;
            for seed in 0..25 {
                let disk = SimDisk::new(seed);
                let (mut journal, mut facts, _) = reopen(&disk);
                disk.break_at(at, fault);
                let acknowledged = run(&mut journal, &mut facts);
                happened |= disk.broke();
                drop(journal);
                disk.restart();
                let (mut journal, mut found, _) = reopen(&disk);
                let case = format!("{fault:?} at operation {at}, seed {seed}");
                assert!(found.bonds.is_superset(&acknowledged), "{case}: {found:?}");
                // At most the one that was being written may be there unacknowledged.
                assert!(found.bonds.len() <= acknowledged.len() + 1, "{case}");
                if fault == Fault::Once {
                    assert!(acknowledged.len() >= 11, "{case}: did not recover");
                }
                // It goes on, and what it then acknowledges lasts.
                journal.append(&[month(900)], &found).expect("the disk works again");
                found.apply(&month(900));
                drop(journal);
                disk.restart();
                assert_eq!(reopen(&disk).1, found, "{case}");
            }
            if !happened {
                assert!(at > 30, "only {at} operations: the test lost its subject");
                break;
            }
        }
    }
}

#[test]
fn snapshot_file_is_old_or_new_after_a_crash_at_every_write() {
    let path = Path::new("/w.chain");
    let chain = |height: u32| {
        let mut data = ChainData::default();
        for h in 0..4000 {
            data.chain.blocks.insert(h, Some(BlockHash::from_byte_array([7; 32])));
        }
        data.chain.blocks.insert(height, None);
        data
    };
    for at in 0.. {
        let mut happened = false;
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            snapshot_file::write(&disk, path, &keys(), 1, &chain(5000)).expect("works");
            disk.break_at(at, Fault::PowerCut);
            let done = snapshot_file::write(&disk, path, &keys(), 2, &chain(6000)).is_ok();
            happened |= disk.broke();
            disk.restart();
            match snapshot_file::load(&disk, path, &keys()).expect("reads") {
                Loaded::Data { through: 2, chain: found, .. } => assert_eq!(*found, chain(6000)),
                Loaded::Data { through: 1, chain: found, .. } if !done => {
                    assert_eq!(*found, chain(5000));
                }
                other => panic!("operation {at}, seed {seed}: {other:?}"),
            }
        }
        if !happened {
            assert!(at > 5, "only {at} operations: the test lost its subject");
            break;
        }
    }
}

/// Key files are replaced this way when their password changes: with the old or the new one, the wallet
/// must open.
#[test]
fn key_file_is_old_or_new_after_a_crash_at_every_write() {
    let (temporary, target) = (Path::new("/.w.jmdat.tmp"), Path::new("/w.jmdat"));
    let (old, new) = ([1_u8; 900], [2_u8; 1100]);
    for at in 0.. {
        let mut happened = false;
        for seed in 0..40 {
            for fault in [Fault::PowerCut, Fault::Once] {
                let disk = SimDisk::new(seed);
                replace(&disk, temporary, target, &old).expect("works");
                disk.break_at(at, fault);
                let done = replace(&disk, temporary, target, &new).is_ok();
                happened |= disk.broke();
                disk.restart();
                let file = disk.open(target).expect("opens").expect("a wallet file never vanishes");
                let found = read_range(file.as_ref(), 0, 1 << 20).expect("reads");
                assert!(found == new || (!done && found == old), "operation {at}, seed {seed}");
                // A temporary file that was left behind is in nobody's way.
                replace(&disk, temporary, target, &new).expect("works again");
            }
        }
        if !happened {
            assert_eq!(at, 5, "create, write, sync, rename, sync of the directory");
            break;
        }
    }
}

/// A journal of a rotated part and single records, as bytes.
fn sample() -> (Vec<u8>, Facts) {
    let disk = SimDisk::new(1);
    let (mut journal, mut facts, _) = reopen(&disk);
    for n in 0..16 {
        let record = [month(n), Fact::Label { address: format!("a{n}"), label: "l".into() }];
        journal.append(&record, &facts).expect("works");
        record.iter().for_each(|fact| facts.apply(fact));
        if n == 5 {
            journal.rotate(&facts).expect("works");
        }
    }
    (contents(&disk), facts)
}

fn contents(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(Path::new(PATH)).expect("opens").expect("exists");
    read_range(file.as_ref(), 0, 1 << 20).expect("reads")
}

fn disk_with(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(0);
    disk.create(Path::new(PATH)).and_then(|mut f| f.write_all_at(bytes, 0)).expect("works");
    disk
}

#[test]
fn journal_cut_at_any_byte_keeps_every_whole_record() {
    let (bytes, facts) = sample();
    let mut last = 0;
    for len in 0..=bytes.len() {
        let (_, found, condition) = reopen(&disk_with(&bytes[..len]));
        assert!(found.bonds.len() >= last, "cut at {len}");
        assert!(found.bonds.is_subset(&facts.bonds), "cut at {len}");
        // Months come in order, so what is there must be the first ones.
        assert!(found.bonds.iter().copied().eq((0..16).take(found.bonds.len())), "cut at {len}");
        if found.bonds.len() < 6 {
            assert_eq!(condition, Condition::Damaged, "cut at {len} of the synced part");
        } else {
            assert_eq!(condition, Condition::Sound, "cut at {len}");
        }
        last = found.bonds.len();
    }
    assert_eq!(last, 16);
}

#[test]
fn journal_with_any_byte_changed_keeps_every_other_record_and_says_so() {
    let (bytes, facts) = sample();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            let disk = disk_with(&changed);
            let (_, found, condition) = reopen(&disk);
            assert_eq!(condition, Condition::Damaged, "byte {at}");
            let missing = facts.bonds.difference(&found.bonds).count();
            // One record: the compact one holds six months.
            assert!(missing <= 6, "byte {at}: {missing} records lost");
            // Repaired: sound from now on, with the same content.
            let (_, again, condition) = reopen(&disk);
            assert_eq!(condition, Condition::Sound, "byte {at}");
            assert_eq!(again, found, "byte {at}");
        }
    }
}

#[test]
fn records_cannot_be_dropped_swapped_or_repeated_unnoticed() {
    let (bytes, facts) = sample();
    let mut bounds = vec![44];
    while let Some(raw) = bytes.get(bounds[bounds.len() - 1]..).filter(|rest| !rest.is_empty()) {
        let length = u32::from_le_bytes(raw[..4].try_into().expect("four bytes")) as usize;
        bounds.push(bounds[bounds.len() - 1] + 20 + length);
    }
    let record = |i: usize| &bytes[bounds[i]..bounds[i + 1]];
    let count = bounds.len() - 1;
    assert_eq!(count, 11, "one compact record and ten single ones");
    let build = |order: &[usize]| {
        let mut out = bytes[..44].to_vec();
        order.iter().for_each(|&i| out.extend_from_slice(record(i)));
        out
    };
    for i in 0..count - 1 {
        let dropped: Vec<usize> = (0..count).filter(|&n| n != i).collect();
        let mut swapped: Vec<usize> = (0..count).collect();
        swapped.swap(i, i + 1);
        let mut repeated: Vec<usize> = (0..count).collect();
        repeated.insert(i + 1, i);
        for order in [dropped, swapped, repeated] {
            let (_, found, condition) = reopen(&disk_with(&build(&order)));
            assert_eq!(condition, Condition::Damaged, "{order:?}");
            assert!(found.bonds.is_subset(&facts.bonds), "{order:?}");
        }
    }
}

#[test]
fn snapshot_file_with_any_damage_is_refused() {
    let path = Path::new("/w.chain");
    let disk = SimDisk::new(0);
    let mut data = ChainData::default();
    for h in 0..2500 {
        data.chain.blocks.insert(h, Some(BlockHash::from_byte_array([7; 32])));
    }
    snapshot_file::write(&disk, path, &keys(), 1, &data).expect("works");
    let file = disk.open(path).expect("opens").expect("exists");
    let bytes = read_range(file.as_ref(), 0, 1 << 20).expect("reads");
    assert!(bytes.len() > 70_000, "more than one chunk");
    let put = |bytes: &[u8]| {
        let disk = SimDisk::new(0);
        disk.create(path).and_then(|mut f| f.write_all_at(bytes, 0)).expect("works");
        snapshot_file::load(&disk, path, &keys()).expect("reads")
    };
    for at in (0..bytes.len()).step_by(997).chain(0..60).chain(bytes.len() - 40..bytes.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        assert!(matches!(put(&changed), Loaded::Damaged), "byte {at}");
        assert!(matches!(put(&bytes[..at]), Loaded::Damaged), "length {at}");
    }
    assert!(matches!(put(&[&bytes[..], &[0]].concat()), Loaded::Damaged));
    assert!(matches!(put(&bytes), Loaded::Data { .. }));
}

#[test]
fn address_issued_once_across_crash() {
    // Issues addresses through the whole store; whatever was told to anybody is never told again.
    for at in 0..40 {
        let dir = tempfile::tempdir().expect("temp dir");
        let paths = paths(dir.path());
        let disk = SimDisk::new(at);
        let mut told = BTreeSet::new();
        for life in 0..3 {
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut store =
                DurableStore::open(&paths, &[9; 32], shared).expect("the disk works again");
            disk.break_at(usize::try_from(at).expect("small") % 13 + life, Fault::PowerCut);
            loop {
                let next = store.facts().issued.get(&(0, 0)).copied().unwrap_or_default();
                let fact = Fact::Issued { mixdepth: 0, branch: 0, next_unused: next + 1 };
                if store.record(&[fact]).is_err() {
                    break;
                }
                assert!(told.insert(next), "index {next} told twice, case {at}");
                if next % 4 == 1 {
                    let _ = store.compact(&ChainData::default());
                }
            }
            drop(store);
            disk.restart();
        }
        assert!(!told.is_empty() || at == 0, "case {at} told nothing");
    }
}

/// What is noted counts from the next record on, in one piece with it, whatever fails or ends in between, and in both copies.
#[test]
fn what_is_noted_is_durable_with_the_next_record() {
    let index = |facts: &Facts| facts.issued.get(&(0, 0)).copied().unwrap_or_default();
    let issued = |next_unused| Fact::Issued { mixdepth: 0, branch: 0, next_unused };
    let (mut recorded, mut refused, mut lost, mut kept) = (0, 0, 0, 0);
    for fault in [Fault::Once, Fault::PowerCut] {
        for at in 0..60 {
            let dir = tempfile::tempdir().expect("temp dir");
            let paths = paths(dir.path());
            let disk = SimDisk::new(at);
            let open = || {
                let shared: Arc<dyn Disk> = Arc::new(disk.clone());
                DurableStore::open(&paths, &[9; 32], shared).expect("the disk works again")
            };
            let mut store = open();
            disk.break_at(usize::try_from(at).expect("small") % 30, fault);
            let mut acknowledged = 0;
            for n in 1..14 {
                store.note(&[issued(u32::from(n))]);
                assert_eq!(index(store.facts()), u32::from(n), "readers see it at once");
                if n % 4 == 2 {
                    let _ = store.compact(&ChainData::default());
                }
                if store.record(&[month(n)]).is_ok() {
                    (acknowledged, recorded) = (n, recorded + 1);
                } else {
                    refused += 1;
                }
            }
            // Dropped while the power goes: whole or not at all.
            store.note(&[issued(100), month(100)]);
            disk.break_at(0, Fault::PowerCut);
            drop(store);
            disk.restart();
            let store = open();
            assert_eq!(index(store.facts()) == 100, store.facts().bonds.contains(&100));
            let (bonds, next) = (store.facts().bonds.clone(), index(store.facts()));
            let case = format!("{fault:?} at operation {at}");
            assert!(acknowledged == 0 || bonds.contains(&acknowledged), "{case}");
            // A month never comes without what was noted before it.
            assert!(bonds.last().is_none_or(|&last| next >= u32::from(last)), "{case}: {next}");
            if bonds.contains(&13) {
                kept += 1;
            } else {
                lost += 1;
            }
            drop(store);
            // The copy in the database has it, too.
            disk.rename(&paths.journal, Path::new("/gone")).expect("works");
            let store = open();
            assert!(store.recovered_from_loss(), "{case}");
            if bonds.contains(&13) {
                assert_eq!(index(store.facts()), next, "{case}");
            }
        }
    }
    assert!(
        recorded > 500 && refused > 100 && lost > 20 && kept > 50,
        "{recorded} {refused} {lost} {kept}"
    );
}

#[test]
fn what_is_noted_is_written_when_the_store_is_closed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let paths = paths(dir.path());
    let disk = SimDisk::new(0);
    let open = || {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        DurableStore::open(&paths, &[9; 32], shared).expect("works")
    };
    open().note(&[month(7)]);
    disk.restart();
    assert!(open().facts().bonds.contains(&7));
}

/// A disk that is full for long must not leave a record that no file takes.
#[test]
fn too_much_that_is_noted_is_written_by_a_rotation() {
    let dir = tempfile::tempdir().expect("temp dir");
    let paths = paths(dir.path());
    let disk = SimDisk::new(0);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut store = DurableStore::open(&paths, &[9; 32], shared).expect("works");
    let label = |n: u32| Fact::Label { address: n.to_string(), label: "x".repeat(9_000) };
    (0..1_000).for_each(|n| store.note(&[label(n)]));
    assert!(!store.wants_compaction());
    store.note(&[label(1_000)]);
    assert!(store.record(&[month(1)]).is_err(), "too large");
    assert!(store.wants_compaction());
    store.compact(&ChainData::default()).expect("works");
    store.record(&[month(1)]).expect("works again");
    drop(store);
    disk.restart();
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let store = DurableStore::open(&paths, &[9; 32], shared).expect("works");
    assert_eq!((store.facts().labels.len(), store.facts().bonds.len()), (1_001, 1));
}

/// The events of one round, in the order in which roles record them.
fn steps(round: u64) -> Vec<Vec<Fact>> {
    let txid = Txid::from_byte_array([round.to_le_bytes()[0]; 32]);
    let coin = |vout| OutPoint { txid, vout };
    let script = ScriptBuf::from_bytes(round.to_le_bytes().to_vec());
    let agreed = round.is_multiple_of(2).then(|| Agreed {
        taker: "J5taker".into(),
        coinjoin_fee: round,
        miner_fee: 0,
        equal: script.clone(),
        change: script.clone(),
    });
    let begin = RoundBegin {
        role: if agreed.is_some() { RoundRole::Maker } else { RoundRole::Taker },
        time: round,
        mixdepth: 0,
        amount: 1000,
        counterparties: 1,
        destination: String::new(),
        nick: "J5nick".into(),
        agreed,
    };
    let sums = RoundSums { amount: round, ..RoundSums::default() };
    let commitment = [round.to_le_bytes()[0]; 32];
    let end = RoundEnd { code: "complete".into(), text: "It is done.".into(), time: round };
    let events = [
        RoundEvent::Begun(begin),
        RoundEvent::Reserved { outpoints: vec![coin(0), coin(1)] },
        RoundEvent::Released,
        RoundEvent::Reserved { outpoints: vec![coin(2)] },
        RoundEvent::CommitmentSent { outpoint: Some(coin(2)), index: 0, commitment },
        RoundEvent::Shown { txid, sums: sums.clone() },
        RoundEvent::Revealed { scripts: vec![script], commitment },
        RoundEvent::Signed { txid, raw: vec![5; 3000], sums, time: round },
        RoundEvent::Seen { txid, time: round },
        RoundEvent::Confirmed { txid, height: 7, time: round },
        RoundEvent::Accounted,
        RoundEvent::Ended(end),
    ];
    let record = |event: RoundEvent| {
        let mut facts = Vec::new();
        if let RoundEvent::CommitmentSent { outpoint: Some(outpoint), index, commitment } = &event {
            let (outpoint, index, commitment) = (*outpoint, *index, *commitment);
            facts.push(Fact::CommitmentUsed { outpoint, index, commitment });
        }
        facts.push(Fact::Round { round, event });
        facts
    };
    events.into_iter().map(record).collect()
}

#[test]
fn rounds_survive_a_power_cut_at_every_operation() {
    let mut records = 0;
    for at in 0..60 {
        let dir = tempfile::tempdir().expect("temp dir");
        let paths = paths(dir.path());
        let disk = SimDisk::new(u64::try_from(at).expect("small"));
        let mut acknowledged = Facts::default();
        let mut in_flight: Vec<Fact> = Vec::new();
        let mut todo = (1..20).flat_map(steps);
        for life in 0..4 {
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut store =
                DurableStore::open(&paths, &[9; 32], shared).expect("the disk works again");
            // What was answered is there, and beyond that the record that was being written, whole or not at all.
            let mut with_it = acknowledged.clone();
            in_flight.iter().for_each(|fact| with_it.apply(fact));
            // A long record that was half written looks like damage: then internal addresses are skipped, and that is
            // all it costs.
            let found = Facts { state_lost: false, ..store.facts().clone() };
            assert!(
                found == acknowledged || found == with_it,
                "case {at}, life {life}: {found:#?}"
            );
            acknowledged = found;
            disk.break_at((at % 20) + life, Fault::PowerCut);
            for record in todo.by_ref() {
                if store.record(&record).is_err() {
                    in_flight = record;
                    break;
                }
                records += 1;
                record.iter().for_each(|fact| acknowledged.apply(fact));
                if records % 5 == 0 {
                    let _ = store.compact(&ChainData::default());
                }
            }
            drop(store);
            disk.restart();
        }
    }
    assert!(records > 500, "only {records} records: the test lost its subject");
}
