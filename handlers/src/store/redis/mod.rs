//! The store in Redis (7 or later, or Valkey): one server, one that Sentinels watch over, or a
//! cluster, shared by any number of processes.
//!
//! A channel's log is a Redis stream whose entry ids are the event ids, with a hash beside it for
//! its head; the sections of `scripts.rs` and the Lua files say what the keys are. Everything that
//! must be atomic is one script, so that an append costs one round trip; appends that are made at
//! the same time are written to the one connection together ([`link`]).
//!
//! | file | what it does |
//! | --- | --- |
//! | `address`, `target`, `sentinels` | where Redis is: as the operator says it, and as Sentinels do |
//! | `standing` | whether it is the right server still: writes need to know |
//! | `dial`, `link` | one connection to one server, and keeping it |
//! | `slots`, `cluster`, `nodes` | which node has what; sending commands there |
//! | `scripts` and `*.lua` | the commands, keys and replies |
//! | `follow` | hearing announcements |
//!
//! The activity index is in 64 sorted sets, apart from the channels' keys, as on a cluster these
//! are elsewhere. It is therefore written by a second command, *before* the append: in the same
//! pipeline, or, if another node of a cluster may have it, after an answer. A crash between the two
//! leaves an entry for a log that doesn't exist, which cleanup sweeps away, and never a log that
//! cleanup doesn't know. (It expires by its TTL even then.)
//!
//! # What a failover loses
//!
//! Redis replicates asynchronously: a replica that is promoted may lack the last events that were
//! acknowledged, and a server without a log on disk comes back without any. Nothing brings them back,
//! but no reader is left in the belief that it has all: `append.lua` begins a new epoch on each server
//! that is another, or was started anew. A reader that has what the log has goes on without noticing
//! anything; one that has more is told of a gap.

mod address;
mod cluster;
mod dial;
mod follow;
mod link;
mod nodes;
mod scripts;
mod sentinels;
mod slots;
mod standing;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use redis::{Cmd, Value};
use zhttp::Cursor;

use self::address::Address;
use self::follow::{DeafEars, Follower};
use self::link::Access;
use self::nodes::Nodes;
use self::scripts::{Keys, Scripts, corrupt, index_key};
use super::follow::{FOLLOW_QUEUE_EVENTS_MAX, FollowHandle, FollowStream, follow_halves};
use super::{
    AppendError, Appended, ChannelName, Conditions, Head, Idle, NewEvent, OpenError, Range,
    RangeLimits, Store, StoreError,
};

/// Heads that are asked for in one pipeline; more are asked for in several, one after the other,
/// so that neither side buffers more than some 100 KiB of them.
const HEADS_PER_PIPELINE_MAX: usize = 1000;

/// The store in Redis. A clone uses the same connections.
#[derive(Clone)]
pub struct RedisStore {
    scripts: Arc<Scripts>,
    nodes: Nodes,
    deaf: DeafEars,
}

impl RedisStore {
    /// Opens the store at an address:
    ///
    /// * `redis://[[user]:password@]host[:port][/db]` or `redis+unix:///path`: one server;
    /// * `redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/MASTER[/db]`: the master of
    ///   that name, which these Sentinels watch over;
    /// * `redis+cluster://[[user]:password@]host[:port][,host[:port]…]`: a cluster, by some of its
    ///   nodes.
    ///
    /// Waits for the first attempt to connect, at most some seconds. If it fails, the store is
    /// unavailable until a later one succeeds: an operator may start things in any order.
    ///
    /// Must be called within a tokio runtime, which runs the tasks that keep the connections.
    ///
    /// # Errors
    ///
    /// If the address is none.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let (nodes, scripts) = Nodes::open(Address::parse(url)?).await;
        Ok(RedisStore { scripts, nodes, deaf: DeafEars::default() })
    }

    /// Sends one command.
    async fn send_one(&self, command: Cmd, access: Access) -> Result<Value, StoreError> {
        let answer = self.nodes.send(vec![command], access).await.pop();
        answer.unwrap_or_else(|| Err(corrupt("no answer")))
    }
}

