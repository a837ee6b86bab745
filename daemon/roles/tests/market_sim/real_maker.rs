//! Makers of our own: the real machine with a wallet in memory.

use std::sync::Arc;
use std::time::Duration;

use joinery_proto::blacklist::CommitmentBlacklist;
use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OrderType};
use joinery_proto::private_message::NickKey;
use joinery_roles::event::{ChannelEvent, DirectoryId, Source};
use joinery_roles::maker::{Maker, MakerConfig, MakerState, MakerTerms};

use crate::chain::Chain;
use crate::fake_maker::secret;
use crate::wallet::FakeWallet;

pub(crate) struct RealMaker {
    pub(crate) key: NickKey,
    pub(crate) nick: Nick,
    pub(crate) machine: Maker,
    pub(crate) wallet: FakeWallet,
    pub(crate) offers: Vec<Offer>,
    pub(crate) worth: u64,
}

impl RealMaker {
    /// A maker with coins in two accounts that is up and has said nothing yet.
    pub(crate) fn new(index: usize, directories: usize, chain: &mut Chain, now: Duration) -> Self {
        let key = NickKey::new(secret(&format!("real nick {index}")));
        let mut wallet = FakeWallet::new(&format!("real maker {index}"));
        let coins = [(0, 30_000_000), (0, 8_000_000), (2, 40_000_000)];
        for (mixdepth, value) in coins {
            wallet.fund(chain, mixdepth, value, 30);
        }
        let worth = coins.iter().map(|(_, value)| value).sum();
        let mut terms = MakerTerms::new(OrderType::Sw0Relative);
        terms.min_size = 27_300;
        terms.relative_fee = format!("0.000{}", 1 + index).parse().unwrap();
        let config = MakerConfig::new(key.nick(), terms, 1_700_000_000);
        let seed = secret(&format!("seed {index}")).secret_bytes();
        let view = Arc::new(wallet.view(chain));
        let blacklist = CommitmentBlacklist::default();
        let mut machine = Maker::new(config, blacklist, view, seed, now);
        for directory in 0..directories {
            let via = Source::Directory(DirectoryId(u16::try_from(directory).unwrap()));
            machine.heard(&ChannelEvent::Up(via), now);
        }
        Self { nick: key.nick(), key, machine, wallet, offers: Vec::new(), worth }
    }

    /// Offers that it shows.
    pub(crate) fn shows(&mut self, state: &MakerState) {
        let offers = state.offers.iter().map(|offer| {
            let kind = OrderType::parse(offer.ordertype).unwrap();
            let fields = format!(
                "{} {} {} {} {}",
                offer.oid, offer.minsize, offer.maxsize, offer.txfee, offer.cjfee
            );
            Offer::parse(kind, &fields).unwrap()
        });
        self.offers = offers.collect();
    }
}
