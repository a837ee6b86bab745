//! The store through its public interface, on real files.

mod common;

use bdk_wallet::bitcoin::hashes::Hash;
use bdk_wallet::bitcoin::{ScriptBuf, Txid};
use common::{DEK, block, copy_tree, files, fold, names, open, outpoint, paths, script};
use joinery_wallet::round::{
    Agreed, RoundBegin, RoundEnd, RoundEvent, RoundId, RoundRole, RoundSums,
};
use joinery_wallet::store::{self, ChainData, Fact, Facts, FreezeOrigin, OwnTxState, StoreError};
use proptest::prelude::*;

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (0..5u8, 0..2u8, any::<u32>()).prop_map(|(mixdepth, branch, next_unused)| Fact::Issued {
            mixdepth,
            branch,
            next_unused
        }),
        (0..6u8, any::<bool>(), 0..3u8, any::<u64>()).prop_map(|(n, frozen, by, time)| {
            let by = match by {
                0 => FreezeOrigin::User,
                1 => FreezeOrigin::Auto,
                _ => FreezeOrigin::Import,
            };
            Fact::Frozen { outpoint: outpoint(n), frozen, by, time }
        }),
        proptest::collection::vec(0..50u8, 0..20).prop_map(|coins| Fact::CoinsSeen {
            outpoints: coins.into_iter().map(outpoint).collect()
        }),
        ("[a-c]{1,2}", "[x-z é]{0,3}").prop_map(|(address, label)| Fact::Label { address, label }),
        (0..960u16).prop_map(|timenumber| Fact::BondIssued { timenumber }),
        (0..6u8, 0..3u8, any::<[u8; 32]>()).prop_map(|(n, index, commitment)| {
            Fact::CommitmentUsed { outpoint: outpoint(n), index, commitment }
        }),
        (0..4u8, proptest::collection::vec(any::<u8>(), 0..9000), any::<u64>()).prop_map(
            |(n, raw, time)| Fact::OwnTransaction {
                txid: Txid::from_byte_array([n; 32]),
                raw,
                time
            }
        ),
        (0..4u8, 0..4u8).prop_map(|(n, state)| Fact::OwnTransactionState {
            txid: Txid::from_byte_array([n; 32]),
            state: match state {
                0 => OwnTxState::Built,
                1 => OwnTxState::Broadcast,
                2 => OwnTxState::Rejected,
                _ => OwnTxState::Confirmed,
            },
        }),
        (0..4u8).prop_map(|n| Fact::OwnTransactionOver { txid: Txid::from_byte_array([n; 32]) }),
        (1..4u64, round_event()).prop_map(|(round, event)| Fact::Round { round, event }),
        (1..4u64).prop_map(|round| Fact::Round { round, event: begun() }),
        Just(Fact::SyncedOnce),
        Just(Fact::Imported),
        Just(Fact::StateLost),
        Just(Fact::IndexesSkipped),
    ]
}

fn begun() -> RoundEvent {
    RoundEvent::Begun(RoundBegin {
        role: RoundRole::Maker,
        time: 1,
        mixdepth: 2,
        amount: 3,
        counterparties: 1,
        destination: String::new(),
        nick: "J5abc".into(),
        agreed: Some(Agreed {
            taker: "J5def".into(),
            coinjoin_fee: 4,
            miner_fee: 2,
            equal: ScriptBuf::from_bytes(vec![1]),
            change: ScriptBuf::from_bytes(vec![2]),
        }),
    })
}

