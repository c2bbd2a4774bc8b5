//! The contract test-suite: what every store must do, run against each of them.
//!
//! A case is a function over any [`Store`], given a fresh one; [`contract!`] makes a test of it for
//! each implementation. What only one of them has (a server that goes away, a directory that is
//! opened again) is tested beside it, with the helpers that are here.

#![allow(clippy::unwrap_used)]

mod append;
mod cleanup;
mod follow;
mod model;
mod read;

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;
use zhttp::Cursor;

use super::*;

/// Makes a test of each case for each store.
macro_rules! contract {
    ($($module:ident: $($case:ident),+;)+) => {
        mod on_redis {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let server = super::RedisServer::start().await;
                    super::$module::$case(server.open().await).await;
                }
            )+)+
        }

        mod on_embedded {
            use crate::store::{EmbeddedStore, Fsync};

            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let directory = tempfile::tempdir().unwrap();
                    let store = EmbeddedStore::open(directory.path(), Fsync::default()).await;
                    let store = store.unwrap();
                    super::$module::$case(store.clone()).await;
                    store.close().await.unwrap();
                }
            )+)+
        }
    };
}

contract! {
    append:
        ids_count_from_one_within_an_epoch,
        an_append_after_an_end_continues_the_log,
        a_repeated_message_id_gets_the_earlier_id,
        a_repeated_message_id_is_not_charged_or_compared,
        a_message_id_is_forgotten_in_time,
        a_message_id_counts_no_longer_than_its_log,
        expect_compares_the_offset,
        one_of_many_with_the_same_expectation_wins,
        one_of_many_with_the_same_message_id_is_stored,
        concurrent_appends_leave_no_hole,
        a_rate_refuses_and_says_exactly_until_when,
        what_is_refused_is_not_charged,
        a_rate_of_zero_refuses_everything,
        an_end_is_fenced;
    read:
        a_range_is_what_was_appended,
        any_bytes_come_back,
        a_range_keeps_its_limits,
        a_long_range_is_whole,
        nothing_is_beyond_the_head,
        a_trimmed_log_shows_a_gap,
        trimming_is_exact_over_epochs,
        a_recreated_log_shows_a_gap,
        heads_come_in_order_with_unknown_ones,
        a_new_epoch_is_the_stores_clock;
    cleanup:
        a_deletion_is_fenced,
        epochs_grow_over_deletions,
        an_idle_log_expires,
        an_end_has_its_own_ttl,
        an_append_after_an_end_lives_on,
        idle_channels_are_listed_longest_first,
        an_expired_channel_is_listed_until_it_is_deleted,
        a_lease_has_one_owner,
        a_store_answers_pings;
    follow:
        a_follower_gets_what_it_follows_in_order,
        a_follower_is_told_of_a_deletion,
        two_followers_get_the_same,
        following_ends_with_the_stream;
    model:
        random_operations_agree_with_a_list;
}

/// The name of a channel for tests.
pub(super) fn room(name: &str) -> ChannelName {
    ChannelName::new("acme", name).unwrap()
}

/// An event with that data.
pub(super) fn event(data: &str) -> NewEvent {
    let data = Bytes::copy_from_slice(data.as_bytes());
    NewEvent { message_id: None, end: false, kind: EventKind::Stream, data }
}

/// An END.
pub(super) fn end_event() -> NewEvent {
    NewEvent { end: true, ..event("end") }
}

/// An event with that message id.
pub(super) fn event_with_id(number: u128) -> NewEvent {
    NewEvent { message_id: Some(Uuid::from_u128(number)), ..event("with id") }
}

/// Conditions that always hold, with that retention.
pub(super) fn kept(retention: Retention) -> Conditions {
    Conditions { retention, ..Conditions::default() }
}

/// Limits that are never reached.
pub(super) const ALL: RangeLimits = RangeLimits { events_max: u32::MAX, bytes_max: u64::MAX };

/// Appends without conditions.
pub(super) async fn append(store: &impl Store, channel: &ChannelName, event: NewEvent) -> Cursor {
    let appended = store.append(channel, event, &Conditions::default()).await.unwrap();
    assert!(!appended.duplicate);
    appended.id
}

/// The head of one channel.
pub(super) async fn head(store: &impl Store, channel: &ChannelName) -> Head {
    store.heads(std::slice::from_ref(channel)).await.unwrap()[0]
}

/// Asks until the answer is yes. Fails after a time that only something broken needs.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let patience = Duration::from_secs(60);
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < patience, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A Redis server of the test's own, on a unix socket in a directory of its own.
pub(crate) struct RedisServer {
    directory: tempfile::TempDir,
    durable: bool,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    pub(super) async fn start() -> Self {
        let mut server = RedisServer::prepare(false);
        server.resume().await;
        server
    }

    /// One that is not started yet; `durable` ones have what they acknowledged after a restart.
    pub(crate) fn prepare(durable: bool) -> Self {
        RedisServer { directory: tempfile::tempdir().unwrap(), durable, child: None }
    }

    fn socket(&self) -> String {
        self.directory.path().join("redis.sock").display().to_string()
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Starts the server, again if it was killed, and waits until it answers.
    pub(crate) async fn resume(&mut self) {
        let durable = if self.durable { "yes" } else { "no" };
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--unixsocket", &self.socket(), "--save", ""]);
        command.args(["--appendonly", durable, "--appendfsync", "always"]);
        command.arg("--dir").arg(self.directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed"));
        let client = ::redis::Client::open(self.url()).unwrap();
        eventually("the Redis server answers", || async {
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                return false;
            };
            ::redis::cmd("DBSIZE").exec_async(&mut connection).await.is_ok()
        })
        .await;
    }

    /// Kills the server, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            // The socket of a killed server remains; a new one would make it anew.
            let _ = std::fs::remove_file(Path::new(&self.socket()));
        }
    }

    pub(crate) async fn open(&self) -> RedisStore {
        RedisStore::open(&self.url()).await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
