//! The order book with makers and directories that make everything up.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use joinery_proto::bitcoin::hashes::Hash;
use joinery_proto::bitcoin::secp256k1::SecretKey;
use joinery_proto::bitcoin::{Amount, BlockHash, OutPoint, Txid};
use joinery_proto::bond_proof::{BondProof, Certificate};
use joinery_proto::nick::Nick;
use joinery_proto::offer::OrderType;
use joinery_proto::private_message::{NickKey, ONION_HOSTID, PrivateWord};
use joinery_roles::event::{ChannelEvent, DirectoryId, LinkId, Source};
use joinery_roles::order_book::{
    BondAnswer, BondedCoin, BookTip, OrderBook, OrderBookConfig, Output,
};

use super::{KEYS, key, nick, pause};
use crate::script::Script;

const LOCKTIME: u32 = 2_051_222_400;
const OFFER: &str = "0 100000 5000000 0 0.00002";

fn us() -> Nick {
    NickKey::new(SecretKey::from_slice(&[0x77; 32]).expect("below the group order")).nick()
}

/// A bond proof of each stranger, made for us.
fn proof(number: u8) -> &'static str {
    static MADE: OnceLock<Vec<String>> = OnceLock::new();
    let make = || {
        let secret = |byte| SecretKey::from_slice(&[byte; 32]).expect("below the group order");
        let proof = |number: u8| {
            // Two of them show the same coin.
            let coin = secret(100 + number / 2);
            let cert = secret(150 + number);
            let secp = joinery_proto::secp();
            let certificate = Certificate::sign(&coin, &cert.public_key(secp), 10);
            let outpoint = OutPoint { txid: Txid::from_byte_array([number / 2; 32]), vout: 1 };
            let public = coin.public_key(secp);
            BondProof::create(
                &nick(number),
                &us(),
                &certificate,
                &cert,
                &public,
                &outpoint,
                LOCKTIME,
            )
        };
        (0..KEYS).map(proof).collect()
    };
    &MADE.get_or_init(make)[usize::from(number % KEYS)]
}

fn source(script: &mut Script<'_>) -> Source {
    let number = script.byte();
    match number % 8 {
        0..=3 => Source::Directory(DirectoryId(u16::from(number / 8 % 4))),
        4 | 5 => Source::Direct(LinkId(u64::from(number / 8 % 4))),
        6 => Source::Irc(0),
        _ => Source::Directory(DirectoryId(0)),
    }
}

/// Offers as they go over the wire, or something else.
fn offers(script: &mut Script<'_>, from: u8) -> String {
    match script.byte() % 6 {
        0 => script.text(),
        1 => OFFER.to_owned(),
        2 => format!("{OFFER}!tbond {}", proof(from)),
        3 => format!("{OFFER}!tbond {}", proof(script.byte())),
        4 => {
            let max = script.near(5_000_000);
            format!("{} 100000 {max} 0 0.00002!sw0absoffer 1 100000 5000000 0 500", script.byte())
        }
        _ => (0..script.byte() % 20)
            .map(|id| format!("!sw0absoffer {id} 100000 5000000 0 500"))
            .collect::<String>()
            .replacen("!sw0absoffer ", "", 1),
    }
}

