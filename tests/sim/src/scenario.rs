//! What a seed decides before the first step: how many of each there are, the limits of the machines,
//! and which faults happen how often.
//!
//! Limits are drawn from their extremes, 1 among them: what holds at the smallest limits does not
//! hold by luck.

use forebay_core::hold::FanoutLimits;
use forebay_core::worker::TimeoutConfig;

use crate::random::Random;

/// How long a hello counts, in milliseconds.
pub(crate) const TTL_MS: u64 = 3000;

/// Handlers say hello and heads so often, in milliseconds.
pub(crate) const BEAT_MS: u64 = 1000;

/// How long a request waits for a handler, in milliseconds.
pub(crate) const HANDLER_WAIT_MS: u64 = 4000;

/// Bytes of a body in req mode, at most.
pub(crate) const REQ_BODY_BYTES_MAX: usize = 600;

/// Clients of a crowd: more in one channel of one worker than a slice of a fan-out serves.
pub(crate) const CROWD: usize = 80;

/// How many runs in a thousand have a crowd: their steps are worth less.
const CROWDS_PER_MILLE: u64 = 10;

/// One draw of everything that stays the same during a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Workers of the edge.
    pub(crate) workers: u16,
    /// Handlers that say hello.
    pub(crate) roles: Vec<Role>,
    /// Channels.
    pub(crate) channels: usize,
    /// Clients that read channels.
    pub(crate) clients: usize,
    /// Clients that read channels on WebSockets, and speak.
    pub(crate) speakers: usize,
    /// Clients that make other requests.
    pub(crate) visitors: usize,
    /// Milliseconds between two operations, at most.
    pub(crate) operation_gap_ms: u64,
    /// Per mille of pauses of seconds between two operations.
    pub(crate) pause_per_mille: u64,
    /// The padding in an event, in bytes, at most.
    pub(crate) padding_bytes: u64,
    /// Limits of the machines.
    pub(crate) limits: Limits,
    /// When the edge gives up.
    pub(crate) timeouts: TimeoutConfig,
    /// What goes wrong until calm comes.
    pub(crate) faults: Faults,
}

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It feeds and serves.
    Both,
    /// It only feeds.
    Feeds,
    /// It only serves.
    Serves,
    /// It says no hello: requests are pushed to it, and it publishes its answers.
    Plain,
}

/// Limits of the machines, and of the model around them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes of one channel's tail.
    pub(crate) tail_bytes_max: usize,
    /// Bytes of all tails.
    pub(crate) tails_bytes_max: usize,
    /// Bytes of a range.
    pub(crate) range_bytes_max: usize,
    /// Ranges in flight to a feeder.
    pub(crate) ranges_in_flight_max: usize,
    /// Until a range or feed is asked again.
    pub(crate) answer_timeout_ms: u64,
    /// Until a channel without members is let go.
    pub(crate) linger_ms: u64,
    /// Until a worker asks again for a range.
    pub(crate) range_retry_ms: u64,
    /// Unsent bytes at which a held connection takes nothing more.
    pub(crate) backlog_bytes_max: usize,
    /// Credits of a handler.
    pub(crate) buffer_bytes: u32,
    /// Bytes of events in one write, and bytes that wait for a fan-out.
    pub(crate) fanout: FanoutLimits,
    /// Bytes that a socket keeps for a client.
    pub(crate) socket_bytes: usize,
    /// Deliveries in a turn of a worker.
    pub(crate) turn_deliveries_max: usize,
    /// Requests that wait for a handler.
    pub(crate) waiting_requests_max: usize,
    /// Requests in flight to one handler; 0 is any number.
    pub(crate) handler_requests_max: u32,
    /// Messages that wait for a worker; past it events are dropped.
    pub(crate) worker_queue_max: usize,
    /// Packets in the queue of a handler.
    pub(crate) peer_queue_max: usize,
    /// Packets that wait for room in it; past it they are dropped.
    pub(crate) peer_stalled_max: usize,
}

/// What goes wrong; all of it ends when calm comes.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Packets about feeding keep their order within a connection.
    pub(crate) fifo: bool,
    /// The longest time on the wire, in milliseconds.
    pub(crate) delay_ms: u64,
    /// The longest time between hub and worker, in milliseconds.
    pub(crate) queue_delay_ms: u64,
    /// Per mille of packets about feeding that are lost.
    pub(crate) loss_per_mille: u64,
    /// Per mille of packets about feeding that come twice.
    pub(crate) repeat_per_mille: u64,
    /// Packets of sessions are lost and repeated too.
    pub(crate) sessions_too: bool,
    /// Per mille of the store's announcements that are lost.
    pub(crate) announce_loss_per_mille: u64,
    /// The edge is told when a handler's connection is lost.
    pub(crate) losses_reported: bool,
    /// How often handlers are killed, stalled, cut off: a weight.
    pub(crate) handler_weight: u64,
    /// How often the edge is killed, drained, paused: a weight.
    pub(crate) edge_weight: u64,
    /// How often the store fails over, falls silent, changes its clock: a weight.
    pub(crate) store_weight: u64,
}