impl Store for RedisStore {
    async fn append(
        &self,
        channel: &ChannelName,
        event: NewEvent,
        conditions: &Conditions,
    ) -> Result<Appended, AppendError> {
        let touch = self.scripts.touch(channel);
        let append = self.scripts.append(channel, &event, conditions);
        let [touched, appended] = self.nodes.send_in_order(touch, append).await;
        let appended = appended?;
        // A log that is not in the index still goes by its TTL; the append stands.
        if let Err(error) = touched {
            tracing::warn!(%channel, %error, "the activity index was not updated");
        }
        scripts::appended(appended)
    }

    async fn range(
        &self,
        channel: &ChannelName,
        after: Cursor,
        limits: RangeLimits,
    ) -> Result<Range, StoreError> {
        let reply = self.send_one(self.scripts.range(channel, after, limits), Access::Read).await?;
        scripts::range(reply, after)
    }

    async fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::with_capacity(channels.len());
        for chunk in channels.chunks(HEADS_PER_PIPELINE_MAX) {
            let commands = chunk.iter().map(|channel| self.scripts.head(channel)).collect();
            for answer in self.nodes.send(commands, Access::Read).await {
                heads.push(scripts::head(answer?)?);
            }
        }
        Ok(heads)
    }

    fn follow(&self) -> (FollowHandle, FollowStream) {
        let (handle, stream, task) = follow_halves(FOLLOW_QUEUE_EVENTS_MAX);
        tokio::spawn(Follower::new(self.nodes.clone(), task, self.deaf.clone()).run());
        (handle, stream)
    }

    async fn delete(
        &self,
        channel: &ChannelName,
        if_head: Option<Cursor>,
    ) -> Result<bool, StoreError> {
        scripts::value(self.send_one(self.scripts.delete(channel, if_head), Access::Write).await?)
    }

    async fn delete_idle(&self, idle: &Idle) -> Result<bool, StoreError> {
        let Idle { channel, head, active_us, .. } = idle;
        let deleted = self.delete(channel, Some(*head)).await?;
        if deleted {
            // Compared with what was listed, before anything else: an append that comes while this
            // goes on has touched the index already, or does so later than this.
            self.send_one(self.scripts.untouch(channel, *active_us), Access::Write).await?;
        }
        Ok(deleted)
    }

    async fn idle(
        &self,
        shard: u32,
        before_ms: u64,
        limit: usize,
    ) -> Result<Vec<Idle>, StoreError> {
        let mut list = redis::cmd("ZRANGE");
        list.arg(index_key(shard)).arg("-inf").arg(format!("({}", before_ms.saturating_mul(1000)));
        list.arg("BYSCORE").arg("LIMIT").arg(0).arg(limit).arg("WITHSCORES");
        let listed: Vec<(String, f64)> = scripts::value(self.send_one(list, Access::Read).await?)?;
        let mut channels = Vec::with_capacity(listed.len());
        for (name, score) in &listed {
            let channel = ChannelName::parse(name).map_err(|error| corrupt(&error.to_string()))?;
            // Below 2^53, so exact as a double.
            channels.push((channel, *score as u64));
        }
        let fields = |(channel, _): &(ChannelName, u64)| {
            let mut command = redis::cmd("HMGET");
            command.arg(Keys::new(channel).meta());
            command.arg(&["epoch", "offset", "ended", "expires"]);
            command
        };
        let answers = self.nodes.send(channels.iter().map(fields).collect(), Access::Read).await;
        let mut idle = Vec::with_capacity(channels.len());
        for ((channel, active_us), answer) in channels.into_iter().zip(answers) {
            let known: [Option<u64>; 4] = scripts::value(answer?)?;
            let [epoch, offset, ended, expires_ms] = known.map(Option::unwrap_or_default);
            let head = Cursor::new(epoch, offset);
            idle.push(Idle { channel, head, ended: ended == 1, active_us, expires_ms });
        }
        Ok(idle)
    }

    async fn lease(&self, shard: u32, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        scripts::value(
            self.send_one(self.scripts.lease(shard, owner, ttl_ms), Access::Write).await?,
        )
    }

    async fn now_ms(&self) -> Result<u64, StoreError> {
        let time = self.send_one(redis::cmd("TIME"), Access::Read).await?;
        let (seconds, micros): (u64, u64) = scripts::value(time)?;
        Ok(seconds * 1000 + micros / 1000)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.deaf.any() {
            let why = "Redis: connected, but announcements are not heard";
            return Err(StoreError::Unavailable(why.to_owned()));
        }
        self.nodes.ping().await
    }
}
