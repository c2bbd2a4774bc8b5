//! Who is there on `-out-stream`, told as joins and losses in their right place among the messages.
//!
//! ZeroMQ hides connections, but the edge must know when one is lost: requests whose handler is
//! gone go to another one. omq offers two sources, and neither is enough alone. Snapshots of the
//! ready connections never miss a change that lasts, but they come at a time of their own, and two
//! changes may become one. Messages carry the number of their connection, so a new one is known at
//! its first message, but a lost one sends none. The roster joins the two:
//!
//! * a message from a connection that is newer than the known one of that identity: the old one is
//!   lost, the new one has joined, then comes the message;
//! * a snapshot without a known connection: it is lost. Unless the snapshot is older than the
//!   message from which the connection is known; so each message that teaches a connection raises
//!   `epoch`, which asks for a new snapshot, and only a snapshot taken at that epoch or later can
//!   end it.
//!
//! Why losses come after all messages of the connection is told in `mod.rs`. The roster is a pure
//! machine: it holds no socket, and its memory is one entry for each peer.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

use super::inbound::Inbound;

/// The ready connections of a socket at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// All that was known up to this epoch is older than the snapshot.
    pub(super) epoch: u64,
    /// Up to date as long as this is the socket's.
    pub(super) generation: u64,
    /// Number of the connection in its socket, larger for a later one; and the identity of its
    /// peer.
    pub(super) connections: Vec<(u64, Bytes)>,
}

/// The peers that have been told as joined and not yet as lost.
#[derive(Debug, Default)]
pub(super) struct Roster {
    peers: HashMap<Bytes, Presence>,
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct Presence {
    connection: u64,
    /// A snapshot that is older than this says nothing about this connection.
    since: u64,
}

impl Roster {
    /// What the next snapshot has to carry, to count for all that is known.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes note of who has sent the message that is about to be handed out. True if a new
    /// snapshot is needed.
    pub(super) fn handle_sender(
        &mut self,
        peer: &Bytes,
        connection: u64,
        events: &mut VecDeque<Inbound>,
    ) -> bool {
        let known = self.peers.get(peer).map(|presence| presence.connection);
        if known.is_some_and(|known| known >= connection) {
            return false;
        }
        self.epoch += 1;
        self.join(peer, Presence { connection, since: self.epoch }, events);
        true
    }

    /// Brings the roster up to a snapshot.
    pub(super) fn handle_snapshot(&mut self, snapshot: &Snapshot, events: &mut VecDeque<Inbound>) {
        let there: HashSet<&Bytes> = snapshot.connections.iter().map(|(_, peer)| peer).collect();
        self.peers.retain(|peer, presence| {
            let lost = presence.since <= snapshot.epoch && !there.contains(peer);
            if lost {
                events.push_back(Inbound::PeerLost { peer: peer.clone() });
            }
            !lost
        });
        for (connection, peer) in &snapshot.connections {
            if self.peers.get(peer).is_none_or(|presence| presence.connection < *connection) {
                self.join(peer, Presence { connection: *connection, since: 0 }, events);
            }
        }
    }

    fn join(&mut self, peer: &Bytes, presence: Presence, events: &mut VecDeque<Inbound>) {
        if self.peers.insert(peer.clone(), presence).is_some() {
            events.push_back(Inbound::PeerLost { peer: peer.clone() });
        }
        events.push_back(Inbound::PeerJoined { peer: peer.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    /// A roster with its events as text: `+a` joined, `-a` lost.
    #[derive(Default)]
    struct Told {
        roster: Roster,
        events: VecDeque<Inbound>,
    }

    impl Told {
        fn take(&mut self) -> String {
            let text = |event| match event {
                Inbound::PeerJoined { peer } => format!("+{}", String::from_utf8_lossy(&peer)),
                Inbound::PeerLost { peer } => format!("-{}", String::from_utf8_lossy(&peer)),
                event => panic!("{event:?}"),
            };
            self.events.drain(..).map(text).collect()
        }

        fn message(&mut self, peer: &'static str, connection: u64) -> String {
            self.roster.handle_sender(&id(peer), connection, &mut self.events);
            self.take()
        }

        fn snapshot(&mut self, epoch: u64, connections: &[(u64, &'static str)]) -> String {
            let connections =
                connections.iter().map(|(connection, peer)| (*connection, id(peer))).collect();
            self.roster
                .handle_snapshot(&Snapshot { epoch, generation: 0, connections }, &mut self.events);
            self.take()
        }
    }

    #[test]
    fn snapshots_join_and_lose() {
        let mut told = Told::default();
        assert_eq!(told.snapshot(0, &[(1, "a")]), "+a");
        assert_eq!(told.message("a", 1), "");
        assert_eq!(told.snapshot(0, &[(1, "a"), (2, "b")]), "+b");
        assert_eq!(told.snapshot(0, &[(2, "b")]), "-a");
        assert_eq!(told.snapshot(0, &[(5, "b")]), "-b+b");
    }

    #[test]
    fn a_message_teaches_a_connection_before_any_snapshot() {
        let mut told = Told::default();
        assert_eq!(told.message("a", 3), "+a");
        assert_eq!(told.roster.epoch(), 1);
        assert_eq!(told.snapshot(0, &[]), "", "that snapshot may be older than the message");
        assert_eq!(told.snapshot(1, &[]), "-a");
    }

    #[test]
    fn an_identity_taken_over_is_lost_and_joined_once() {
        let mut told = Told::default();
        assert_eq!(told.snapshot(0, &[(1, "a")]), "+a");
        assert_eq!(told.message("a", 7), "-a+a");
        assert_eq!(
            told.message("a", 1),
            "",
            "a late message of the old connection changes nothing"
        );
        assert_eq!(told.snapshot(0, &[(1, "a")]), "", "an old snapshot neither");
        assert_eq!(told.snapshot(1, &[(7, "a")]), "");
        assert_eq!(told.snapshot(1, &[]), "-a");
    }
}
