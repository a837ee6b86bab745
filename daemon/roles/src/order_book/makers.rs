//! Who is there and what they offer.
//!
//! Two kinds of knowledge are told apart. A *signed* offer came in a private message that its maker signed.
//! A *public* one came in a line that anybody could have written, because reference directories relay whatever
//! sender a line claims. A public line never changes, removes or cancels a signed offer of the last half hour; it
//! only marks it as disputed (`spec/protocol.md` 4.8).

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use joinery_proto::nick::Nick;
use joinery_proto::offer::{Offer, OfferId};

use super::bonds::BondClaim;
use super::config::{MAX_OFFERS_PER_NICK, OrderBookConfig};
use crate::event::Source;

/// Most ways on which one nick is counted as present.
const MAX_PLACES: usize = 128;

/// Who shares a quota: each directory and each IRC server has its own (`Some`), peers on direct connections have one
/// together.
pub(super) type Group = Option<Source>;

/// The group of a way.
pub(super) const fn group(via: Source) -> Group {
    match via {
        Source::Directory(_) | Source::Irc(_) => Some(via),
        Source::Direct(_) => None,
    }
}

/// What one way showed in public of one offer, last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) via: Source,
    /// Digest of the terms; `None`: it was cancelled.
    pub(super) terms: Option<u64>,
    /// When it showed that first, and when last.
    pub(super) first: Duration,
    pub(super) at: Duration,
}

/// One offer of one maker.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) offer: Offer,
    /// When its maker had these terms instead of others; `None` while they are the first that are known.
    pub(super) changed: Option<Duration>,
    /// When its maker last signed these terms.
    pub(super) signed: Option<Duration>,
    /// When a public line last had these terms.
    pub(super) public: Option<Duration>,
    /// A public line says otherwise since it was signed.
    pub(super) disputed: bool,
    /// Public lines, one a way.
    pub(super) shown: Vec<Shown>,
    /// Directories that brought these terms with their maker's signature, one bit each.
    answered: u64,
}

impl Listed {
    /// When it was last heard.
    pub(super) fn heard(&self) -> Duration {
        self.signed.max(self.public).unwrap_or_default()
    }

    /// Whether its maker's word is recent enough to stand against public lines.
    pub(super) fn is_signed(&self, now: Duration, lifetime: Duration) -> bool {
        self.signed.is_some_and(|at| now.saturating_sub(at) < lifetime)
    }

    /// Whether a directory brought these terms with their maker's signature.
    pub(super) fn is_answered_by(&self, via: Source) -> bool {
        self.answered & bit(via) != 0
    }

    fn note(&mut self, via: Source, terms: Option<u64>, at: Duration) {
        if let Some(shown) = self.shown.iter_mut().find(|shown| shown.via == via) {
            let first = if shown.terms == terms { shown.first } else { at };
            *shown = Shown { via, terms, first, at };
        } else if self.shown.len() < MAX_PLACES {
            self.shown.push(Shown { via, terms, first: at, at });
        }
    }

    /// The maker has other terms now.
    fn replace(&mut self, offer: Offer, now: Duration) {
        (self.offer, self.changed, self.answered) = (offer, Some(now), 0);
    }
}

/// A directory's bit; other ways have none. There are at most 64 directories.
fn bit(via: Source) -> u64 {
    match via {
        Source::Directory(id) => 1_u64.checked_shl(id.0.into()).unwrap_or(0),
        Source::Direct(_) | Source::Irc(_) => 0,
    }
}

/// Where a nick is, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) via: Source,
    pub(super) since: Duration,
}

/// Digest of an offer's terms, for comparing what directories show.
pub(super) fn terms(offer: &Offer) -> u64 {
    let mut hasher = DefaultHasher::new();
    offer.hash(&mut hasher);
    hasher.finish()
}

/// One nick.
#[derive(Debug)]
pub(super) struct Maker {
    /// Whose quota it counts against.
    introduced: Group,
    /// Ways on which it is there.
    pub(super) places: Vec<Place>,
    /// Directories that it left, or that said so, and when, until it is there again.
    left: Vec<Place>,
    /// A peer list says where it serves.
    pub(super) serves: bool,
    pub(super) offers: BTreeMap<OfferId, Listed>,
    pub(super) bond: Option<BondClaim>,
    /// Digest of the proof that was checked last: the same text is not checked twice.
    pub(super) checked: Option<u64>,
}

impl Maker {
    /// Since when it is there.
    pub(super) fn there_since(&self, via: Source) -> Option<Duration> {
        self.places.iter().find(|place| place.via == via).map(|place| place.since)
    }

    /// When it left a way on which it is not there any more.
    pub(super) fn left_at(&self, via: Source) -> Option<Duration> {
        self.left.iter().find(|place| place.via == via).map(|place| place.since)
    }

    fn leave(&mut self, via: Source) {
        self.places.retain(|place| place.via != via);
    }
}

/// What an input changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// Something that readers see.
    pub(super) visible: bool,
    /// An offer that was not there before, or other terms: a collection goes on.
    pub(super) new: bool,
    /// A public line contradicts a signed offer.
    pub(super) disputed: bool,
}

