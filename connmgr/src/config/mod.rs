//! The configuration: as typed ([`ConnmgrArgs`]), resolved and checked ([`Config`]), then passed by reference.
//!
//! ```text
//! command line, environment ──clap──▶ ConnmgrArgs ──Config::resolve──▶ Config (immutable)
//! ```
//!
//! clap knows each option by itself: its type, its default, whether it may be repeated; what it refuses ends
//! the process with exit code 2 and a text on standard error. What takes two options to tell, and all bounds, are
//! checked in [`Config::resolve`], so that they hold as well for `forebay up`, which makes its arguments itself. What is
//! refused there is a line of the log, as in Condure, so the log is set up before: with [`ConnmgrArgs::log_level`], the
//! one thing that is known without a [`Config`].
//!
//! The checks are those of pushpin-connmgr (`process_args_and_run`), but for one: a worker without a connection is
//! refused here, for the modes that are listened to, while Condure finds it out as it starts. What is without effect is
//! checked and then left out of [`Config`], so that nobody can believe that it is honoured. Nothing in here does I/O:
//! whether a port is free or a user exists is known when it is bound (`listener.rs`, `bus/`).

mod address;
mod args;
mod error;
mod handlers;
mod limits;
mod listen;
mod prometheus;
mod route;
mod value;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use forebay_core::worker::Mode;
use tracing::level_filters::LevelFilter;

pub use address::{AddressError, ListenAddress, UnixSpec};
pub use args::{
    CompatibilityArgs, ConnmgrArgs, ConnmgrCommand, HandlerArgs, LimitArgs, ListenerArgs,
    ObservationArgs, TimeoutArgs,
};
pub use error::ConfigError;
pub use handlers::Handlers;
pub use limits::{
    BODY_BUFFER_SIZE_MAX, BUFFER_SIZE_MAX, BUFFER_SIZE_MIN, CLIENT_BACKLOG_MAX, CONNECTIONS_MAX,
    Limits, REQUEST_HEAD_MAX, REQUEST_HEAD_MIN, REQUEST_TARGET_MIN, Timeouts,
};
pub use listen::{ListenSpec, TlsSpec};
pub use prometheus::{PREFIX_LEN_MAX, PrometheusSpec};
pub use route::{DEFAULT_GROUP, ROUTES_MAX, Route, RouteError, Routes};
pub use value::{DURATION_SECONDS_MAX, FILE_MODE_MAX, ListValue, ListValueParser, parse_duration};

use crate::bus::{BusConfig, INSTANCE_ID_LEN_MAX};

/// Most workers. A thread each, so far more than any machine has use for (Condure: a safety value).
pub const WORKERS_MAX: usize = 1024;

/// `--listen`, if there is none.
const LISTEN_DEFAULT: &str = "0.0.0.0:8000,stream";

/// `--zclient-stream`, if there is none.
const ZCLIENT_STREAM_DEFAULT: &str = "ipc://client";

/// `--zclient-req`, if there is none.
const ZCLIENT_REQ_DEFAULT: &str = "ipc://client";

/// Blocks that Condure gives a connection at least, one for each direction.
const CONNECTION_BLOCKS_MIN: usize = 2;

/// The configuration of an edge. Made by [`Config::resolve`]; all that it says can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What handlers address this edge by: 1 to 64 bytes without white space.
    pub instance_id: String,
    /// Worker threads: 1 to [`WORKERS_MAX`].
    pub workers: NonZeroUsize,
    /// Where clients connect. At least one.
    pub listen: Vec<ListenSpec>,
    /// Where the certificates of listeners with TLS are. Not looked at if there is none.
    pub tls_identities_dir: PathBuf,
    /// WebSockets may be compressed, if their clients offer it.
    pub compression: bool,
    /// Where handlers are.
    pub handlers: Handlers,
    /// What the edge may hold.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Where clients get the log at debug level. `None`: nowhere.
    pub debug_socket: Option<UnixSpec>,
    /// Where metrics are served. `None`: nowhere.
    pub prometheus: Option<PrometheusSpec>,
    /// Print the sizes of key structures and exit, instead of serving.
    pub sizes: bool,
}

