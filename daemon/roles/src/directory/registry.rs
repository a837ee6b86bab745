//! Who is here: connections by place, link, nick and onion name.
//!
//! Walking over all is in the order of places and so the same in every run of a simulation; the maps are only
//! looked into.

use std::collections::HashMap;

use joinery_proto::nick::Nick;

use super::peer::{Member, Peer};
use crate::event::LinkId;

#[derive(Debug, Default)]
pub(super) struct Registry {
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    by_link: HashMap<LinkId, usize>,
    by_nick: HashMap<Nick, usize>,
    by_onion: HashMap<[u8; 32], usize>,
    makers: usize,
}

impl Registry {
    /// Connections, whether or not they shook hands.
    pub(super) fn connections(&self) -> usize {
        self.by_link.len()
    }

    /// Registered members.
    pub(super) fn members(&self) -> usize {
        self.by_nick.len()
    }

    /// Registered makers.
    pub(super) const fn makers(&self) -> usize {
        self.makers
    }

    /// Places; some may be empty.
    pub(super) fn slots(&self) -> usize {
        self.peers.len()
    }

    /// Puts a connection in a free place. One with a known link is not taken.
    pub(super) fn insert(&mut self, peer: Peer) {
        let link = peer.link;
        if self.by_link.contains_key(&link) {
            return;
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.peers.push(None);
                self.peers.len().saturating_sub(1)
            }
        };
        if let Some(slot) = self.peers.get_mut(place) {
            *slot = Some(peer);
            self.by_link.insert(link, place);
        }
    }

    /// Takes a connection out, with everything that it held.
    pub(super) fn remove(&mut self, place: usize) -> Option<Peer> {
        let peer = self.peers.get_mut(place)?.take()?;
        self.by_link.remove(&peer.link);
        self.free.push(place);
        if let Some(member) = peer.registered() {
            self.by_nick.remove(&member.nick);
            if let Some(onion) = &member.onion {
                self.by_onion.remove(onion);
            }
            self.makers = self.makers.saturating_sub(usize::from(member.is_maker()));
        }
        Some(peer)
    }

    /// Gives a member its nick and its onion name, which the caller has seen to be free.
    pub(super) fn register(&mut self, place: usize) {
        let Some(member) = self.get_mut(place).and_then(|peer| peer.member.as_deref_mut()) else {
            return;
        };
        member.registered = true;
        let (nick, onion, maker) = (member.nick, member.onion, member.is_maker());
        self.by_nick.insert(nick, place);
        if let Some(onion) = onion {
            self.by_onion.insert(onion, place);
        }
        self.makers = self.makers.saturating_add(usize::from(maker));
    }

    /// Notes that a member offers something.
    pub(super) fn offers(&mut self, place: usize) {
        let member = self.get_mut(place).and_then(|peer| peer.member.as_deref_mut());
        if let Some(member) = member.filter(|member| member.registered) {
            let before = member.is_maker();
            member.offers = true;
            self.makers = self.makers.saturating_add(usize::from(!before));
        }
    }

    pub(super) fn place(&self, link: LinkId) -> Option<usize> {
        self.by_link.get(&link).copied()
    }

    pub(super) fn nick(&self, nick: &Nick) -> Option<usize> {
        self.by_nick.get(nick).copied()
    }

    /// Who else holds this member's onion name: not one with the same nick.
    pub(super) fn onion_rival(&self, member: &Member) -> Option<usize> {
        let place = self.by_onion.get(member.onion.as_ref()?).copied()?;
        let holder = self.get(place)?.member.as_deref()?;
        (holder.nick != member.nick).then_some(place)
    }

    pub(super) fn get(&self, place: usize) -> Option<&Peer> {
        self.peers.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Peer> {
        self.peers.get_mut(place)?.as_mut()
    }

    /// The member in a place.
    pub(super) fn member_mut(&mut self, place: usize) -> Option<&mut Member> {
        self.get_mut(place)?.member.as_deref_mut()
    }

    /// All connections with their places, in the order of places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Peer)> {
        let places = self.peers.iter().enumerate();
        places.filter_map(|(place, peer)| Some((place, peer.as_ref()?)))
    }

    /// As [`Self::iter`].
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Peer)> {
        let places = self.peers.iter_mut().enumerate();
        places.filter_map(|(place, peer)| Some((place, peer.as_mut()?)))
    }
}
