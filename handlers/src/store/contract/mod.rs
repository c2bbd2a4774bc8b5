//! The contract test-suite: what every store must do, run against each of them.
//!
//! A case is a function over any [`Store`], given a fresh one; [`contract!`] makes a test of it for
//! each implementation. What takes long to start is started once for many cases, which then are one
//! test, and emptied between them: for each module's with Sentinels, for all on a cluster. What only one of them has (a
//! server that goes away, a directory that is opened again) is tested beside it, with the helpers that
//! are here.

#![allow(clippy::unwrap_used)]

mod append;
mod cleanup;
mod follow;
mod model;
mod read;
mod servers;

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;
use zhttp::Cursor;

pub(crate) use self::servers::{ClusterServers, RedisServer, WatchedServers};

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

        mod on_sentinel {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $module() {
                    let servers = super::WatchedServers::start().await;
                    $(
                        println!("case {}", stringify!($case));
                        super::$module::$case(servers.open().await).await;
                        servers.flush().await;
                    )+
                }
            )+
        }

        mod on_cluster {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn all() {
                let servers = super::ClusterServers::start(0).await;
                $($(
                    println!("case {} {}", stringify!($module), stringify!($case));
                    super::$module::$case(servers.open().await).await;
                    servers.flush().await;
                )+)+
            }
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
        what_is_beyond_the_head_is_passed_by_a_new_epoch,
        what_is_beyond_a_log_that_is_gone_is_passed_as_well,
        a_log_that_lost_nothing_is_not_torn,
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
        a_cursor_of_a_lost_tail_shows_a_gap,
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
pub(crate) fn event(data: &str) -> NewEvent {
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
pub(crate) const ALL: RangeLimits = RangeLimits { events_max: u32::MAX, bytes_max: u64::MAX };

/// Appends without conditions.
pub(crate) async fn append(store: &impl Store, channel: &ChannelName, event: NewEvent) -> Cursor {
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
