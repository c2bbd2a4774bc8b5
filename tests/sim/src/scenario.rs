//! What a seed decides before the first step: how many of each there are, the limits of the machines,
//! and which faults happen how often.
//!
//! Limits are drawn from their extremes, 1 among them: what holds at the smallest limits does not
//! hold by luck.

use crate::random::Random;

/// How long a hello counts, in milliseconds.
pub(crate) const TTL_MS: u64 = 3000;

/// Feeders say hello and heads so often, in milliseconds.
pub(crate) const BEAT_MS: u64 = 1000;

/// How long a request waits for a handler, in milliseconds.
pub(crate) const HANDLER_WAIT_MS: u64 = 4000;

/// One draw of everything that stays the same during a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Workers of the edge.
    pub(crate) workers: u16,
    /// Handlers that feed and serve.
    pub(crate) feeders: usize,
    /// Channels.
    pub(crate) channels: usize,
    /// Clients.
    pub(crate) clients: usize,
    /// Milliseconds between two operations, at most.
    pub(crate) operation_gap_ms: u64,
    /// Per mille of pauses of seconds between two operations.
    pub(crate) pause_per_mille: u64,
    /// Limits of the machines.
    pub(crate) limits: Limits,
    /// What goes wrong until calm comes.
    pub(crate) faults: Faults,
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
    /// Bytes of one fan-out.
    pub(crate) fanout_bytes_max: usize,
    /// Bytes that wait for a fan-out.
    pub(crate) queue_bytes_max: usize,
    /// Unsent bytes at which a connection takes nothing more.
    pub(crate) backlog_bytes_max: usize,
    /// Deliveries in a turn of a worker.
    pub(crate) turn_deliveries_max: usize,
    /// Requests that wait for a handler.
    pub(crate) waiting_requests_max: usize,
    /// Requests in flight to one handler; 0 is any number.
    pub(crate) handler_requests_max: u32,
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
    /// Per mille of the store's announcements that are lost.
    pub(crate) announce_loss_per_mille: u64,
    /// The edge is told when a handler's connection is lost.
    pub(crate) losses_reported: bool,
    /// How often handlers are killed, stalled, cut off: a weight.
    pub(crate) handler_weight: u64,
}

impl Scenario {
    /// Draws one.
    pub(crate) fn draw(random: &mut Random) -> Self {
        Scenario {
            workers: random.between(1, 3) as u16,
            feeders: random.between(1, 4) as usize,
            channels: random.between(1, 6) as usize,
            clients: random.between(2, 20) as usize,
            operation_gap_ms: random.pick(&[4, 40, 400]),
            pause_per_mille: random.pick(&[0, 10, 40]),
            limits: Limits::draw(random),
            faults: Faults::draw(random),
        }
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
            fanout_bytes_max: random.pick(&[1, 400, 64 * 1024]),
            queue_bytes_max: random.pick(&[1, 600, 1024 * 1024]),
            backlog_bytes_max: random.pick(&[1, 1000, 64 * 1024]),
            turn_deliveries_max: random.pick(&[1, 4, 1000]),
            waiting_requests_max: random.pick(&[2, 1000]),
            handler_requests_max: random.pick(&[0, 1, 3]),
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
            announce_loss_per_mille: random.pick(&[0, 100, 500]),
            losses_reported: random.chance(500),
            handler_weight: random.pick(&[0, 4, 20]),
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
            announce_loss_per_mille: 0,
            losses_reported: true,
            handler_weight: 0,
        }
    }
}
