//! What an edge may hold and how long things may take, with the bounds of each option.
//!
//! Every bound has a name here and is told by the option's help. Lower bounds are where the edge would be of no use, upper
//! ones where it would break something else: a message on the bus, a buffer's largest size, a sum of milliseconds.

use std::time::Duration;

use forebay_core::http1::HeadLimits;

use super::args::{LimitArgs, TimeoutArgs};
use super::{ConfigError, in_range};
use crate::bus::MESSAGE_SIZE_MAX;

/// Most connections, of stream and req mode together (Condure: a safety value).
pub const CONNECTIONS_MAX: usize = 10_000_000;

/// The smallest `--buffer-size`, in bytes. Less would make a packet of a few bytes of body.
pub const BUFFER_SIZE_MIN: usize = 256;

/// The largest `--buffer-size`, in bytes: what fits one message on the bus with its fields.
pub const BUFFER_SIZE_MAX: usize = 8 * 1024 * 1024;

/// The largest `--client-backlog-max`, in bytes. Nobody means more.
pub const CLIENT_BACKLOG_MAX: usize = 1 << 30;

/// The smallest `--request-head-max`, in bytes. Less would not hold the head of a plain request of a browser.
pub const REQUEST_HEAD_MIN: usize = 1024;

/// The largest `--request-head-max`, in bytes. So much may a client make us hold for a connection before anybody has seen
/// the request.
pub const REQUEST_HEAD_MAX: usize = 1024 * 1024;

/// The smallest `--request-target-max`, in bytes. RFC 9112 §3 asks for room for 8000.
pub const REQUEST_TARGET_MIN: usize = 64;

/// The largest `--body-buffer-size`, in bytes. In req mode a request is one message on the bus: its body, its head, and
/// for the framing of the head's fields as much again.
pub const BODY_BUFFER_SIZE_MAX: usize = MESSAGE_SIZE_MAX - 2 * REQUEST_HEAD_MAX;

/// What the edge may hold. All but the numbers of connections are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in stream mode, of all workers together; at least one for each worker, if a listener is stream.
    pub stream_maxconn: usize,
    /// Connections in req mode, of all workers together; at least one for each worker, if a listener is req.
    pub req_maxconn: usize,
    /// What is read ahead for a connection in stream mode, and what a handler is granted to send in advance.
    pub buffer_size: usize,
    /// The body of a request in req mode, and of its response; 1 to [`BODY_BUFFER_SIZE_MAX`].
    pub body_buffer_size: usize,
    /// The head of a request, and its target.
    pub head: HeadLimits,
    /// Unsent bytes at which a held connection falls behind.
    pub client_backlog_max: usize,
    /// Newest events kept for one channel. 0 keeps none.
    pub tail_bytes: usize,
    /// Newest events kept for all channels together; at least `tail_bytes`.
    pub tail_budget_bytes: usize,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Without progress a connection is closed after that long; more than zero.
    pub stream: Duration,
    /// In req mode: from the head of a request to its answer; more than zero.
    pub req: Duration,
    /// How long a request waits for a handler. Zero: not at all.
    pub handler_wait: Duration,
    /// How long requests in flight have after the signal to end. Zero: not at all.
    pub drain: Duration,
}

impl Limits {
    pub(super) fn resolve(args: &LimitArgs) -> Result<Limits, ConfigError> {
        let (stream_maxconn, req_maxconn) = (args.stream_maxconn, args.req_maxconn);
        if stream_maxconn.saturating_add(req_maxconn) > CONNECTIONS_MAX {
            return Err(ConfigError::TooManyConnections { stream_maxconn, req_maxconn });
        }
        let (tail_bytes, budget) = (args.tail_bytes, args.tail_budget_bytes);
        if tail_bytes > budget {
            return Err(ConfigError::TailOverBudget { tail_bytes, budget });
        }
        let size = args.buffer_size;
        let body = args.body_buffer_size;
        let backlog = args.client_backlog_max;
        Ok(Limits {
            stream_maxconn,
            req_maxconn,
            buffer_size: in_range("buffer-size", size, BUFFER_SIZE_MIN, BUFFER_SIZE_MAX)?,
            body_buffer_size: in_range("body-buffer-size", body, 1, BODY_BUFFER_SIZE_MAX)?,
            head: resolve_head(args)?,
            client_backlog_max: in_range("client-backlog-max", backlog, 1, CLIENT_BACKLOG_MAX)?,
            tail_bytes,
            tail_budget_bytes: budget,
        })
    }
}

fn resolve_head(args: &LimitArgs) -> Result<HeadLimits, ConfigError> {
    let head = args.request_head_max;
    let head = in_range("request-head-max", head, REQUEST_HEAD_MIN, REQUEST_HEAD_MAX)?;
    // A head that is made smaller should not ask for a second option.
    let target = args.request_target_max.unwrap_or(head / 2);
    let target = in_range("request-target-max", target, REQUEST_TARGET_MIN, head)?;
    Ok(HeadLimits { head_bytes_max: head, target_bytes_max: target })
}

impl Timeouts {
    pub(super) fn resolve(args: &TimeoutArgs) -> Result<Timeouts, ConfigError> {
        let positive = |key, duration: Duration| {
            if duration.is_zero() { Err(ConfigError::ZeroDuration { key }) } else { Ok(duration) }
        };
        Ok(Timeouts {
            stream: positive("stream-timeout", args.stream_timeout)?,
            req: positive("req-timeout", args.req_timeout)?,
            handler_wait: args.handler_wait,
            drain: args.drain_timeout,
        })
    }
}
