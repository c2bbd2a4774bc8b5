//! Why a configuration was refused. Each error names the option and the value, as an operator would look for them.

use super::address::AddressError;
use super::limits::CONNECTIONS_MAX;
use super::route::RouteError;
use crate::bus::{INSTANCE_ID_LEN_MAX, ReqSpecError, SpecError};

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
    #[error("--{key}={maxconn}: must be at least --workers, which is {workers}")]
    FewerConnectionsThanWorkers {
        /// The option: `stream-maxconn` or `req-maxconn`.
        key: &'static str,
        /// Connections of all workers.
        maxconn: usize,
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
    #[error("--listen={value}: failed to parse listen: {reason}")]
    Listen {
        /// The spec, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// The place for metrics.
    #[error("--prometheus={value}: {reason}")]
    Prometheus {
        /// The spec, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// The place for debug logs.
    #[error("--debug-socket={value}: {reason}")]
    DebugSocket {
        /// The spec, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// An address of req mode.
    #[error("--zclient-req={value}: {reason}")]
    ZclientReq {
        /// The address, as it was typed.
        value: String,
        /// What is wrong with it.
        reason: ReqSpecError,
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
    /// Routes are for stream mode, and nobody listens in it.
    #[error("--route={prefix}…: there is no --listen in stream mode")]
    RouteWithoutStream {
        /// The prefix of the first of them.
        prefix: String,
    },
    /// Two specs have a common address, which can be bound only once.
    #[error(
        "spec {spec}: {address} is taken by another --zclient-stream, --zclient-req or --route"
    )]
    AddressTwice {
        /// The later of the two specs.
        spec: String,
        /// The address that both of them have.
        address: String,
    },
    /// One of `--zserver-*`.
    #[error("client mode (--{key}) is not supported yet")]
    ClientMode {
        /// The option.
        key: &'static str,
    },
}