impl Scenario {
    /// Draws one.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut roles = vec![Role::Both];
        for _ in 0..random.up_to(3) {
            let all = [Role::Both, Role::Both, Role::Feeds, Role::Serves];
            roles.push(random.pick(&all));
        }
        for _ in 0..random.up_to(2) {
            roles.push(Role::Plain);
        }
        let is_crowd = random.chance(CROWDS_PER_MILLE);
        Scenario {
            workers: if is_crowd { 1 } else { random.between(1, 3) as u16 },
            roles,
            channels: if is_crowd { 1 } else { random.between(1, 6) as usize },
            clients: if is_crowd { CROWD } else { random.between(2, 14) as usize },
            speakers: if is_crowd { 0 } else { random.pick(&[0, 1, 2, 4]) },
            visitors: random.between(1, 6) as usize,
            operation_gap_ms: random.pick(&[4, 40, 400]),
            pause_per_mille: random.pick(&[0, 10, 40]),
            padding_bytes: if random.chance(15) { 60_000 } else { random.pick(&[10, 300]) },
            limits: if is_crowd {
                // All of them are to be let in.
                let limits = Limits::draw(random);
                Limits { waiting_requests_max: 1000, handler_requests_max: 0, ..limits }
            } else {
                Limits::draw(random)
            },
            timeouts: draw_timeouts(random),
            faults: Faults::draw(random),
        }
    }
}

fn draw_timeouts(random: &mut Random) -> TimeoutConfig {
    TimeoutConfig {
        idle_ms: 10_000,
        session_ms: random.pick(&[5000, 8000]),
        req_ms: random.pick(&[2000, 5000]),
        stream_ms: 12_000,
        keep_alive_ms: random.pick(&[1500, 3000]),
        eof_ms: random.pick(&[100, 1000]),
        linger_ms: random.pick(&[100, 1000]),
        answer_ms: random.pick(&[3000, 6000]),
        message_ms: 20_000,
        close_ms: 1000,
        drain_new_ms: 300,
    }
}

impl Limits {
    fn draw(random: &mut Random) -> Self {
        Limits {
            tail_bytes_max: random.pick(&[1, 800, 64 * 1024]),
            tails_bytes_max: random.pick(&[1, 2000, 1024 * 1024]),
            range_bytes_max: random.pick(&[1, 300, 64 * 1024]),
            ranges_in_flight_max: random.pick(&[1, 2, 16]),
            answer_timeout_ms: random.pick(&[300, 2000]),
            linger_ms: random.pick(&[0, 500, 5000]),
            range_retry_ms: random.pick(&[1000, 4000]),
            backlog_bytes_max: random.pick(&[1, 1000, 64 * 1024]),
            buffer_bytes: random.pick(&[600, 600, 8192]),
            fanout: FanoutLimits {
                write_bytes_max: random.pick(&[1, 400, 64 * 1024]),
                queue_bytes_max: random.pick(&[1, 1000, 1024 * 1024]),
            },
            socket_bytes: random.pick(&[1, 200, 64 * 1024]),
            turn_deliveries_max: random.pick(&[1, 4, 1000]),
            waiting_requests_max: random.pick(&[2, 1000]),
            handler_requests_max: random.pick(&[0, 1, 3]),
            worker_queue_max: random.pick(&[2, 20, 20_000]),
            peer_queue_max: random.pick(&[3, 1000]),
            peer_stalled_max: random.pick(&[5, 10_000]),
        }
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        Faults {
            fifo: random.chance(400),
            delay_ms: random.pick(&[0, 5, 60, 1500]),
            queue_delay_ms: random.pick(&[0, 3, 3, 300]),
            loss_per_mille: random.pick(&[0, 0, 50, 300]),
            repeat_per_mille: random.pick(&[0, 0, 50, 300]),
            sessions_too: random.chance(200),
            announce_loss_per_mille: random.pick(&[0, 100, 500]),
            losses_reported: random.chance(500),
            handler_weight: random.pick(&[0, 4, 20]),
            edge_weight: random.pick(&[0, 0, 1, 4]),
            store_weight: random.pick(&[0, 2, 6]),
        }
    }

    /// No faults, on a wire that is quick but not instant.
    pub(crate) const fn none() -> Self {
        Faults {
            fifo: true,
            delay_ms: 3,
            queue_delay_ms: 3,
            loss_per_mille: 0,
            repeat_per_mille: 0,
            sessions_too: false,
            announce_loss_per_mille: 0,
            losses_reported: true,
            handler_weight: 0,
            edge_weight: 0,
            store_weight: 0,
        }
    }
}
