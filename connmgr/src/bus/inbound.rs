//! What comes in: events of the bus, and the frames of ZHTTP.
//!
//! Only the ZeroMQ framing is undone here; a packet is handed on as the bytes `T…` that it is, and
//! whether these are a ZHTTP packet is for the session to say. Both framings that handlers use on
//! `-out-stream` are taken: with the empty delimiter (`[peer, "", T…]`, what REQ-minded code and a
//! ROUTER peer send) and without it (`[peer, T…]`). The same holds for the answers of req mode:
//! `["", T…]` is what a REP sends, and `[T…]` what a ROUTER or a DEALER sends that leaves the
//! delimiter out.

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
    /// An answer in req mode. Which request it answers, and so which client it is for, only its id
    /// can tell: a DEALER does not say who has sent a message. For some requests none ever comes:
    /// they are lost with a handler that ends, and libzmq's REP and ROUTER (4.3.5) drop answers
    /// beyond their own high-water mark without a word.
    Replied {
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
    /// The number of peers that take requests of a group has changed.
    PushPeers {
        /// Index in [`BusConfig::groups`](super::BusConfig::groups); the one behind the last is req
        /// mode's.
        group: usize,
        /// How many there are now.
        count: usize,
    },
    /// A group that refused a message as `Full` has room again. Comes once for any number of
    /// refusals.
    PushReady {
        /// Index in [`BusConfig::groups`](super::BusConfig::groups); the one behind the last is req
        /// mode's.
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
    match delimited(parts) {
        Ok(packet) => Inbound::Routed { peer, packet },
        Err(reason) => Inbound::Malformed { peer: Some(peer), reason },
    }
}

/// Undoes the framing of an answer in req mode. `parts` are all its frames.
pub(super) fn parse_replied(parts: impl IntoIterator<Item = Bytes>) -> Inbound {
    match delimited(parts) {
        Ok(packet) => Inbound::Replied { packet },
        Err(reason) => Inbound::Malformed { peer: None, reason },
    }
}

/// The packet that stands alone or behind the empty delimiter; or what is wrong.
fn delimited(parts: impl IntoIterator<Item = Bytes>) -> Result<Bytes, &'static str> {
    let mut parts = parts.into_iter();
    let packet = match (parts.next(), parts.next(), parts.next()) {
        (Some(packet), None, _) => packet,
        (Some(delimiter), Some(packet), None) if delimiter.is_empty() => packet,
        (None, ..) => return Err("no frame"),
        (Some(_), Some(_), _) => return Err("more frames than delimiter and packet"),
    };
    if packet.is_empty() { Err("empty packet") } else { Ok(packet) }
}

/// Undoes the framing of `-in`: one frame, `"{instance-id} "` and the packet. `prefix` has the
/// space.
pub(super) fn parse_published(prefix: &[u8], parts: impl IntoIterator<Item = Bytes>) -> Inbound {
    let malformed = |reason| Inbound::Malformed { peer: None, reason };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(frame), None) if frame.starts_with(prefix) => match frame.len() - prefix.len() {
            0 => malformed("published an empty packet"),
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
    fn replied_with_and_without_delimiter() {
        let replied = |parts: &[&'static str]| {
            parse_replied(parts.iter().map(|part| Bytes::from_static(part.as_bytes())))
        };
        let expected = Inbound::Replied { packet: "T1:a,".into() };
        assert_eq!(replied(&["", "T1:a,"]), expected);
        assert_eq!(replied(&["T1:a,"]), expected);
        for parts in
            [&[][..], &[""], &["", ""], &["a", "b"], &["", "a", "b"], &["", "", "T"], &["a", ""]]
        {
            assert!(matches!(replied(parts), Inbound::Malformed { peer: None, .. }), "{parts:?}");
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