impl Config {
    /// Checks what was typed, and works out what follows from it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn resolve(args: &ConnmgrArgs) -> Result<Config, ConfigError> {
        check_compatibility(&args.compatibility, args.limits.stream_maxconn)?;
        let workers = in_range("workers", args.listeners.workers, 1, WORKERS_MAX)?;
        let listen = resolve_listen(&args.listeners.listen)?;
        let limits = Limits::resolve(&args.limits)?;
        check_connections(&listen, workers, &limits)?;
        Ok(Config {
            instance_id: resolve_id(&args.handlers.id)?,
            workers: NonZeroUsize::new(workers).expect("its range starts at 1"),
            handlers: Handlers::resolve(&args.handlers, &listen)?,
            listen,
            tls_identities_dir: args.listeners.tls_identities_dir.clone(),
            compression: args.listeners.compression,
            limits,
            timeouts: Timeouts::resolve(&args.timeouts)?,
            debug_socket: resolve_debug_socket(args.observation.debug_socket.as_deref())?,
            prometheus: resolve_prometheus(args.observation.prometheus.as_deref())?,
            sizes: args.observation.sizes,
        })
    }

    /// What the bus is to open: the sockets of the modes that are listened to.
    pub fn bus(&self) -> BusConfig {
        BusConfig {
            groups: self.handlers.groups.clone(),
            req: self.handlers.req.clone(),
            connect: self.handlers.connect,
            ipc_file_mode: self.handlers.ipc_file_mode,
            instance_id: self.instance_id.clone(),
        }
    }
}

impl ConnmgrArgs {
    /// The most verbose level that is logged on standard output: Condure's numbers; 4 and more are all the same.
    pub fn log_level(&self) -> LevelFilter {
        match self.observation.log_level {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::WARN,
            2 => LevelFilter::INFO,
            3 => LevelFilter::DEBUG,
            4.. => LevelFilter::TRACE,
        }
    }
}

/// Refuses what is not there yet, and what Condure refuses of what is without effect.
fn check_compatibility(args: &CompatibilityArgs, stream_maxconn: usize) -> Result<(), ConfigError> {
    let client_mode = [
        ("zserver-stream", !value::items(&args.zserver_stream, "").is_empty()),
        ("zserver-req", !value::items(&args.zserver_req, "").is_empty()),
        ("zserver-connect", args.zserver_connect),
    ];
    if let Some(&(key, _)) = client_mode.iter().find(|(_, given)| *given) {
        return Err(ConfigError::ClientMode { key });
    }
    let blocks_min = CONNECTION_BLOCKS_MIN.saturating_mul(stream_maxconn);
    let blocks_max = args.blocks_max.unwrap_or(blocks_min);
    at_least("blocks-max", blocks_max, blocks_min)?;
    at_least("connection-blocks-max", args.connection_blocks_max, CONNECTION_BLOCKS_MIN)
}

/// No worker without a connection, in the modes that are listened to.
fn check_connections(
    listen: &[ListenSpec],
    workers: usize,
    limits: &Limits,
) -> Result<(), ConfigError> {
    for spec in listen {
        let (key, maxconn) = match spec.mode {
            Mode::Stream => ("stream-maxconn", limits.stream_maxconn),
            Mode::Req => ("req-maxconn", limits.req_maxconn),
        };
        if maxconn < workers {
            return Err(ConfigError::FewerConnectionsThanWorkers { key, maxconn, workers });
        }
    }
    Ok(())
}

fn resolve_id(id: &str) -> Result<String, ConfigError> {
    let length = 1..=INSTANCE_ID_LEN_MAX;
    if !length.contains(&id.len()) || id.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(ConfigError::InstanceId { value: id.to_owned() });
    }
    Ok(id.to_owned())
}

fn resolve_listen(values: &[ListValue]) -> Result<Vec<ListenSpec>, ConfigError> {
    let parse = |spec: &str| {
        let refused = |reason| ConfigError::Listen { value: spec.to_owned(), reason };
        spec.parse().map_err(refused)
    };
    value::items(values, LISTEN_DEFAULT).into_iter().map(parse).collect()
}

fn resolve_debug_socket(value: Option<&str>) -> Result<Option<UnixSpec>, ConfigError> {
    let parse = |spec| {
        let refused = |reason| ConfigError::DebugSocket { value: String::from(spec), reason };
        UnixSpec::parse(spec).map_err(refused)
    };
    value.map(parse).transpose()
}

fn resolve_prometheus(value: Option<&str>) -> Result<Option<PrometheusSpec>, ConfigError> {
    let parse = |spec: &str| {
        let refused = |reason| ConfigError::Prometheus { value: spec.to_owned(), reason };
        spec.parse().map_err(refused)
    };
    value.map(parse).transpose()
}

fn in_range(key: &'static str, value: usize, min: usize, max: usize) -> Result<usize, ConfigError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ConfigError::OutOfRange { key, value, min, max })
    }
}

fn at_least(key: &'static str, value: usize, min: usize) -> Result<(), ConfigError> {
    if value >= min { Ok(()) } else { Err(ConfigError::TooSmall { key, value, min }) }
}
