//! A real node accepts what we build and sign: every script type, payments, sweeps and expired bonds, with
//! the fee rate that was asked for.

use joinery_proto::fidelity_bond::locktime_of_month;
use joinery_testkit::Bench;
use joinery_wallet::bitcoin::consensus::encode::serialize_hex;
use joinery_wallet::bitcoin::{Amount, ScriptBuf, Transaction};
use joinery_wallet::keys::{ImportedKeys, MasterKey};
use joinery_wallet::mnemonic::entropy_of_phrase;
use joinery_wallet::path::ScriptPlace;
use joinery_wallet::policy::MergeAlgorithm;
use joinery_wallet::snapshot::{Coin, CoinKind};
use joinery_wallet::spend::{SpendContext, plan, sign};
use joinery_wallet::types::{Branch, Keychain, Mixdepth, Network, WalletType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                      abandon abandon about";
const RATE: u64 = 2345;

fn keys(wallet_type: WalletType) -> MasterKey {
    let entropy = entropy_of_phrase(PHRASE).expect("phrase");
    let imported = ImportedKeys::default();
    MasterKey::from_entropy(&entropy, None, wallet_type, Network::Regtest, imported).expect("keys")
}

fn ranged(branch: Branch, index: u32) -> ScriptPlace {
    ScriptPlace::Ranged { keychain: Keychain { mixdepth: Mixdepth(0), branch }, index }
}

/// Funds the places and returns their confirmed coins.
fn funded(bench: &Bench, keys: &MasterKey, places: &[ScriptPlace]) -> Vec<Coin> {
    let outputs: Vec<(ScriptBuf, Amount)> = places
        .iter()
        .map(|place| (keys.script_pubkey(place).expect("script"), Amount::from_sat(100_000)))
        .collect();
    let outpoints = bench.fund_many(&outputs).expect("funded");
    bench.mine(1, None).expect("mined");
    places
        .iter()
        .zip(outputs)
        .zip(outpoints)
        .map(|((place, (script, value)), outpoint)| Coin {
            outpoint,
            value,
            script,
            place: *place,
            height: Some(151),
            kind: CoinKind::Deposit,
            frozen: false,
            locked: false,
            locktime: match place {
                ScriptPlace::Bond { timenumber } => {
                    u32::try_from(locktime_of_month(*timenumber)).ok()
                }
                _ => None,
            },
            commitments_used: Vec::new(),
        })
        .collect()
}

/// Plans, builds, signs, and has the node take it; returns the transaction.
fn send(
    bench: &Bench,
    keys: &MasterKey,
    coins: &[Coin],
    amount: Option<u64>,
    destination: &ScriptBuf,
) -> Transaction {
    let wallet_type = keys.wallet_type();
    let chain = bench.rpc("getblockchaininfo", &json!([])).expect("chain");
    let number = |key: &str| u32::try_from(chain[key].as_u64().expect("number")).expect("32 bits");
    let mut rng = StdRng::seed_from_u64(5);
    let mut ctx = SpendContext {
        coins,
        mixdepth: Mixdepth(0),
        tip_height: number("blocks"),
        median_time: number("mediantime"),
        rate_sat_per_kvb: RATE,
        merge: MergeAlgorithm::Default,
        wallet_type,
        rng: &mut rng,
    };
    let plan = plan(&mut ctx, amount.map(Amount::from_sat), destination, None).expect("planned");
    let change = keys.script_pubkey(&ranged(Branch::Internal, 0)).expect("script");
    let change = plan.change().map(|_| change);
    let mut tx = plan.build(change, &mut rng).expect("built");
    sign(&mut tx, plan.inputs(), keys).expect("signed");

    let answer = bench.rpc("testmempoolaccept", &json!([[serialize_hex(&tx)]])).expect("answer");
    let answer = &answer[0];
    assert_eq!(answer["allowed"], true, "{answer}");
    let vsize = answer["vsize"].as_u64().expect("vsize");
    let fee = plan.fee().to_sat();
    assert!(vsize <= plan.vsize(), "{vsize} vbytes, planned {}", plan.vsize());
    // Two bytes less for each signature that is shorter than the longest: below one vbyte an input.
    assert!(plan.vsize() - vsize <= plan.inputs().len() as u64, "{vsize} of {}", plan.vsize());
    assert!(fee * 1000 >= vsize * RATE, "{fee} for {vsize}");
    bench.rpc("sendrawtransaction", &json!([serialize_hex(&tx)])).expect("accepted");
    bench.mine(1, None).expect("mined");
    tx
}

#[test]
fn a_node_accepts_payments_sweeps_and_expired_bonds() {
    let bench = Bench::start().expect("bench");
    let destination =
        ScriptBuf::from_hex("5120a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c")
            .expect("P2TR");

    for wallet_type in [WalletType::NativeSegwit, WalletType::NestedSegwit] {
        let keys = keys(wallet_type);
        let places: Vec<ScriptPlace> =
            (0..12).map(|index| ranged(Branch::External, index)).collect();
        let coins = funded(&bench, &keys, &places);
        // More inputs than the eight that are reckoned with; then the rest.
        let tx = send(&bench, &keys, &coins, Some(880_000), &destination);
        assert_eq!((tx.input.len(), tx.output.len()), (9, 2));
        let left: Vec<Coin> = coins
            .into_iter()
            .filter(|coin| tx.input.iter().all(|input| input.previous_output != coin.outpoint))
            .collect();
        let tx = send(&bench, &keys, &left, None, &destination);
        assert_eq!((tx.input.len(), tx.output.len()), (3, 1));
    }

    // The bench's blocks are younger than January 2022: those bonds have expired.
    let keys = keys(WalletType::FidelityBond);
    let bonds = [ScriptPlace::Bond { timenumber: 0 }, ScriptPlace::Bond { timenumber: 24 }];
    let coins = funded(&bench, &keys, &bonds);
    let tx = send(&bench, &keys, &coins, None, &destination);
    assert_eq!((tx.input.len(), tx.output.len()), (2, 1));
    assert_eq!(u64::from(tx.lock_time.to_consensus_u32()), locktime_of_month(24));
}