fn round_event() -> impl Strategy<Value = RoundEvent> {
    let txid = |n: u8| Txid::from_byte_array([n; 32]);
    let sums = |amount: u8| RoundSums { amount: amount.into(), ..RoundSums::default() };
    let coins = || proptest::collection::vec((0..6u8).prop_map(outpoint), 0..4);
    let time = || 0..4u64;
    prop_oneof![
        coins().prop_map(|outpoints| RoundEvent::Reserved { outpoints }),
        Just(RoundEvent::Released),
        (0..6u8, 0..3u8).prop_map(|(n, index)| RoundEvent::CommitmentSent {
            outpoint: Some(outpoint(n)),
            index,
            commitment: [n; 32]
        }),
        (0..4u8, 0..9u8).prop_map(move |(n, s)| RoundEvent::Shown { txid: txid(n), sums: sums(s) }),
        (proptest::collection::vec((0..6u32).prop_map(script), 0..3), 0..3u8)
            .prop_map(|(scripts, n)| RoundEvent::Revealed { scripts, commitment: [n; 32] }),
        (0..4u8, proptest::collection::vec(any::<u8>(), 0..9000), 0..9u8, time()).prop_map(
            move |(n, raw, s, time)| RoundEvent::Signed { txid: txid(n), raw, sums: sums(s), time }
        ),
        (0..4u8, time()).prop_map(move |(n, time)| RoundEvent::Seen { txid: txid(n), time }),
        (0..4u8, 0..9u32, time()).prop_map(move |(n, height, time)| RoundEvent::Confirmed {
            txid: txid(n),
            height,
            time
        }),
        time().prop_map(|time| RoundEvent::Abandoned { time }),
        Just(RoundEvent::Accounted),
        ("[a-z]{1,3}", time()).prop_map(|(code, time)| RoundEvent::Ended(RoundEnd {
            code,
            text: "why".into(),
            time
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reopening_gives_the_fold_of_all_facts(
        records in proptest::collection::vec(proptest::collection::vec(fact(), 1..8), 1..12),
        compact_after in 0..12usize,
    ) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut all = Vec::new();
        {
            let mut store = open(dir.path());
            for (i, record) in records.iter().enumerate() {
                store.record(record).expect("records");
                all.extend_from_slice(record);
                if i == compact_after {
                    store.compact(&ChainData::default()).expect("compacts");
                }
                prop_assert_eq!(store.facts(), &fold(&all));
            }
        }
        let store = open(dir.path());
        prop_assert_eq!(store.facts(), &fold(&all));
    }

    #[test]
    fn unfolding_and_folding_again_changes_nothing(
        facts in proptest::collection::vec(fact(), 0..60),
    ) {
        let once = fold(&facts);
        prop_assert_eq!(fold(&once.unfold()), once);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The journal is lost twice: what the database knows of rounds is all of it.
    #[test]
    fn rounds_come_back_from_the_database(
        events in proptest::collection::vec((1..4u64, round_event()), 1..40),
        compact_after in 0..40usize,
    ) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut all: Vec<Fact> = (1..4).map(|round| Fact::Round { round, event: begun() }).collect();
        {
            let mut store = open(dir.path());
            store.record(&all).expect("records");
            for (i, (round, event)) in events.iter().enumerate() {
                let now = &store.facts().rounds[&RoundId(*round)];
                // What the wallet never records: the database need not know the order of such.
                let impossible = match event {
                    RoundEvent::Released => !now.signed.is_empty(),
                    RoundEvent::Confirmed { .. } => now.seen.is_none(),
                    _ => false,
                };
                if impossible {
                    continue;
                }
                let fact = Fact::Round { round: *round, event: event.clone() };
                store.record(std::slice::from_ref(&fact)).expect("records");
                all.push(fact);
                if i == compact_after {
                    store.compact(&ChainData::default()).expect("compacts");
                }
            }
        }
        for _ in 0..2 {
            std::fs::remove_file(paths(dir.path()).journal).expect("removed");
            let store = open(dir.path());
            prop_assert!(store.recovered_from_loss());
            prop_assert_eq!(&store.facts().rounds, &fold(&all).rounds);
        }
    }
}

#[test]
fn old_rounds_are_forgotten_when_the_journal_is_rotated_and_those_with_coins_never() {
    let dir = tempfile::tempdir().expect("temp dir");
    let txid = |n: u64| Txid::from_byte_array([n.to_le_bytes()[0]; 32]);
    let mut store = open(dir.path());
    for round in 1..=250 {
        let mut events = vec![begun(), RoundEvent::Reserved { outpoints: vec![outpoint(1)] }];
        // Round 3 stays open, 5 is signed, 7 is confirmed and its income not written down, others end in all ways.
        if round != 3 && round % 2 == 1 {
            let raw = vec![7; 6000];
            let sums = RoundSums::default();
            events.push(RoundEvent::Signed { txid: txid(round), raw, sums, time: 1 });
        }
        match round {
            7 => events.push(RoundEvent::Confirmed { txid: txid(round), height: 9, time: 2 }),
            3 | 5 => {}
            _ if round % 4 == 1 => events.push(RoundEvent::Abandoned { time: 2 }),
            _ if round % 4 == 3 => {
                events.push(RoundEvent::Confirmed { txid: txid(round), height: 9, time: 2 });
                events.push(RoundEvent::Accounted);
            }
            _ => {}
        }
        if round != 3 {
            let end = RoundEnd { code: "complete".into(), text: String::new(), time: 3 };
            events.push(RoundEvent::Ended(end));
        }
        for event in events {
            store.record(&[Fact::Round { round, event }]).expect("records");
        }
    }
    assert_eq!(store.facts().rounds.len(), 250);
    assert!(store.wants_compaction());
    store.compact(&ChainData::default()).expect("compacts");
    let kept: Vec<u64> = store.facts().rounds.keys().map(|id| id.0).collect();
    let expected: Vec<u64> = [3, 5, 7].into_iter().chain(151..=250).collect();
    assert_eq!(kept, expected);
    assert_eq!(store.facts().next_round().0, 251);
    let facts = store.facts().clone();
    drop(store);
    assert_eq!(open(dir.path()).facts(), &facts);
    // Nor does the database bring the others back.
    std::fs::remove_file(paths(dir.path()).journal).expect("removed");
    assert_eq!(open(dir.path()).facts().rounds, facts.rounds);
}

/// What bounds the memory of a maker that runs for years.
#[test]
fn however_many_rounds_there_were_the_newest_hundred_and_fifty_are_held_at_most() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    store.load_chain().expect("loads");
    let mut most = 0;
    for round in 1..=600 {
        let end = RoundEnd { code: "complete".into(), text: String::new(), time: 3 };
        let facts = [begun(), RoundEvent::Ended(end)].map(|event| Fact::Round { round, event });
        store.record(&facts).expect("records");
        // As the wallet does after each commit.
        if store.wants_compaction() {
            store.compact(&ChainData::default()).expect("compacts");
        }
        most = most.max(store.facts().rounds.len());
    }
    assert!((100..=151).contains(&most), "{most}");
    let newest = store.facts().rounds.keys().next_back().copied();
    assert_eq!(newest.map(|id| id.0), Some(600));
    drop(store);
    assert!(open(dir.path()).facts().rounds.len() <= 151);
}

#[test]
fn journals_without_rounds_still_load() {
    // What a store of the time before rounds wrote is what one without rounds writes now: the facts are lists of
    // variants by name, and none of the old ones changed.
    let fact = Fact::CommitmentUsed { outpoint: outpoint(1), index: 2, commitment: [3; 32] };
    let dir = tempfile::tempdir().expect("temp dir");
    open(dir.path()).record(std::slice::from_ref(&fact)).expect("records");
    let store = open(dir.path());
    assert_eq!(store.facts(), &fold(&[fact]));
    assert_eq!(store.facts().next_round().0, 1);
}

#[test]
fn a_new_store_is_empty_and_not_a_loss() {
    let dir = tempfile::tempdir().expect("temp dir");
    for _ in 0..3 {
        let mut store = open(dir.path());
        assert_eq!(store.facts(), &Facts::default());
        assert!(!store.recovered_from_loss());
        let (chain, statuses) = store.load_chain().expect("loads");
        assert_eq!(chain, ChainData::default());
        assert!(statuses.is_empty());
    }
}

#[test]
fn chain_data_and_statuses_survive_commit_compaction_and_reopening() {
    let dir = tempfile::tempdir().expect("temp dir");
    {
        let mut store = open(dir.path());
        store.append_chain(&block(1), &[(script(1), Some([1; 32]))]).expect("appends");
        store
            .append_chain(&block(2), &[(script(2), Some([2; 32])), (script(1), Some([9; 32]))])
            .expect("appends");
        store.commit().expect("commits");
    }
    let mut merged = block(1);
    merged.chain.blocks.extend(block(2).chain.blocks);
    {
        let mut store = open(dir.path());
        let (chain, statuses) = store.load_chain().expect("loads");
        assert_eq!(chain, merged);
        assert_eq!(statuses.len(), 2);
        assert_eq!(statuses.get(&script(1)), Some(&[9; 32]));
        store.compact(&merged).expect("compacts");
        store.append_chain(&block(3), &[(script(2), None)]).expect("appends");
        store.commit().expect("commits");
    }
    merged.chain.blocks.extend(block(3).chain.blocks);
    let mut store = open(dir.path());
    let (chain, statuses) = store.load_chain().expect("loads");
    assert_eq!(chain, merged);
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&script(1)]);
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().expect("temp dir");
    let first = open(dir.path());
    let refused = store::open(paths(dir.path()), &DEK).expect_err("locked");
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
    drop(first);
    open(dir.path());
}