/// Runs a script. Whatever happens: everything is bounded, what the book shows is what it holds, a bond counts only
/// after the chain has confirmed its coin and for one nick only, and nothing spins. Returns whether a bond counted.
pub fn order_book(data: &[u8]) -> bool {
    let mut script = Script(data);
    let mut config = OrderBookConfig::new(us(), 2);
    config.limits.nicks = 20;
    config.limits.offers = 30;
    let mut now = Duration::ZERO;
    let mut book = OrderBook::new(config, now);
    let mut asked: Vec<BondedCoin> = Vec::new();
    let mut confirmed: BTreeMap<OutPoint, bool> = BTreeMap::new();
    let (mut steps, mut counted) = (0, false);
    while !script.is_empty() && steps < 200 {
        steps += 1;
        let from = script.byte();
        match script.byte() % 18 {
            16 => book.event(&ChannelEvent::Lists(DirectoryId((from % 4).into())), now),
            17 => book.event(&ChannelEvent::Serves { nick: nick(from) }, now),
            0 => now += pause(&mut script),
            1 => book.event(&ChannelEvent::Up(source(&mut script)), now),
            2 => book.event(&ChannelEvent::Down(source(&mut script)), now),
            3 => {
                book.event(&ChannelEvent::Seen { nick: nick(from), via: source(&mut script) }, now)
            }
            4 => {
                book.event(&ChannelEvent::Left { nick: nick(from), via: source(&mut script) }, now)
            }
            5 => {
                let hash = BlockHash::from_byte_array([script.byte(); 32]);
                let height = u32::from(script.byte()) * 200;
                book.tip(BookTip { height, hash, median_time: 1_800_000_000 }, now);
            }
            6 | 7 => {
                if let Some(coin) = script.pick(&asked) {
                    let answer = match script.byte() % 5 {
                        0 => BondAnswer::Absent,
                        1 => BondAnswer::Unavailable,
                        2 => BondAnswer::Unanswered,
                        _ => BondAnswer::Confirmed {
                            amount: Amount::from_sat(script.near(1_000_000)),
                            height: u32::from(script.byte()),
                            time: 1_700_000_000,
                        },
                    };
                    if matches!(answer, BondAnswer::Confirmed { .. }) {
                        confirmed.insert(coin.outpoint, true);
                    }
                    book.bond_answer(&coin, answer, now);
                }
            }
            8 => book.refresh(now),
            9 | 10 => {
                let text = match script.byte() % 4 {
                    0 => script.text(),
                    1 => "cancel 0".to_owned(),
                    _ => format!("sw0reloffer {}", offers(&mut script, from)),
                };
                let (from, via) = (nick(from), source(&mut script));
                book.event(&ChannelEvent::Public { from, via, text }, now);
            }
            _ => {
                let payload = offers(&mut script, from);
                let word = PrivateWord::Offer(OrderType::Sw0Relative);
                // The channel has verified this; signing each text anew would only take time.
                let signed = key(from).sign_message(word, "x", ONION_HOSTID);
                let tail = signed.splitn(3, ' ').nth(2).expect("word, payload, key, signature");
                let text = format!("{} {payload} {tail}", word.as_str());
                let (from, via) = (nick(from), source(&mut script));
                book.event(&ChannelEvent::Private { from, via, text }, now);
            }
        }
        book.tick(now);
        while let Some(output) = book.poll() {
            if let Output::VerifyBond(coin) = output {
                asked.push(coin);
            }
        }
        assert!(book.next_wake() > now, "the machine spins at {now:?}");
        let [nicks, offers, coins, proofs] = book.held();
        // Shares of two directories and of all others.
        assert!(nicks <= 50 && offers <= 75 && coins <= 40 && proofs <= 20);
        let seen = book.book(now);
        assert_eq!(seen.offers.len(), offers);
        let mut bonded = std::collections::BTreeSet::new();
        for bond in &seen.bonds {
            assert!(confirmed.contains_key(&bond.outpoint), "the chain was asked first");
            assert!(bonded.insert(bond.outpoint), "one coin, one nick");
            assert!(bond.value.is_finite() && bond.value >= 0.0);
            counted = true;
        }
        for offer in &seen.offers {
            assert!(offer.bond_value.is_finite() && offer.nick != us());
        }
    }
    counted
}

/// A directory is up, a block is known, a maker shows a bond, and the chain has it.
pub(super) fn honest() -> Vec<u8> {
    vec![0, 1, 0, 0, 5, 1, 100, 2, 11, 2, 0, 0, 6, 0, 2, 5, 20, 3, 11, 1, 0]
}
