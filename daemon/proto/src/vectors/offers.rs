//! `offers.json`: announcing and accepting offers.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::message::OfferMessage;
use crate::offer::{Offer, OrderType};
use crate::public_message::{self, PublicCommand};

#[derive(Deserialize)]
struct File {
    announcements: Vec<Announcement>,
    cancel_message_for_oids_0_and_3: Vec<String>,
    parse_public: Vec<ParsePublic>,
}

#[derive(Deserialize)]
struct Announcement {
    offers: Vec<OfferJson>,
    bond_proof: Option<String>,
    public_messages_onion: Vec<String>,
    private_reply: Vec<PrivateReply>,
}

#[derive(Deserialize)]
struct PrivateReply {
    command: String,
    payload: String,
}

#[derive(Deserialize)]
struct OfferJson {
    oid: u64,
    ordertype: String,
    minsize: u64,
    maxsize: u64,
    txfee: u64,
    cjfee: String,
}

#[derive(Deserialize)]
struct ParsePublic {
    name: String,
    public_message: String,
    expected_offers: Vec<OfferJson>,
}

fn to_offer(json: &OfferJson) -> Offer {
    let OfferJson { oid, ordertype, minsize, maxsize, txfee, cjfee } = json;
    let fields = format!("{oid} {minsize} {maxsize} {txfee} {cjfee}");
    Offer::parse(OrderType::parse(ordertype).unwrap(), &fields).unwrap()
}

/// Fees that only the reference accepts; refused here (`cjfee_range`).
fn fee_is_out_of_range(fee: &str) -> bool {
    fee == "NaN"
        || fee.starts_with('-')
        || fee.parse::<f64>().is_ok_and(|f| (1.0..2.0).contains(&f))
}

#[test]
fn announcements_are_equal_byte_for_byte() {
    let file: File = super::load("offers");
    for case in &file.announcements {
        let offers: Vec<Offer> = case.offers.iter().map(to_offer).collect();
        let public: Vec<String> =
            offers.iter().map(|offer| format!("!{}", public_message::announce(offer))).collect();
        assert_eq!(public, case.public_messages_onion);
        // The reference puts everything into one private message, which we must read; we send one
        // message per offer, each with the bond.
        let [reply] = case.private_reply.as_slice() else { panic!("one reply") };
        let read = OfferMessage::parse(OrderType::parse(&reply.command).unwrap(), &reply.payload);
        assert_eq!(read.offers, offers);
        if let [offer] = offers.as_slice() {
            let payload = OfferMessage::payload(offer, case.bond_proof.as_deref());
            assert_eq!(payload, reply.payload);
        }
    }
    let ids: Vec<_> = ["0", "3"].iter().map(|id| id.parse().unwrap()).collect();
    let cancel = format!("!{}", public_message::cancel(&ids));
    assert_eq!(vec![cancel], file.cancel_message_for_oids_0_and_3);
}

#[test]
fn public_offers_are_accepted_as_in_the_reference_within_our_limits() {
    let file: File = super::load("offers");
    assert_eq!(file.parse_public.len(), 30);
    for case in &file.parse_public {
        let mut book = BTreeMap::new();
        // The transport strips the leading `!` and ignores messages without it.
        for command in
            case.public_message.strip_prefix('!').map(public_message::parse).into_iter().flatten()
        {
            match command {
                PublicCommand::Offer(offer) => {
                    book.insert(offer.id.get(), offer);
                }
                PublicCommand::BadOffer(id) | PublicCommand::Cancel(id) => {
                    book.remove(&id.get());
                }
                other => panic!("{}: {other:?}", case.name),
            }
        }
        let expected: BTreeMap<u64, Offer> = case
            .expected_offers
            .iter()
            .filter(|offer| {
                !fee_is_out_of_range(&offer.cjfee)
                    || offer.ordertype.contains("abs") && !offer.cjfee.starts_with('-')
            })
            .map(|offer| (offer.oid, to_offer(offer)))
            .collect();
        assert_eq!(book, expected, "{}", case.name);
        for (offer, json) in book.values().zip(&case.expected_offers) {
            assert_eq!(offer.cj_fee.to_string(), json.cjfee, "{}", case.name);
        }
    }
}