impl std::ops::BitOrAssign for Change {
    fn bitor_assign(&mut self, other: Self) {
        self.visible |= other.visible;
        self.new |= other.new;
        self.disputed |= other.disputed;
    }
}

const VISIBLE: Change = Change { visible: true, new: false, disputed: false };
const NEW: Change = Change { visible: true, new: true, disputed: false };
const DISPUTED: Change = Change { visible: true, new: false, disputed: true };
const NOTHING: Change = Change { visible: false, new: false, disputed: false };

/// What one group has introduced.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    nicks: usize,
    /// Nicks among them that offer nothing.
    idle: usize,
    offers: usize,
}

/// Every nick.
#[derive(Debug)]
pub(super) struct Makers {
    ours: Nick,
    stale: Duration,
    nicks: usize,
    offers: usize,
    makers: HashMap<Nick, Maker>,
    used: HashMap<Group, Used>,
}

impl Makers {
    pub(super) fn new(config: &OrderBookConfig) -> Self {
        let groups = usize::from(config.directories.saturating_add(config.irc_servers)).max(1);
        Self {
            ours: config.our_nick,
            stale: config.timing.stale,
            nicks: (config.limits.nicks / groups).max(1),
            offers: (config.limits.offers / groups).max(1),
            makers: HashMap::new(),
            used: HashMap::new(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Nick, &Maker)> {
        self.makers.iter()
    }

    pub(super) fn get_mut(&mut self, nick: &Nick) -> Option<&mut Maker> {
        self.makers.get_mut(nick)
    }

    pub(super) fn nick_count(&self) -> usize {
        self.makers.len()
    }

    pub(super) fn offer_count(&self) -> usize {
        self.used.values().map(|used| used.offers).sum()
    }

    /// The maker, made if the way's quota allows.
    fn enter(
        &mut self,
        nick: Nick,
        via: Source,
        offers: bool,
        now: Duration,
    ) -> Option<&mut Maker> {
        if nick == self.ours {
            return None;
        }
        if !self.makers.contains_key(&nick) {
            let introduced = group(via);
            let used = self.used.entry(introduced).or_default();
            if used.nicks >= self.nicks || (!offers && used.idle >= self.nicks.div_ceil(2)) {
                return None;
            }
            used.nicks = used.nicks.saturating_add(1);
            used.idle = used.idle.saturating_add(1);
            let maker = Maker {
                introduced,
                places: Vec::new(),
                left: Vec::new(),
                serves: false,
                offers: BTreeMap::new(),
                bond: None,
                checked: None,
            };
            self.makers.insert(nick, maker);
        }
        let maker = self.makers.get_mut(&nick)?;
        if maker.there_since(via).is_none() && maker.places.len() < MAX_PLACES {
            maker.places.push(Place { via, since: now });
            maker.left.retain(|place| place.via != via);
        }
        Some(maker)
    }

    /// A nick is there.
    pub(super) fn seen(&mut self, nick: Nick, via: Source, now: Duration) -> Change {
        let before = self.makers.get(&nick).map(|maker| maker.places.len());
        let Some(maker) = self.enter(nick, via, false, now) else { return NOTHING };
        let moved = before.is_some_and(|before| before != maker.places.len());
        if moved && !maker.offers.is_empty() { VISIBLE } else { NOTHING }
    }

    /// A peer list says where a nick serves.
    pub(super) fn serves(&mut self, nick: &Nick) {
        if let Some(maker) = self.makers.get_mut(nick) {
            maker.serves = true;
        }
    }

    /// A nick is gone from there; nowhere left: its offers and bond go, too.
    pub(super) fn left(&mut self, nick: &Nick, via: Source, now: Duration) -> Change {
        let Some(maker) = self.makers.get_mut(nick) else { return NOTHING };
        // Directories are few and stay; direct connections have a new number each time.
        if matches!(via, Source::Directory(_)) && maker.there_since(via).is_some() {
            maker.left.push(Place { via, since: now });
        }
        maker.leave(via);
        let visible = !maker.offers.is_empty();
        if maker.places.is_empty() {
            self.remove(nick);
        }
        if visible { VISIBLE } else { NOTHING }
    }

    /// A way is lost with everything it said of presence.
    pub(super) fn down(&mut self, via: Source) -> Change {
        let mut gone = Vec::new();
        let mut change = NOTHING;
        for (nick, maker) in &mut self.makers {
            let before = maker.places.len();
            maker.leave(via);
            change.visible |= maker.places.len() != before && !maker.offers.is_empty();
            if maker.places.is_empty() {
                gone.push(*nick);
            }
        }
        for nick in gone {
            self.remove(&nick);
        }
        change
    }

    fn remove(&mut self, nick: &Nick) {
        let Some(maker) = self.makers.remove(nick) else { return };
        let used = self.used.entry(maker.introduced).or_default();
        used.nicks = used.nicks.saturating_sub(1);
        used.offers = used.offers.saturating_sub(maker.offers.len());
        if maker.offers.is_empty() {
            used.idle = used.idle.saturating_sub(1);
        }
    }

    /// The maker signed these terms.
    pub(super) fn signed_offer(
        &mut self,
        nick: Nick,
        via: Source,
        offer: Offer,
        now: Duration,
    ) -> Change {
        let Some(maker) = self.enter(nick, via, true, now) else { return NOTHING };
        if let Some(listed) = maker.offers.get_mut(&offer.id) {
            let same = listed.offer == offer;
            let visible = !same || listed.signed.is_none() || listed.disputed;
            if !same {
                listed.replace(offer, now);
            }
            listed.answered |= bit(via);
            listed.signed = Some(now);
            listed.public = if same { listed.public } else { None };
            listed.disputed = false;
            return Change { visible, new: !same, disputed: false };
        }
        // Strangers may have filled the maker's places with made-up offers: its own word goes first.
        let public_only =
            |(id, listed): (&OfferId, &Listed)| listed.signed.is_none().then_some(*id);
        let full = maker.offers.len() >= MAX_OFFERS_PER_NICK;
        let victim = full.then(|| maker.offers.iter().find_map(public_only));
        match victim {
            Some(Some(id)) => self.withdraw(&nick, id),
            Some(None) => return NOTHING,
            None => {}
        }
        self.add(nick, offer, via, true, now)
    }

    /// A line claims that the maker has these terms.
    pub(super) fn public_offer(
        &mut self,
        nick: Nick,
        via: Source,
        offer: Offer,
        now: Duration,
    ) -> Change {
        let stale = self.stale;
        let Some(maker) = self.enter(nick, via, true, now) else { return NOTHING };
        if let Some(listed) = maker.offers.get_mut(&offer.id) {
            let digest = terms(&offer);
            listed.note(via, Some(digest), now);
            if listed.offer == offer {
                listed.public = Some(now);
                return NOTHING;
            }
            if listed.is_signed(now, stale) {
                let change = if listed.disputed { NOTHING } else { DISPUTED };
                listed.disputed = true;
                return change;
            }
            listed.replace(offer, now);
            (listed.signed, listed.public) = (None, Some(now));
            listed.disputed = false;
            return NEW;
        }
        if maker.offers.len() >= MAX_OFFERS_PER_NICK {
            return NOTHING;
        }
        self.add(nick, offer, via, false, now)
    }

    fn add(
        &mut self,
        nick: Nick,
        offer: Offer,
        via: Source,
        signed: bool,
        now: Duration,
    ) -> Change {
        let Some(maker) = self.makers.get_mut(&nick) else { return NOTHING };
        let used = self.used.entry(maker.introduced).or_default();
        if used.offers >= self.offers {
            return NOTHING;
        }
        used.offers = used.offers.saturating_add(1);
        if maker.offers.is_empty() {
            used.idle = used.idle.saturating_sub(1);
        }
        let mut listed = Listed {
            offer,
            changed: None,
            signed: signed.then_some(now),
            public: (!signed).then_some(now),
            disputed: false,
            shown: Vec::new(),
            answered: if signed { bit(via) } else { 0 },
        };
        if !signed {
            listed.note(via, Some(terms(&offer)), now);
        }
        maker.offers.insert(offer.id, listed);
        NEW
    }

    /// The maker signed that this offer is gone or that its new terms are nonsense.
    pub(super) fn signed_cancel(&mut self, nick: &Nick, id: OfferId) -> Change {
        if self.makers.get(nick).is_some_and(|maker| maker.offers.contains_key(&id)) {
            self.withdraw(nick, id);
            return VISIBLE;
        }
        NOTHING
    }

    /// A line claims that an offer is gone or has terms that are nonsense.
    pub(super) fn public_cancel(
        &mut self,
        nick: &Nick,
        via: Source,
        id: OfferId,
        now: Duration,
    ) -> Change {
        let stale = self.stale;
        let Some(maker) = self.makers.get_mut(nick) else { return NOTHING };
        let Some(listed) = maker.offers.get_mut(&id) else { return NOTHING };
        if listed.is_signed(now, stale) {
            listed.note(via, None, now);
            let change = if listed.disputed { NOTHING } else { DISPUTED };
            listed.disputed = true;
            return change;
        }
        self.withdraw(nick, id);
        VISIBLE
    }

    fn withdraw(&mut self, nick: &Nick, id: OfferId) {
        let Some(maker) = self.makers.get_mut(nick) else { return };
        if maker.offers.remove(&id).is_some() {
            let used = self.used.entry(maker.introduced).or_default();
            used.offers = used.offers.saturating_sub(1);
            if maker.offers.is_empty() {
                used.idle = used.idle.saturating_add(1);
            }
        }
    }

    /// Drops what nobody confirmed for too long.
    pub(super) fn age(&mut self, now: Duration) -> Change {
        let mut old = Vec::new();
        for (nick, maker) in &self.makers {
            for (id, listed) in &maker.offers {
                if now.saturating_sub(listed.heard()) >= self.stale {
                    old.push((*nick, *id));
                }
            }
        }
        let change = if old.is_empty() { NOTHING } else { VISIBLE };
        for (nick, id) in old {
            self.withdraw(&nick, id);
        }
        change
    }
}
