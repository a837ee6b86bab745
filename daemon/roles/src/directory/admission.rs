//! Who gets in: handshakes and proofs of nicks (`spec/protocol.md` 4.5, 14.4).

use std::time::Duration;

use joinery_proto::onion::envelope::MessageType;
use joinery_proto::onion::features::{self, Features};
use joinery_proto::onion::handshake::{DirectoryHandshake, HandshakeError, PeerHandshake};
use joinery_proto::onion::location::{Location, PeerAddress};
use joinery_proto::onion::nick_auth::{
    self, Challenge, NickAuthError, Proof, Verdict, VerdictCode,
};
use joinery_proto::onion::onion_name;

use super::Directory;
use super::frame::Frame;
use super::incident::Incident;
use super::limits::PROOF;
use super::peer::{Member, Proving};

impl Directory {
    /// The first line of a connection.
    pub(super) fn handshake(&mut self, place: usize, line: &str, now: Duration) {
        let handshake = match PeerHandshake::parse(line, &self.settings.network) {
            Ok(handshake) => handshake,
            Err(error) => return self.refuse(place, incident_of(&error), now),
        };
        if !self.is_location_allowed(&handshake.location) {
            return self.refuse(place, Incident::BadLocation, now);
        }
        if self.peers.members() >= self.settings.max_peers {
            return self.refuse(place, Incident::Full, now);
        }
        let mut member = Member::new(&handshake);
        if self.peers.onion_rival(&member).is_some() {
            return self.refuse(place, Incident::OnionTaken, now);
        }
        let taken = self.peers.nick(&member.nick).is_some() || member.nick == self.nick;
        let identity = self.settings.identity.clone();
        let identity = identity.filter(|_| handshake.features.has(features::NICK_AUTH));
        if taken && (identity.is_none() || member.nick == self.nick) {
            return self.refuse(place, Incident::NickTaken, now);
        }
        let challenge = identity.map(|identity| Challenge::new(self.draws.draw(), &identity));
        member.proof = challenge
            .clone()
            .map(|challenge| Box::new(Proving { challenge, handshake: nick_auth::hash_of(line) }));
        let Some(peer) = self.peers.get_mut(place) else { return };
        let link = peer.link;
        peer.member = Some(Box::new(member));
        self.counters.handshakes = self.counters.handshakes.saturating_add(1);
        let answer = self.answer(true, self.settings.motd.clone());
        if let Some(frame) = Frame::directed(MessageType::DirectoryHandshake, answer) {
            self.send(place, &frame, now);
        }
        // A free nick is given at once: what its owner says before it has proved anything must not be lost.
        if !taken {
            self.admit(place);
        }
        if let Some(challenge) = challenge
            && let Some(frame) =
                Frame::directed(MessageType::NickAuthChallenge, challenge.to_line())
        {
            self.proofs.push_back((now.saturating_add(PROOF), link));
            self.send(place, &frame, now);
        }
    }

    /// Type 805.
    pub(super) fn prove(&mut self, place: usize, line: &str, now: Duration) {
        let member = self.peers.member_mut(place);
        let Some((nick, proving)) = member.and_then(|m| Some((m.nick, m.proof.take()?))) else {
            return self.close(place, Incident::ProofUnasked, now);
        };
        let checked = Proof::parse(line)
            .and_then(|proof| proof.verify_hashed(&proving.challenge, &proving.handshake, &nick));
        if let Err(error) = checked {
            let code = match error {
                NickAuthError::Malformed => VerdictCode::Malformed,
                _ => VerdictCode::Invalid,
            };
            self.tell_verdict(place, code, now);
            return self.close(place, Incident::ProofFailed, now);
        }
        // While the proof was on its way somebody else may have come with this onion name.
        let rival = self.peers.get(place).and_then(|peer| peer.member.as_deref());
        if rival.is_some_and(|member| self.peers.onion_rival(member).is_some()) {
            self.tell_verdict(place, VerdictCode::Policy, now);
            return self.close(place, Incident::OnionTaken, now);
        }
        self.counters.proofs = self.counters.proofs.saturating_add(1);
        // The owner is back, and its old connection is dead or somebody else's. Everybody hears that the old one is
        // gone before anything comes from the new one.
        if let Some(holder) = self.peers.nick(&nick).filter(|holder| *holder != place) {
            self.close(holder, Incident::Displaced, now);
            self.tell_departures(now, true);
        }
        self.admit(place);
        self.tell_verdict(place, VerdictCode::Ok, now);
    }

    /// Ends a proof that did not come.
    pub(super) fn refuse_proof(&mut self, place: usize, incident: Incident, now: Duration) {
        self.tell_verdict(place, VerdictCode::Expired, now);
        self.close(place, incident, now);
    }

    /// Registers a member under its nick, which is free.
    fn admit(&mut self, place: usize) {
        let Some(member) = self.peers.member_mut(place) else { return };
        if member.registered {
            return;
        }
        let nick = member.nick;
        // Whoever comes back before its departure was told has not left.
        self.departed.retain(|(departed, _)| *departed != nick);
        self.peers.register(place);
    }

    fn tell_verdict(&mut self, place: usize, code: VerdictCode, now: Duration) {
        let verdict = Verdict { code, verified: code == VerdictCode::Ok };
        if let Some(frame) = Frame::directed(MessageType::NickAuthResult, verdict.to_line()) {
            self.send(place, &frame, now);
        }
    }

    /// Answers a handshake that could be read, and closes.
    fn refuse(&mut self, place: usize, incident: Incident, now: Duration) {
        if incident != Incident::MalformedHandshake {
            let answer = self.answer(false, format!("Refused: {}", sentence(incident)));
            if let Some(frame) = Frame::directed(MessageType::DirectoryHandshake, answer) {
                self.send(place, &frame, now);
            }
        }
        self.close(place, incident, now);
    }

    /// The text of type 795. A refusal names no features, as those of the deployed nodes.
    fn answer(&self, accepted: bool, motd: String) -> String {
        let mut names = Vec::new();
        if accepted {
            names.extend([features::PEERLIST_FEATURES, features::PING]);
            names.extend(self.settings.identity.as_ref().map(|_| features::NICK_AUTH));
        }
        let handshake = DirectoryHandshake {
            nick: self.nick.to_string(),
            accepted,
            network: self.settings.network.clone(),
            features: Features::from_names(names),
            motd,
        };
        handshake.to_line()
    }

    fn is_location_allowed(&self, location: &Location) -> bool {
        let loopback = |address: &PeerAddress| {
            let ip = address.host().parse::<std::net::IpAddr>();
            self.settings.loopback_peers && ip.is_ok_and(|ip| ip.is_loopback())
        };
        match location {
            Location::NotServing => true,
            Location::Address(address) => {
                onion_name::decode(address.host()).is_some() || loopback(address)
            }
        }
    }
}

const fn incident_of(error: &HandshakeError) -> Incident {
    match error {
        HandshakeError::Location => Incident::BadLocation,
        HandshakeError::Nick => Incident::BadNick,
        HandshakeError::AppName
        | HandshakeError::Directory
        | HandshakeError::Version
        | HandshakeError::Network { .. } => Incident::ForeignHandshake,
        _ => Incident::MalformedHandshake,
    }
}

/// What the refused peer may hear.
const fn sentence(incident: Incident) -> &'static str {
    match incident {
        Incident::BadLocation => "location is not a version 3 onion address",
        Incident::BadNick => "nick is malformed",
        Incident::Full => "directory is full",
        Incident::NickTaken => "nick is already registered",
        Incident::OnionTaken => "onion address is already registered",
        _ => "application, version or network does not match",
    }
}
