//! Which channel a private message takes where a peer can be met on several (`spec/protocol.md` 4.9, 5).
//!
//! Every message goes over exactly one. A conversation stays on its channel as long as the peer is there: a maker that
//! gets the same `!fill` twice takes the second one for a restart. An answer goes where the message came from. A new
//! conversation prefers the onion channel, where nobody but directories can read along and lines are not throttled;
//! which directory or direct connection it takes there is decided by [`crate::channel::OnionChannel`].

use std::collections::BTreeMap;

use joinery_proto::nick::Nick;

use crate::event::{ChannelEvent, Source};

/// Most peers that are kept; the channels hold no more between them for long.
pub const MAX_PEERS: usize = 24_000;
/// Most ways that are kept for one peer.
const MAX_WAYS: usize = 128;

/// A channel, by which a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// The onion channel.
    Onion,
    /// The server of the IRC channel with this number.
    Irc(u16),
}

impl From<Source> for Route {
    fn from(source: Source) -> Self {
        match source {
            Source::Directory(_) | Source::Direct(_) => Self::Onion,
            Source::Irc(server) => Self::Irc(server),
        }
    }
}

#[derive(Debug, Default)]
struct Peer {
    /// Where it is.
    ways: Vec<Source>,
    /// The channel of the conversation under way.
    pinned: Option<Route>,
    /// The channel on which it last proved to have spoken.
    spoke: Option<Route>,
}

impl Peer {
    fn is_on(&self, route: Route) -> bool {
        self.ways.iter().any(|way| Route::from(*way) == route)
    }
}

/// Where every peer is, and which channel each conversation takes.
#[derive(Debug, Default)]
pub struct Routes {
    peers: BTreeMap<Nick, Peer>,
}

impl Routes {
    /// A channel has news. Events of all channels of one nick come here.
    pub fn event(&mut self, event: &ChannelEvent) {
        match event {
            ChannelEvent::Up(_)
            | ChannelEvent::Public { .. }
            | ChannelEvent::Lists(_)
            | ChannelEvent::Serves { .. } => {}
            ChannelEvent::Seen { nick, via } => {
                self.enter(*nick, *via);
            }
            ChannelEvent::Private { from, via, .. } => {
                if let Some(peer) = self.enter(*from, *via) {
                    peer.spoke = Some(Route::from(*via));
                }
            }
            ChannelEvent::Left { nick, via } => {
                if let Some(peer) = self.peers.get_mut(nick) {
                    peer.ways.retain(|way| way != via);
                    if peer.ways.is_empty() {
                        self.peers.remove(nick);
                    }
                }
            }
            ChannelEvent::Down(via) => {
                self.peers.retain(|_, peer| {
                    peer.ways.retain(|way| way != via);
                    !peer.ways.is_empty()
                });
            }
        }
    }

    /// The channel for a message to a peer. `answers`: where the message that it answers came from. `None`: the peer
    /// is nowhere. What is chosen stays chosen until [`Self::release`], or until the peer is not there any more.
    pub fn choose(&mut self, nick: &Nick, answers: Option<Source>) -> Option<Route> {
        let peer = self.peers.get_mut(nick)?;
        let irc = |peer: &Peer| {
            let routes = peer.ways.iter().map(|way| Route::from(*way));
            routes.filter(|route| *route != Route::Onion).min()
        };
        let wishes =
            [answers.map(Route::from), peer.pinned, Some(Route::Onion), peer.spoke, irc(peer)];
        let route = wishes.into_iter().flatten().find(|route| peer.is_on(*route));
        peer.pinned = route;
        route
    }

    /// The conversation with a peer is over: the next one may take another channel.
    pub fn release(&mut self, nick: &Nick) {
        if let Some(peer) = self.peers.get_mut(nick) {
            peer.pinned = None;
        }
    }

    /// How many peers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn enter(&mut self, nick: Nick, via: Source) -> Option<&mut Peer> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&nick) {
            return None;
        }
        let peer = self.peers.entry(nick).or_default();
        if !peer.ways.contains(&via) && peer.ways.len() < MAX_WAYS {
            peer.ways.push(via);
        }
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DirectoryId, LinkId};

    const IRC: Source = Source::Irc(1);
    const ONION: Source = Source::Directory(DirectoryId(0));

    fn nick() -> Nick {
        "J5DdKBhSf2Ykxqqy".parse().unwrap()
    }

    fn seen(routes: &mut Routes, via: Source) {
        routes.event(&ChannelEvent::Seen { nick: nick(), via });
    }

    fn left(routes: &mut Routes, via: Source) {
        routes.event(&ChannelEvent::Left { nick: nick(), via });
    }

    #[test]
    fn new_conversations_prefer_the_onion_channel_and_stay_where_they_began() {
        let mut routes = Routes::default();
        assert_eq!(routes.choose(&nick(), None), None);
        seen(&mut routes, IRC);
        assert_eq!(routes.choose(&nick(), None), Some(Route::Irc(1)));
        // It shows itself on the onion channel in the middle of the conversation.
        seen(&mut routes, ONION);
        assert_eq!(routes.choose(&nick(), None), Some(Route::Irc(1)));
        routes.release(&nick());
        assert_eq!(routes.choose(&nick(), None), Some(Route::Onion));
    }

    #[test]
    fn answers_go_where_the_message_came_from() {
        let mut routes = Routes::default();
        seen(&mut routes, ONION);
        seen(&mut routes, IRC);
        assert_eq!(routes.choose(&nick(), Some(IRC)), Some(Route::Irc(1)));
        assert_eq!(routes.choose(&nick(), None), Some(Route::Irc(1)), "and stay there");
        // A direct connection is the onion channel, which the taker may change to (checklist 38).
        let direct = Source::Direct(LinkId(7));
        routes.event(&ChannelEvent::Private { from: nick(), via: direct, text: String::new() });
        assert_eq!(routes.choose(&nick(), Some(direct)), Some(Route::Onion));
    }

    #[test]
    fn a_peer_that_leaves_one_channel_is_met_on_another() {
        let mut routes = Routes::default();
        seen(&mut routes, ONION);
        seen(&mut routes, IRC);
        assert_eq!(routes.choose(&nick(), None), Some(Route::Onion));
        left(&mut routes, ONION);
        assert_eq!(routes.choose(&nick(), Some(ONION)), Some(Route::Irc(1)));
        routes.event(&ChannelEvent::Down(IRC));
        assert_eq!(routes.choose(&nick(), None), None);
        assert!(routes.is_empty());
    }

    #[test]
    fn among_irc_servers_the_one_where_it_last_spoke_comes_first() {
        let mut routes = Routes::default();
        for server in 0..3 {
            seen(&mut routes, Source::Irc(server));
        }
        let private =
            ChannelEvent::Private { from: nick(), via: Source::Irc(2), text: String::new() };
        routes.event(&private);
        assert_eq!(routes.choose(&nick(), None), Some(Route::Irc(2)));
        routes.release(&nick());
        left(&mut routes, Source::Irc(2));
        assert_eq!(routes.choose(&nick(), None), Some(Route::Irc(0)));
    }
}
