//! The configuration: as typed ([`ConnmgrArgs`]), resolved and checked ([`Config`]), then passed by reference.
//!
//! ```text
//! command line, environment ──clap──▶ ConnmgrArgs ──Config::resolve──▶ Config (immutable)
//! ```
//!
//! clap knows each option by itself: its type, its default, whether it may be repeated; what it refuses ends
//! the process with exit code 2. What takes two options to tell, and all bounds, are checked in
//! [`Config::resolve`], so that they hold as well for `forebay up`, which makes its arguments itself.
//!
//! The checks are those of pushpin-connmgr (`process_args_and_run`), but for two: a worker without a connection is
//! refused here, while Condure finds it out as it starts; and `--req-maxconn` is not compared with `--workers` as
//! long as there is no req mode. What is without effect yet is checked and then left out of [`Config`], so that
//! nobody can believe that it is honoured. Nothing in here does I/O: whether a port is free or a user exists is known
//! when it is bound (`listener.rs`, `bus/`).

mod args;
mod error;
mod listen;
mod route;
mod value;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use args::{
    CompatibilityArgs, ConnmgrArgs, ConnmgrCommand, HandlerArgs, LimitArgs, ListenerArgs,
    LoggingArgs, TimeoutArgs,
};
pub use error::ConfigError;
pub use listen::{ListenSpec, ListenSpecError, UnixSpec};
pub use route::{DEFAULT_GROUP, ROUTES_MAX, Route, RouteError, Routes};
pub use value::{DURATION_SECONDS_MAX, FILE_MODE_MAX, ListValue, ListValueParser, parse_duration};

use crate::bus::{BusConfig, INSTANCE_ID_LEN_MAX, Spec};

/// Most workers. A thread each, so far more than any machine has use for (Condure: a safety value).
pub const WORKERS_MAX: usize = 1024;

/// Most connections, of stream and req mode together (Condure: a safety value).
pub const CONNECTIONS_MAX: usize = 10_000_000;

/// The smallest `--buffer-size`, in bytes. Less would not hold the head of a plain request.
pub const BUFFER_SIZE_MIN: usize = 256;

/// The largest `--buffer-size`, in bytes: what fits one message on the bus with its fields.
pub const BUFFER_SIZE_MAX: usize = 8 * 1024 * 1024;

/// The largest `--client-backlog-max`, in bytes. The ring that holds the backlog can be no larger.
pub const CLIENT_BACKLOG_MAX: usize = 1 << 30;

/// `--listen`, if there is none.
const LISTEN_DEFAULT: &str = "0.0.0.0:8000,stream";

/// `--zclient-stream`, if there is none.
const ZCLIENT_STREAM_DEFAULT: &str = "ipc://client";

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
    /// Where handlers are.
    pub handlers: Handlers,
    /// What the edge may hold.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The most verbose level that is logged.
    pub log_level: LevelFilter,
    /// Print the sizes of key structures and exit, instead of serving.
    pub sizes: bool,
}

/// Where handlers are, and which of them get what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handlers {
    /// Base specs by group, at least one each. Group [`DEFAULT_GROUP`] is that of `--zclient-stream`. No two specs
    /// have an address in common.
    pub groups: Vec<Vec<Spec>>,
    /// Which group gets a path.
    pub routes: Routes,
    /// Connect to the specs, instead of binding them.
    pub connect: bool,
    /// Mode of `ipc` files that are bound. `None`: what the umask gives.
    pub ipc_file_mode: Option<u32>,
}

/// What the edge may hold. All but `stream_maxconn` are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all workers together; at least one for each worker.
    pub stream_maxconn: usize,
    /// What is read ahead for a connection, and what a handler is granted to send in advance.
    pub buffer_size: usize,
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
    /// How long a request waits for a handler. Zero: not at all.
    pub handler_wait: Duration,
    /// How long requests in flight have after the signal to end. Zero: not at all.
    pub drain: Duration,
}

impl Config {
    /// Checks what was typed, and works out what follows from it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn resolve(args: &ConnmgrArgs) -> Result<Config, ConfigError> {
        check_compatibility(&args.compatibility, args.limits.stream_maxconn)?;
        let workers = in_range("workers", args.listeners.workers, 1, WORKERS_MAX)?;
        if args.limits.stream_maxconn < workers {
            return Err(ConfigError::FewerConnectionsThanWorkers {
                stream_maxconn: args.limits.stream_maxconn,
                workers,
            });
        }
        Ok(Config {
            instance_id: resolve_id(&args.handlers.id)?,
            workers: NonZeroUsize::new(workers).expect("its range starts at 1"),
            listen: resolve_listen(&args.listeners.listen)?,
            handlers: Handlers::resolve(&args.handlers)?,
            limits: Limits::resolve(&args.limits)?,
            timeouts: Timeouts::resolve(&args.timeouts)?,
            log_level: log_level(args.logging.log_level),
            sizes: args.logging.sizes,
        })
    }

    /// What the bus is to open.
    pub fn bus(&self) -> BusConfig {
        BusConfig {
            groups: self.handlers.groups.clone(),
            connect: self.handlers.connect,
            ipc_file_mode: self.handlers.ipc_file_mode,
            instance_id: self.instance_id.clone(),
        }
    }
}

