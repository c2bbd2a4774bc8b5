//! What comes in: events of the bus, and the frames of ZHTTP's stream mode.
//!
//! Only the ZeroMQ framing is undone here; a packet is handed on as the bytes `T…` that it is, and
//! whether these are a ZHTTP packet is for the session to say. Both framings that handlers use on
//! `-out-stream` are taken: with the empty delimiter (`[peer, "", T…]`, what REQ-minded code and a
//! ROUTER peer send) and without it (`[peer, T…]`).

use bytes::Bytes;

/// Something that came in from the handlers' side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// A packet from one certain peer, by `-out-stream`.
    Routed {
        /// The peer's identity: an answer to it goes out with `try_route`.
        peer: Bytes,
        /// `T…`
        packet: Bytes,
    },
    /// A packet that was published to this edge, by `-in`. Who sent it only the packet itself can
    /// tell.
    Published {
        /// `T…`, what came after `"{instance-id} "`.
        packet: Bytes,
    },
    /// A peer is there on `-out-stream`: `try_route` reaches it.
    PeerJoined {
        /// The peer's identity; generated, and of no use beyond this connection, if the peer has
        /// none.
        peer: Bytes,
    },
    /// A peer's connection on `-out-stream` is lost, or another one has taken over its identity
    /// (then `PeerJoined` follows). All that came over that connection has been handed out before.
    PeerLost {
        /// The peer's identity.
        peer: Bytes,
    },
    /// The number of peers that take requests from a group's `-out` has changed.
    PushPeers {
        /// Index in [`BusConfig::groups`](super::BusConfig::groups).
        group: usize,
        /// How many there are now.
        count: usize,
    },
    /// A group that refused a message as `Full` has room again. Comes once for any number of
    /// refusals.
    PushReady {
        /// Index in [`BusConfig::groups`](super::BusConfig::groups).
        group: usize,
    },
    /// A message whose frames are not those of ZHTTP. It has been dropped.
    Malformed {
        /// Who sent it, if it came by `-out-stream`.
        peer: Option<Bytes>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The sockets have ended though nobody closed them. Nothing can come any more.
    Closed,
}

/// Undoes the framing of `-out-stream`. `parts` are the frames without the first one, the peer's
/// identity.
pub(super) fn parse_routed(peer: Bytes, parts: impl IntoIterator<Item = Bytes>) -> Inbound {
    let mut parts = parts.into_iter();
    let packet = match (parts.next(), parts.next(), parts.next()) {
        (Some(packet), None, _) => packet,
        (Some(delimiter), Some(packet), None) if delimiter.is_empty() => packet,
        (None, ..) => {
            return Inbound::Malformed { peer: Some(peer), reason: "no packet after the identity" };
        }
        (Some(_), Some(_), _) => {
            return Inbound::Malformed {
                peer: Some(peer),
                reason: "more frames than delimiter and packet",
            };
        }
    };
    if packet.is_empty() {
        return Inbound::Malformed { peer: Some(peer), reason: "empty packet" };
    }
    Inbound::Routed { peer, packet }
}

/// Undoes the framing of `-in`: one frame, `"{instance-id} "` and the packet. `prefix` has the
/// space.
pub(super) fn parse_published(prefix: &[u8], parts: impl IntoIterator<Item = Bytes>) -> Inbound {
    let malformed = |reason| Inbound::Malformed { peer: None, reason };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(frame), None) if frame.starts_with(prefix) => match frame.len() - prefix.len() {
            0 => malformed("empty packet"),
            _ => Inbound::Published { packet: frame.slice(prefix.len()..) },
        },
        // The subscription keeps these out; a publisher that does not filter could still send them.
        (Some(_), None) => malformed("published to another instance"),
        (Some(_), Some(_)) => malformed("published in more than one frame"),
        (None, _) => malformed("published without a frame"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(parts: &[&'static str]) -> Inbound {
        parse_routed("p".into(), parts.iter().map(|part| Bytes::from_static(part.as_bytes())))
    }

    fn published(parts: &[&'static str]) -> Inbound {
        parse_published(b"edge ", parts.iter().map(|part| Bytes::from_static(part.as_bytes())))
    }

    #[test]
    fn routed_with_and_without_delimiter() {
        let expected = Inbound::Routed { peer: "p".into(), packet: "T1:a,".into() };
        assert_eq!(routed(&["", "T1:a,"]), expected);
        assert_eq!(routed(&["T1:a,"]), expected);
    }

    #[test]
    fn routed_otherwise_is_malformed() {
        for parts in
            [&[][..], &[""], &["", ""], &["a", "b"], &["", "a", "b"], &["", "", "T"], &["a", ""]]
        {
            let Inbound::Malformed { peer, .. } = routed(parts) else { panic!("{parts:?}") };
            assert_eq!(peer, Some("p".into()));
        }
    }

    #[test]
    fn published_to_this_instance() {
        assert_eq!(published(&["edge T1:a,"]), Inbound::Published { packet: "T1:a,".into() });
        for parts in
            [&[][..], &[""], &["edge"], &["edge "], &["edge2 T"], &["edge T", "x"], &["edge ", "T"]]
        {
            assert!(matches!(published(parts), Inbound::Malformed { peer: None, .. }), "{parts:?}");
        }
    }
}
