//! Channel names: which log of which tenant.
//!
//! A name is written `"{org}:{channel}"`. An org has no colon, so that the first colon parts the
//! two. The text form is used everywhere: in packets, in log lines, as the hash tag of Redis keys
//! and as the prefix of keys on disk; so both parts are restricted to bytes that need no escaping
//! in any of these (`docs/channels.md`, Model).
//!
//! A channel that is a UUID is canonicalised to lower case with hyphens, whatever the form it came
//! in, since Sentry's clients name channels by UUIDs and write them in several ways.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// The name of a channel: an org and a channel in it. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName {
    text: Arc<str>,
    org_len: u8,
}

impl ChannelName {
    /// The longest org, in bytes.
    pub const ORG_BYTES_MAX: usize = 64;

    /// The longest channel, in bytes.
    pub const CHANNEL_BYTES_MAX: usize = 128;

    /// The longest text form, in bytes: org, colon and channel.
    pub const TEXT_BYTES_MAX: usize = Self::ORG_BYTES_MAX + 1 + Self::CHANNEL_BYTES_MAX;

    /// The name of `channel` in `org`, with a UUID brought to its canonical form.
    ///
    /// # Errors
    ///
    /// If a part is empty, too long, or has a byte that it may not have.
    pub fn new(org: &str, channel: &str) -> Result<Self, NameError> {
        let org_byte_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let channel_byte_allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b"_.:~-".contains(&byte);
        if org.is_empty() || org.len() > Self::ORG_BYTES_MAX || !org.bytes().all(org_byte_allowed) {
            return Err(NameError::Org);
        }
        if channel.is_empty()
            || channel.len() > Self::CHANNEL_BYTES_MAX
            || !channel.bytes().all(channel_byte_allowed)
        {
            return Err(NameError::Channel);
        }
        let text: Arc<str> = match Uuid::try_parse(channel) {
            Ok(uuid) => format!("{org}:{}", uuid.as_hyphenated()).into(),
            Err(_) => format!("{org}:{channel}").into(),
        };
        let org_len = u8::try_from(org.len()).expect("an org has at most 64 bytes");
        Ok(ChannelName { text, org_len })
    }

    /// Parses the text form, `"{org}:{channel}"`.
    ///
    /// # Errors
    ///
    /// As [`ChannelName::new`]; a text without a colon has no channel.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (org, channel) = text.split_once(':').ok_or(NameError::Channel)?;
        ChannelName::new(org, channel)
    }

    /// The tenant.
    pub fn org(&self) -> &str {
        &self.text[..usize::from(self.org_len)]
    }

    /// The channel within the org.
    pub fn channel(&self) -> &str {
        &self.text[usize::from(self.org_len) + 1..]
    }

    /// The text form, `"{org}:{channel}"`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The shard of the activity index that lists this channel, below [`super::INDEX_SHARDS`].
    ///
    /// Every process must come to the same answer, also one of another version: so this is a
    /// named function (FNV-1a, 64 bits, folded) and not the standard library's hasher.
    pub fn shard(&self) -> u32 {
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let hash = self
            .text
            .bytes()
            .fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
        u32::try_from(folded % u64::from(super::INDEX_SHARDS)).expect("a shard is below 64")
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelName({})", self.text)
    }
}

impl FromStr for ChannelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        ChannelName::parse(text)
    }
}

/// The text is no channel name. The caller's fault: what a request named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The org is not `[A-Za-z0-9_-]{1,64}`.
    #[error("an org is 1 to 64 of A-Z a-z 0-9 _ -")]
    Org,
    /// The channel is not `[A-Za-z0-9_.:~-]{1,128}`.
    #[error("a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -")]
    Channel,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_parts_come_back() {
        let name = ChannelName::new("acme", "room:7.a~b_c-d").unwrap();
        assert_eq!(name.org(), "acme");
        assert_eq!(name.channel(), "room:7.a~b_c-d");
        assert_eq!(name.as_str(), "acme:room:7.a~b_c-d");
        assert_eq!(ChannelName::parse(name.as_str()), Ok(name));
    }

    #[test]
    fn a_uuid_has_one_form() {
        let canonical = "1:0b1e7b52-6a3d-4d0e-9d2e-1f2a3b4c5d6e";
        for form in [
            "0b1e7b52-6a3d-4d0e-9d2e-1f2a3b4c5d6e",
            "0B1E7B52-6A3D-4D0E-9D2E-1F2A3B4C5D6E",
            "0b1e7b526a3d4d0e9d2e1f2a3b4c5d6e",
            "urn:uuid:0b1e7b52-6a3d-4d0e-9d2e-1f2a3b4c5d6e",
        ] {
            assert_eq!(ChannelName::new("1", form).unwrap().as_str(), canonical);
        }
    }

    #[test]
    fn limits_are_kept() {
        let org = "o".repeat(64);
        let channel = "c".repeat(128);
        let longest = ChannelName::new(&org, &channel).unwrap();
        assert_eq!(longest.as_str().len(), ChannelName::TEXT_BYTES_MAX);
        assert_eq!(ChannelName::new(&"o".repeat(65), "c"), Err(NameError::Org));
        assert_eq!(ChannelName::new("o", &"c".repeat(129)), Err(NameError::Channel));
        for org in ["", "a:b", "a.b", "a b", "ä", "a{b}"] {
            assert_eq!(ChannelName::new(org, "c"), Err(NameError::Org), "{org:?}");
        }
        for channel in ["", "a b", "a/b", "a{b}", "ü", "a\n"] {
            assert_eq!(ChannelName::new("o", channel), Err(NameError::Channel), "{channel:?}");
        }
        assert_eq!(ChannelName::parse("no-colon"), Err(NameError::Channel));
    }

    #[test]
    fn shards_are_stable_and_all_are_used() {
        // Fixed forever: a deployed index is found again by these numbers.
        assert_eq!(ChannelName::parse("acme:room").unwrap().shard(), 33);
        let mut used = [false; super::super::INDEX_SHARDS as usize];
        for number in 0..2000 {
            let name = ChannelName::new("acme", &format!("room-{number}")).unwrap();
            used[name.shard() as usize] = true;
        }
        assert!(used.iter().all(|used| *used));
    }
}
