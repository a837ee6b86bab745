//! What a maker needs for each message of a taker, with a wallet and a chain that answer at once: proofs, signatures,
//! boxes and checks, without disk, network and the verification of the sender, which is the channel's.

#![allow(clippy::unwrap_used)] // what the stage of the tests is made of

#[allow(dead_code)] // shared with the tests, which use all of it
#[path = "../tests/maker/stage.rs"]
mod stage;

use divan::{Bencher, black_box};
use joinery_proto::message::tx_payload;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_roles::event::ChannelEvent;

use stage::{DIRECTORY, FakeTaker, FakeWallet, Stage, config, key};

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() {
    println!(
        "Answer times of the Python makers for a message: 6-60 ms / up to 550 ms; our aim: below 5 ms."
    );
    divan::main();
}

fn event(key: &NickKey, word: PrivateWord, payload: &str) -> ChannelEvent {
    let text = key.sign_message(word, payload, ONION_HOSTID);
    ChannelEvent::Private { from: key.nick(), via: DIRECTORY, text }
}

/// A maker with many coins and a bond, and a taker.
fn begin() -> (Stage, FakeTaker) {
    let mut wallet = FakeWallet::new();
    for number in 0..200_u64 {
        wallet.fund(u8::try_from(number % 5).unwrap(), 1_000_000 + number);
    }
    wallet.fund(0, 100_000_000);
    wallet.coins.last_mut().unwrap().locktime = Some(1_900_000_000);
    let mut stage = Stage::open(config(), wallet);
    let mut taker = FakeTaker::new(&mut stage, 1);
    taker.amount = 2_500_000;
    (stage, taker)
}

fn hear(bencher: Bencher<'_, '_>, prepare: impl Fn() -> (Stage, ChannelEvent) + Sync) {
    bencher.with_inputs(prepare).bench_refs(|(stage, event)| {
        stage.heard(event);
        black_box(stage.left.len())
    });
}

#[divan::bench]
fn orderbook_to_offer_with_bond(bencher: Bencher<'_, '_>) {
    hear(bencher, || {
        let (stage, taker) = begin();
        let event = ChannelEvent::Public {
            from: taker.nick(),
            via: DIRECTORY,
            text: "orderbook".to_owned(),
        };
        (stage, event)
    });
}

#[divan::bench]
fn fill_to_pubkey(bencher: Bencher<'_, '_>) {
    hear(bencher, || {
        let (stage, taker) = begin();
        let event = event(&taker.key, PrivateWord::Fill, &taker.fill_payload());
        (stage, event)
    });
}

#[divan::bench]
fn auth_to_ioauth(bencher: Bencher<'_, '_>) {
    hear(bencher, || {
        let (mut stage, mut taker) = begin();
        taker.fill(&mut stage);
        let text = taker.revelation();
        let sealed = taker.seal(&text);
        (stage, event(&taker.key, PrivateWord::Auth, &sealed))
    });
}

#[divan::bench]
fn tx_to_sigs_of_three_inputs(bencher: Bencher<'_, '_>) {
    hear(bencher, || {
        let (mut stage, mut taker) = begin();
        let offer = stage.offers()[0];
        taker.until_ioauth(&mut stage);
        let tx = taker.transaction(&stage, &offer);
        let sealed = taker.seal(&tx_payload(&tx));
        (stage, event(&taker.key, PrivateWord::Tx, &sealed))
    });
}

#[divan::bench]
fn public_line_of_somebody_else(bencher: Bencher<'_, '_>) {
    hear(bencher, || {
        let (stage, _) = begin();
        let from = NickKey::new(key(0x55, 1)).nick();
        let text = "sw0reloffer 0 100000 5000000000 0 0.00002".to_owned();
        (stage, ChannelEvent::Public { from, via: DIRECTORY, text })
    });
}
