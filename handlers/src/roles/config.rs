//! What a process of handlers is told: resolved, typed, and passed on by reference.
//!
//! Where the values come from (flags, environment, a file) and that they make sense is the command
//! line's business; the defaults are those of `docs/channels.md`.

use std::time::Duration;

use crate::auth::VerifierConfig;
use crate::event::MESSAGE_BYTES_MAX;
use crate::store::{Rate, Retention};

/// How much longer than a cleaner the store keeps a log: time for a cleaner to end a channel in the
/// open, with an END that its readers get. What is not cleaned until then the store drops by
/// itself.
pub const CLEANUP_GRACE: Duration = Duration::from_secs(60);

/// Who a process is, where its edges are, and what it does for them.
#[derive(Clone, Debug)]
pub struct RolesConfig {
    /// The instance id; see [`AttachConfig::id`](crate::attach::AttachConfig::id).
    pub id: String,
    /// Base specs of the edges; see [`AttachConfig::edges`](crate::attach::AttachConfig::edges).
    pub edges: Vec<String>,
    /// What the process does.
    pub roles: Roles,
    /// Whose tokens may read; looked at if the process has the fanout role.
    pub subscriber: VerifierConfig,
    /// Whose tokens may publish and delete; looked at if it has the publish or the cleanup role. One with
    /// the fanout role may have no such keys: then nobody publishes by its WebSockets.
    pub publisher: VerifierConfig,
    /// Sizes, rates and times.
    pub limits: Limits,
    /// Requests that the process wants in flight at most from each edge; 0 is no limit.
    pub requests_max: u32,
}

/// What a process does. A process may have any of them; one without any answers for its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Takes messages.
    pub publish: bool,
    /// Answers subscribers, and feeds edges.
    pub fanout: bool,
    /// Ends and deletes channels.
    pub cleanup: bool,
}

impl Roles {
    /// Everything, as in `forebay up`.
    pub const ALL: Roles = Roles { publish: true, fanout: true, cleanup: true };

    /// Nothing.
    pub const NONE: Roles = Roles { publish: false, fanout: false, cleanup: false };
}

impl Default for Roles {
    fn default() -> Self {
        Roles::ALL
    }
}

/// Sizes, rates and times; the same for all orgs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes; at most [`MESSAGE_BYTES_MAX`], which is the default.
    pub message_bytes_max: usize,
    /// How fast a channel may grow; `None` is as fast as it can. 20 messages in 1000 ms.
    pub rate: Option<Rate>,
    /// The newest events of a channel that are kept; at least 1. 1200.
    pub history_max: u32,
    /// A channel is ended that long after its last message. 120 s.
    pub idle_ttl: Duration,
    /// The log of an ended channel is deleted that long after its end. 120 s.
    pub end_ttl: Duration,
    /// A repeated message is recognised for that long. 120 s.
    pub dedup_ttl: Duration,
    /// How long the log of a channel that was deleted can still be read, so that readers that are
    /// behind get its end. 10 s.
    pub delete_linger: Duration,
    /// Messages that wait to be stored after they were answered with 202; past it they are answered
    /// with 503. 4096, which is 64 MiB if all have the largest size, and rarely more than 4.
    pub accepted_messages_max: u32,
    /// Close a reader's connection when its token has expired. By default a token is looked at when
    /// a reader connects, and the connection outlives it.
    pub close_at_expiry: bool,
    /// A comment or a ping goes to a held connection that got nothing for that long, so that it is taken for alive by
    /// who stands between (`docs/channels.md`). 15 s.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes_2 = Duration::from_secs(120);
        Limits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            rate: Some(Rate { messages: 20, per_ms: 1000 }),
            history_max: 1200,
            idle_ttl: minutes_2,
            end_ttl: minutes_2,
            dedup_ttl: minutes_2,
            delete_linger: Duration::from_secs(10),
            accepted_messages_max: 4096,
            close_at_expiry: false,
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// What the store is told to keep: everything for [`CLEANUP_GRACE`] longer than a cleaner lets
    /// it live.
    pub fn retention(&self) -> Retention {
        let ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Retention {
            idle_ttl_ms: ms(self.idle_ttl.saturating_add(CLEANUP_GRACE)),
            end_ttl_ms: ms(self.end_ttl.saturating_add(CLEANUP_GRACE)),
            dedup_ttl_ms: ms(self.dedup_ttl),
            history_max: self.history_max,
        }
    }
}
