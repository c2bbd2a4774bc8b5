//! The sessions that a handler holds, by their ids and by what they asked for.
//!
//! A channel is a path: who POSTs to it reaches the sessions that asked for it. Event streams and WebSockets of a path are two
//! lists, because a packet for several sessions says the same to all, and the two are not told the same.

use std::collections::HashMap;

use zhttp::Id;

/// How data is put to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    /// An event stream.
    Stream,
    /// A WebSocket.
    Socket,
}

impl Transport {
    /// Both.
    pub(super) const ALL: [Transport; 2] = [Transport::Stream, Transport::Socket];

    /// How the request for this absolute target is answered, and its path.
    pub(super) fn of_uri(uri: &str) -> (Self, &str) {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("http", uri));
        let transport =
            if matches!(scheme, "ws" | "wss") { Transport::Socket } else { Transport::Stream };
        (transport, rest.find('/').map_or("/", |place| &rest[place..]))
    }
}

/// One session.
#[derive(Debug)]
struct Session {
    id: Box<[u8]>,
    /// The number of the next packet to it.
    seq: u32,
    channel: usize,
    /// Its place in the channel's list.
    place: usize,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: Vec<Option<Session>>,
    vacant: Vec<usize>,
    by_id: HashMap<Box<[u8]>, usize>,
    channels: HashMap<(Transport, Box<str>), usize>,
    /// The sessions of each channel.
    members: Vec<Vec<usize>>,
}

impl Sessions {
    /// Takes a session whose first packet has the number 0.
    pub(super) fn open(&mut self, id: &[u8], transport: Transport, path: &str) {
        let key = (transport, path.into());
        let channel = *self.channels.entry(key).or_insert(self.members.len());
        if channel == self.members.len() {
            self.members.push(Vec::new());
        }
        let place = self.members[channel].len();
        let session = Session { id: id.into(), seq: 1, channel, place };
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.sessions[key] = Some(session);
        self.members[channel].push(key);
        self.by_id.insert(id.into(), key);
    }

    /// Forgets a session, if it is known.
    pub(super) fn close(&mut self, id: &[u8]) {
        let Some(key) = self.by_id.remove(id) else { return };
        let Some(session) = self.sessions[key].take() else { return };
        self.vacant.push(key);
        let members = &mut self.members[session.channel];
        members.swap_remove(session.place);
        if let Some(moved) = members.get(session.place)
            && let Some(moved) = &mut self.sessions[*moved]
        {
            moved.place = session.place;
        }
    }

    /// The keys of those that are known.
    pub(super) fn known<'i>(&self, ids: impl Iterator<Item = Id<'i>>) -> Vec<usize> {
        ids.filter_map(|id| self.by_id.get(id.id).copied()).collect()
    }

    /// The keys of those of a channel.
    pub(super) fn members(&self, transport: Transport, path: &str) -> Vec<usize> {
        let channel = self.channels.get(&(transport, path.into()));
        channel.map(|channel| self.members[*channel].clone()).unwrap_or_default()
    }

    /// Names these sessions in a packet, each with its next number, and counts it as sent.
    pub(super) fn name<R>(&mut self, keys: &[usize], packet: impl FnOnce(&[Id<'_>]) -> R) -> R {
        for key in keys {
            if let Some(session) = &mut self.sessions[*key] {
                session.seq += 1;
            }
        }
        let named = |key: &usize| {
            let session = self.sessions[*key].as_ref()?;
            Some(Id { id: &session.id, seq: Some(session.seq - 1) })
        };
        packet(&keys.iter().filter_map(named).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sessions: &mut Sessions, path: &str) -> Vec<(Vec<u8>, Option<u32>)> {
        let members = sessions.members(Transport::Stream, path);
        let mut named = sessions.name(&members, |ids| {
            ids.iter().map(|id| (id.id.to_vec(), id.seq)).collect::<Vec<_>>()
        });
        named.sort();
        named
    }

    #[test]
    fn who_has_left_is_named_no_more_and_all_others_are() {
        let mut sessions = Sessions::default();
        for id in [b"a", b"b", b"c"] {
            sessions.open(id, Transport::Stream, "/x");
        }
        sessions.open(b"d", Transport::Socket, "/x");
        sessions.close(b"a");
        sessions.open(b"e", Transport::Stream, "/x");
        sessions.close(b"c");
        assert_eq!(
            named(&mut sessions, "/x"),
            [(b"b".to_vec(), Some(1)), (b"e".to_vec(), Some(1))]
        );
        assert_eq!(
            named(&mut sessions, "/x"),
            [(b"b".to_vec(), Some(2)), (b"e".to_vec(), Some(2))]
        );
        assert!(named(&mut sessions, "/y").is_empty());
    }

    #[test]
    fn a_target_is_a_transport_and_a_path() {
        for (uri, transport, path) in [
            ("http://x:1/a?b", Transport::Stream, "/a?b"),
            ("ws://x/", Transport::Socket, "/"),
            ("https://x", Transport::Stream, "/"),
        ] {
            assert_eq!(Transport::of_uri(uri), (transport, path));
        }
    }
}
