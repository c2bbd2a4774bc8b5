//! Which node of a cluster has which keys (Redis Cluster specification, "Key distribution model").
//!
//! A key belongs to one of 16,384 slots: the CRC16 of its hash tag, the part in the first braces, if
//! it has one that is not empty. Each slot belongs to one master. The nodes say which
//! (`CLUSTER SLOTS`), and say `MOVED` to who asks the wrong one.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use redis::{Cmd, Value};

use super::scripts::{corrupt, value};
use crate::store::StoreError;

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// A node, by where it is: what `MOVED` names it by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Node {
    /// Reads `host:port`; the host may have colons. Without a host it is `asked`'s, the node that
    /// said so.
    pub(super) fn parse(text: &str, asked: &Node) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { Arc::clone(&asked.host) } else { host.into() };
        Some(Node { host, port: port.parse().ok()? })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The slot of a key.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    };
    crc16(tag().unwrap_or(key)) % SLOTS as u16
}

/// CRC16 in the variant of XMODEM: polynomial 0x1021, beginning with 0, not reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// The slot that a command of ours works on; `None` if it has no key, and any node will do.
pub(super) fn slot_of_command(command: &Cmd) -> Option<u16> {
    let argument = |place: usize| match command.args_iter().nth(place)? {
        redis::Arg::Simple(bytes) => Some(bytes),
        _ => None,
    };
    let key = match argument(0)? {
        b"EVALSHA" => argument(3)?,
        b"HMGET" | b"ZRANGE" | b"SPUBLISH" => argument(1)?,
        _ => return None,
    };
    Some(slot_of(key))
}

/// Which master has which slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    masters: Vec<Node>,
    /// For each slot the place of its master, [`NOBODY`] if it has none; empty if nothing is known.
    owners: Vec<u16>,
}

/// In the place of a master: there is none.
const NOBODY: u16 = u16::MAX;

impl SlotMap {
    /// Reads the reply of `CLUSTER SLOTS`, which `asked` gave: a list of
    /// `[first slot, last slot, [host, port, …], replicas …]`.
    pub(super) fn read(reply: Value, asked: &Node) -> Result<Self, StoreError> {
        let ranges: Vec<Vec<Value>> = value(reply)?;
        let mut map = SlotMap { masters: Vec::new(), owners: vec![NOBODY; SLOTS] };
        for range in ranges {
            let mut parts = range.into_iter();
            let (Some(first), Some(last), Some(master)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err(corrupt("slots of another shape"));
            };
            let (first, last): (usize, usize) = (value(first)?, value(last)?);
            let master: Vec<Value> = value(master)?;
            let mut master = master.into_iter();
            let host: Option<String> = value(master.next().unwrap_or(Value::Nil))?;
            let port: u16 = value(master.next().unwrap_or(Value::Nil))?;
            let host = host.filter(|host| !host.is_empty());
            let host = host.map_or_else(|| Arc::clone(&asked.host), Arc::from);
            let place = map.place_of(Node { host, port })?;
            let slots = map.owners.get_mut(first..=last);
            slots.ok_or_else(|| corrupt("slots that there are not"))?.fill(place);
        }
        Ok(map)
    }

    fn place_of(&mut self, node: Node) -> Result<u16, StoreError> {
        let known = self.masters.iter().position(|known| *known == node);
        let place = known.unwrap_or_else(|| {
            self.masters.push(node);
            self.masters.len() - 1
        });
        let too_many = |_| corrupt("more masters than slots");
        u16::try_from(place).map_err(too_many)
    }

    /// The master of a slot, if it is known and there is one.
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        let place = *self.owners.get(usize::from(slot))?;
        self.masters.get(usize::from(place))
    }

    /// All masters that have slots.
    pub(super) fn masters(&self) -> BTreeSet<&Node> {
        self.masters.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::ChannelName;
    use crate::store::redis::scripts::{Announce, Keys, Scripts};

    fn node(text: &str) -> Node {
        Node::parse(text, &Node { host: "asked".into(), port: 1 }).unwrap()
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // What `CLUSTER KEYSLOT` of Redis 7.0 says.
        for (key, slot) in [("", 0), ("foo", 12182), ("{user1000}.following", 3443)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        // Empty braces are no tag.
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % 16_384);
    }

    #[test]
    fn a_command_belongs_where_its_first_key_is() {
        let scripts = Scripts::new(Announce::Sharded);
        let channel = ChannelName::new("acme", "room").unwrap();
        let slot = Some(slot_of(b"acme:room"));
        assert_eq!(slot_of_command(&scripts.head(&channel)), slot);
        assert_eq!(slot_of_command(redis::cmd("HMGET").arg(Keys::new(&channel).meta())), slot);
        assert_eq!(slot_of_command(&scripts.touch(&channel)), Some(slot_of(b"33")));
        assert_eq!(slot_of_command(&redis::cmd("TIME")), None);
    }

    #[test]
    fn a_map_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let master = |host, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, master| {
            let replica = Value::Array(vec![text("replica"), Value::Int(9)]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
        };
        let reply = Value::Array(vec![
            range(0, 100, master(text("one"), 1)),
            range(200, 300, master(Value::Nil, 2)),
            range(301, 301, master(text("one"), 1)),
        ]);
        let map = SlotMap::read(reply, &node("asked:5")).unwrap();
        for (slot, owner) in [(0, "one:1"), (100, "one:1"), (250, "asked:2"), (301, "one:1")] {
            assert_eq!(map.owner(slot), Some(&node(owner)));
        }
        assert_eq!((map.owner(101), map.owner(16_383)), (None, None));
        assert_eq!(map.masters().len(), 2);
        let beyond = Value::Array(vec![range(0, 16_384, master(text("one"), 1))]);
        assert!(SlotMap::read(beyond, &node("asked:5")).is_err());
        assert_eq!(SlotMap::default().owner(5), None);
    }

    #[test]
    fn a_redirection_names_a_node() {
        assert_eq!(format!("{:?}", node("10.0.0.1:7000")), "10.0.0.1:7000");
        assert_eq!(format!("{:?}", node(":7000")), "asked:7000");
        assert_eq!(format!("{:?}", node("::1:7000")), "::1:7000");
    }
}
