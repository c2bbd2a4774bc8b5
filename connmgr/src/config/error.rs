//! Why a configuration was refused. Each error names the option and the value, as an operator would look for them.

use super::listen::ListenSpecError;
use super::route::RouteError;
use super::{CONNECTIONS_MAX, INSTANCE_ID_LEN_MAX};
use crate::bus::SpecError;

/// A value, or two of them together, that cannot be honoured. The operator's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number outside of its bounds.
    #[error("--{key}={value}: must be {min} to {max}")]
    OutOfRange {
        /// The option.
        key: &'static str,
        /// What it was set to.
        value: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A number below its least.
    #[error("--{key}={value}: must be at least {min}")]
    TooSmall {
        /// The option.
        key: &'static str,
        /// What it was set to.
        value: usize,
        /// The least.
        min: usize,
    },
    /// A duration of nothing, where that would make no sense.
    #[error("--{key}=0: must be more than 0 seconds")]
    ZeroDuration {
        /// The option.
        key: &'static str,
    },
    /// The instance id is empty, too long, or has white space in it (a space ends it, on the wire).
    #[error("--id={value:?}: must have 1 to {INSTANCE_ID_LEN_MAX} bytes and no white space")]
    InstanceId {
        /// The id.
        value: String,
    },
    /// A worker would get no connection.
    #[error("--stream-maxconn={stream_maxconn}: must be at least --workers, which is {workers}")]
    FewerConnectionsThanWorkers {
        /// Connections of all workers.
        stream_maxconn: usize,
        /// Workers.
        workers: usize,
    },
    /// More connections than Condure ever allowed.
    #[error(
        "--stream-maxconn={stream_maxconn}: with --req-maxconn={req_maxconn} must be at most {CONNECTIONS_MAX}"
    )]
    TooManyConnections {
        /// Connections in stream mode.
        stream_maxconn: usize,
        /// Connections in req mode.
        req_maxconn: usize,
    },
    /// The tail of one channel would be larger than that of all.
    #[error("--tail-bytes={tail_bytes}: must be at most --tail-budget-bytes, which is {budget}")]
    TailOverBudget {
        /// For one channel.
        tail_bytes: usize,
        /// For all.
        budget: usize,
    },
    /// A listen spec.
    #[error("--listen={value}: {reason}")]
    Listen {
        /// The spec, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: ListenSpecError,
    },
    /// A base spec of the default group.
    #[error("--zclient-stream={value}: {reason}")]
    ZclientStream {
        /// The spec, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: SpecError,
    },
    /// A route.
    #[error("--route={value}: {reason}")]
    Route {
        /// The route, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: RouteError,
    },
    /// Two base specs expand to a common address, which can be bound only once.
    #[error("base spec {base}: {address} is taken by another --zclient-stream or --route")]
    AddressTwice {
        /// The later of the two base specs.
        base: String,
        /// The address that both of them have.
        address: String,
    },
    /// One of `--zserver-*`.
    #[error("client mode (--{key}) is not supported yet")]
    ClientMode {
        /// The option.
        key: &'static str,
    },
    /// Another option of Condure that Forebay does not have yet.
    #[error("--{key} is not supported yet")]
    NotSupported {
        /// The option.
        key: &'static str,
    },
}