impl Handlers {
    fn resolve(args: &HandlerArgs) -> Result<Handlers, ConfigError> {
        let mut default_group = Vec::new();
        for base in value::items(&args.zclient_stream, ZCLIENT_STREAM_DEFAULT) {
            let refused = |reason| ConfigError::ZclientStream { value: base.to_owned(), reason };
            default_group.push(base.parse::<Spec>().map_err(refused)?);
        }
        let mut routes = Vec::new();
        for route in value::items(&args.route, "") {
            let refused = |reason| ConfigError::Route { value: route.to_owned(), reason };
            if routes.len() == ROUTES_MAX {
                return Err(refused(RouteError::TooMany));
            }
            routes.push(route.parse::<Route>().map_err(refused)?);
        }
        let mut groups = vec![default_group];
        let routes = Routes::resolve(routes, &mut groups);
        check_addresses_differ(groups.iter().flatten())?;
        Ok(Handlers {
            groups,
            routes,
            connect: args.zclient_connect,
            ipc_file_mode: Some(args.ipc_file_mode).filter(|&mode| mode != 0),
        })
    }
}

impl Limits {
    fn resolve(args: &LimitArgs) -> Result<Limits, ConfigError> {
        let (tail_bytes, budget) = (args.tail_bytes, args.tail_budget_bytes);
        if tail_bytes > budget {
            return Err(ConfigError::TailOverBudget { tail_bytes, budget });
        }
        let size = args.buffer_size;
        let backlog = args.client_backlog_max;
        Ok(Limits {
            stream_maxconn: args.stream_maxconn,
            buffer_size: in_range("buffer-size", size, BUFFER_SIZE_MIN, BUFFER_SIZE_MAX)?,
            client_backlog_max: in_range("client-backlog-max", backlog, 1, CLIENT_BACKLOG_MAX)?,
            tail_bytes,
            tail_budget_bytes: budget,
        })
    }
}

impl Timeouts {
    fn resolve(args: &TimeoutArgs) -> Result<Timeouts, ConfigError> {
        if args.stream_timeout.is_zero() {
            return Err(ConfigError::ZeroDuration { key: "stream-timeout" });
        }
        Ok(Timeouts {
            stream: args.stream_timeout,
            handler_wait: args.handler_wait,
            drain: args.drain_timeout,
        })
    }
}

/// Refuses what cannot be honoured yet, and what Condure refuses.
fn check_compatibility(args: &CompatibilityArgs, stream_maxconn: usize) -> Result<(), ConfigError> {
    let client_mode = [
        ("zserver-stream", !value::items(&args.zserver_stream, "").is_empty()),
        ("zserver-req", !value::items(&args.zserver_req, "").is_empty()),
        ("zserver-connect", args.zserver_connect),
    ];
    if let Some(&(key, _)) = client_mode.iter().find(|(_, given)| *given) {
        return Err(ConfigError::ClientMode { key });
    }
    let not_supported = [
        ("compression", args.compression),
        ("debug-socket", args.debug_socket.is_some()),
        ("prometheus", args.prometheus.is_some()),
    ];
    if let Some(&(key, _)) = not_supported.iter().find(|(_, given)| *given) {
        return Err(ConfigError::NotSupported { key });
    }
    let req_maxconn = args.req_maxconn;
    if stream_maxconn.saturating_add(req_maxconn) > CONNECTIONS_MAX {
        return Err(ConfigError::TooManyConnections { stream_maxconn, req_maxconn });
    }
    let blocks_min = CONNECTION_BLOCKS_MIN * stream_maxconn;
    let blocks_max = args.blocks_max.unwrap_or(blocks_min);
    at_least("blocks-max", blocks_max, blocks_min)?;
    at_least("connection-blocks-max", args.connection_blocks_max, CONNECTION_BLOCKS_MIN)
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

/// Neighbouring tcp ports overlap, so it is not enough that the base specs differ.
fn check_addresses_differ<'a>(specs: impl Iterator<Item = &'a Spec>) -> Result<(), ConfigError> {
    let mut taken = HashSet::new();
    for spec in specs {
        for address in [spec.out(), spec.out_stream(), spec.inward()] {
            if !taken.insert(address) {
                let (base, address) = (spec.base().to_owned(), address.to_owned());
                return Err(ConfigError::AddressTwice { base, address });
            }
        }
    }
    Ok(())
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

/// Condure's numbers; 4 and more are all the same.
fn log_level(number: usize) -> LevelFilter {
    match number {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::WARN,
        2 => LevelFilter::INFO,
        3 => LevelFilter::DEBUG,
        4.. => LevelFilter::TRACE,
    }
}