#[test]
fn a_wrong_key_is_refused_and_destroys_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    {
        let mut store = open(dir.path());
        store.record(&[Fact::BondIssued { timenumber: 3 }]).expect("records");
        store.append_chain(&block(1), &[]).expect("appends");
        store.compact(&block(1)).expect("compacts");
    }
    // Each file alone must be enough to notice.
    for lost in [&[][..], &["journal"], &["journal", "chain"], &["db"], &["journal", "db"]] {
        let copy = tempfile::tempdir().expect("temp dir");
        copy_tree(dir.path(), copy.path());
        for name in lost {
            let path = copy.path().join(format!(".w.jmdat.{name}"));
            if path.is_dir() {
                std::fs::remove_dir_all(path).expect("removes");
            } else {
                std::fs::remove_file(path).expect("removes");
            }
        }
        let refused = store::open(paths(copy.path()), &[43; 32]).expect_err("wrong key");
        assert!(matches!(refused, StoreError::WrongKey { .. }), "{lost:?}: {refused:?}");
        let names = names(copy.path());
        assert!(names.iter().all(|name| !name.contains("corrupt")), "{names:?}");
        let store = open(copy.path());
        if !lost.contains(&"journal") || !lost.contains(&"db") {
            assert!(store.facts().bonds.contains(&3), "without {lost:?}");
        }
        assert_eq!(store.recovered_from_loss(), !lost.is_empty(), "without {lost:?}");
    }
}

