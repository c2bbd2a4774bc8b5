//! The store in Redis (7 or later, or Valkey): one server that any number of processes share.
//!
//! A channel's log is a Redis stream whose entry ids are the event ids, with a hash beside it for
//! its head; the sections of `scripts.rs` and the Lua files say what the keys are. Everything that
//! must be atomic is one script, so that an append costs one round trip; appends that are made at
//! the same time are written to the one connection together ([`link`]).
//!
//! The activity index is in 64 sorted sets, apart from the channels' keys, as on a cluster these
//! are elsewhere. It is therefore written by a second command, in the same pipeline and *before*
//! the append: a crash between the two leaves an entry for a log that doesn't exist, which cleanup
//! sweeps away, and never a log that cleanup doesn't know. (It expires by its TTL even then.)
//!
//! What a cluster needs on top of this: a connection for each node in [`link`], `SPUBLISH` and
//! `SSUBSCRIBE` for announcements, and the two commands of an append sent to two nodes, in order.
//! The keys are made for it already.

mod follow;
mod link;
mod scripts;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use redis::{Cmd, RedisResult, ServerErrorKind, Value};
use zhttp::Cursor;

use self::follow::Follower;
use self::link::{Link, failure};
use self::scripts::{Keys, Scripts, corrupt, index_key};
use super::follow::{FOLLOW_QUEUE_EVENTS_MAX, FollowHandle, FollowStream, follow_halves};
use super::{
    AppendError, Appended, ChannelName, Conditions, Head, Idle, NewEvent, OpenError, Range,
    RangeLimits, Store, StoreError,
};

/// Heads that are asked for in one pipeline; more are asked for in several, one after the other,
/// so that neither side buffers more than some 100 KiB of them.
const HEADS_PER_PIPELINE_MAX: usize = 1000;

/// The store in Redis. A clone uses the same connection.
#[derive(Clone)]
pub struct RedisStore {
    client: redis::Client,
    scripts: Arc<Scripts>,
    link: Link,
}

impl RedisStore {
    /// Opens the store at `redis://[[user]:password@]host[:port][/db]` or `unix:///path`.
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
        let client = link::client(url)?;
        let scripts = Arc::new(Scripts::new());
        let link = Link::open(client.clone(), Arc::clone(&scripts)).await;
        Ok(RedisStore { client, scripts, link })
    }

    /// Sends commands in one pipeline. The answers come in the same order, each with its own error.
    async fn send(&self, commands: Vec<Cmd>) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let live = self.link.live()?;
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = live.connection.clone();
        let report = |error: redis::RedisError| {
            self.link.failed(&live, &error);
            failure(error)
        };
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.ignore_errors();
        let mut answers: Vec<RedisResult<Value>> =
            pipeline.query_async(&mut connection).await.map_err(report)?;
        if !answers.iter().any(is_no_script) {
            return Ok(answers);
        }
        // The server forgot its scripts. What it answered so was not executed, and only that is
        // repeated.
        self.scripts.load().exec_async(&mut connection).await.map_err(report)?;
        for (answer, command) in answers.iter_mut().zip(pipeline.cmd_iter()) {
            if is_no_script(answer) {
                *answer = command.query_async(&mut connection).await;
            }
        }
        Ok(answers)
    }

    /// Sends one command.
    async fn send_one(&self, command: Cmd) -> Result<Value, StoreError> {
        let mut answers = self.send(vec![command]).await?;
        let answer = answers.pop().ok_or_else(|| corrupt("no answer"))?;
        answer.map_err(failure)
    }
}

fn is_no_script(answer: &RedisResult<Value>) -> bool {
    let no_script = redis::ErrorKind::Server(ServerErrorKind::NoScript);
    answer.as_ref().is_err_and(|error| error.kind() == no_script)
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
        let mut answers = self.send(vec![touch, append]).await?;
        let (appended, touched) = (answers.pop(), answers.pop());
        let appended = appended.ok_or_else(|| corrupt("no answer"))?.map_err(failure)?;
        // A log that is not in the index still goes by its TTL; the append stands.
        if let Some(Err(error)) = touched {
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
        let reply = self.send_one(self.scripts.range(channel, after, limits)).await?;
        scripts::range(reply, after)
    }

    async fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::with_capacity(channels.len());
        for chunk in channels.chunks(HEADS_PER_PIPELINE_MAX) {
            let commands = chunk.iter().map(|channel| self.scripts.head(channel)).collect();
            for answer in self.send(commands).await? {
                heads.push(scripts::head(answer.map_err(failure)?)?);
            }
        }
        Ok(heads)
    }

    fn follow(&self) -> (FollowHandle, FollowStream) {
        let (handle, stream, task) = follow_halves(FOLLOW_QUEUE_EVENTS_MAX);
        tokio::spawn(Follower::new(self.client.clone(), task).run());
        (handle, stream)
    }

    async fn delete(
        &self,
        channel: &ChannelName,
        if_head: Option<Cursor>,
    ) -> Result<bool, StoreError> {
        scripts::value(self.send_one(self.scripts.delete(channel, if_head)).await?)
    }

    async fn delete_idle(&self, idle: &Idle) -> Result<bool, StoreError> {
        let Idle { channel, head, active_us, .. } = idle;
        let deleted = self.delete(channel, Some(*head)).await?;
        if deleted {
            // Compared with what was listed, before anything else: an append that comes while this
            // goes on has touched the index already, or does so later than this.
            self.send_one(self.scripts.untouch(channel, *active_us)).await?;
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
        let listed: Vec<(String, f64)> = scripts::value(self.send_one(list).await?)?;
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
        let answers = self.send(channels.iter().map(fields).collect()).await?;
        let mut idle = Vec::with_capacity(channels.len());
        for ((channel, active_us), answer) in channels.into_iter().zip(answers) {
            let known: [Option<u64>; 4] = scripts::value(answer.map_err(failure)?)?;
            let [epoch, offset, ended, expires_ms] = known.map(Option::unwrap_or_default);
            let head = Cursor::new(epoch, offset);
            idle.push(Idle { channel, head, ended: ended == 1, active_us, expires_ms });
        }
        Ok(idle)
    }

    async fn lease(&self, shard: u32, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        scripts::value(self.send_one(self.scripts.lease(shard, owner, ttl_ms)).await?)
    }

    async fn now_ms(&self) -> Result<u64, StoreError> {
        let time = self.send_one(redis::cmd("TIME")).await?;
        let (seconds, micros): (u64, u64) = scripts::value(time)?;
        Ok(seconds * 1000 + micros / 1000)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.send_one(redis::cmd("PING")).await.map(|_| ())
    }
}