#[test]
fn files_of_a_former_wallet_can_be_set_aside() {
    let dir = tempfile::tempdir().expect("temp dir");
    {
        let mut store = open(dir.path());
        store.record(&[Fact::BondIssued { timenumber: 3 }]).expect("records");
        assert!(store::set_aside(&paths(dir.path())).is_err());
        store.compact(&block(1)).expect("compacts");
    }
    store::set_aside(&paths(dir.path())).expect("sets aside");
    let store = store::open(paths(dir.path()), &[43; 32]).expect("new wallet");
    assert_eq!(store.facts(), &Facts::default());
    assert_eq!(names(dir.path()).iter().filter(|name| name.contains("corrupt")).count(), 3);
}

#[test]
fn a_transaction_at_the_relay_limit_fits_and_a_record_beyond_the_bound_does_not() {
    let dir = tempfile::tempdir().expect("temp dir");
    let txid = Txid::from_byte_array([1; 32]);
    {
        let mut store = open(dir.path());
        let big = Fact::OwnTransaction { txid, raw: vec![5; 400_000], time: 1 };
        store.record(&[big]).expect("records");
        let huge = Fact::OwnTransaction {
            txid: Txid::from_byte_array([2; 32]),
            raw: vec![5; 9 << 20],
            time: 1,
        };
        let refused = store.record(&[Fact::SyncedOnce, huge]).expect_err("too large");
        assert!(matches!(refused, StoreError::TooLarge { .. }), "{refused:?}");
        assert!(!store.facts().synced_once);
        store.record(&[Fact::Imported]).expect("still usable");
    }
    let store = open(dir.path());
    assert_eq!(store.facts().own_txs[&txid].raw.len(), 400_000);
    assert_eq!(store.facts().own_txs.len(), 1);
    assert!(store.facts().imported);
}

#[test]
fn nothing_readable_is_on_disk() {
    let dir = tempfile::tempdir().expect("temp dir");
    let needle = b"bcrt1qneedleneedleneedle";
    {
        let mut store = open(dir.path());
        let address = String::from_utf8(needle.to_vec()).expect("ascii");
        store.record(&[Fact::Label { address: address.clone(), label: address }]).expect("records");
        let script = ScriptBuf::from_bytes(needle.to_vec());
        store.append_chain(&block(1), &[(script, Some([1; 32]))]).expect("appends");
        store.commit().expect("commits");
    }
    for file in files(dir.path()) {
        let bytes = std::fs::read(&file).expect("reads");
        assert!(!bytes.windows(8).any(|w| w == &needle[..8]), "{}", file.display());
    }
}
