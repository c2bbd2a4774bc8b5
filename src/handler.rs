//! `forebay handler`: the roles as a process of their own.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueEnum};
use forebay_connmgr::log;
use forebay_handlers::attach::{AttachError, LinkError};
use forebay_handlers::roles::{Handlers, Roles, RolesConfig, StartError};
use forebay_handlers::store::{RedisStore, Store};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use crate::Failure;
use crate::keys::{KeyArgs, Keys};
use crate::limits::LimitArgs;

/// How long requests in flight have after the signal to end.
pub(crate) const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Run handlers: stateless processes behind edges. Any number of them may run; each takes its share of requests and
/// channels, and what one leaves behind when it is killed, the others take over
#[derive(Args, Debug)]
pub(crate) struct HandlerArgs {
    /// What this process does: publish takes messages, fanout serves and feeds subscribers, cleanup ends idle channels
    #[arg(
        long,
        env = "FOREBAY_ROLE",
        value_name = "ROLE[,ROLE]",
        value_enum,
        value_delimiter = ',',
        required = true
    )]
    role: Vec<RoleName>,

    /// Base spec of an edge's handler sockets, its --zclient-stream; repeatable
    #[arg(long, env = "FOREBAY_EDGE", value_name = "SPEC", value_delimiter = ' ', required = true)]
    edge: Vec<String>,

    /// Where Redis is: redis://HOST:PORT/DB, redis+unix:///PATH,
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB or redis+cluster://HOST:PORT,HOST:PORT
    #[arg(long, env = "FOREBAY_REDIS", value_name = "URL", hide_env_values = true)]
    redis: String,

    /// Name of this process among the handlers: 1 to 64 bytes without white space [default: made of host and pid]
    #[arg(long, env = "FOREBAY_HANDLER_ID", value_name = "ID")]
    id: Option<String>,

    /// Requests that this process takes at a time from each edge; 0 is no limit
    #[arg(long, env = "FOREBAY_REQUESTS_MAX", value_name = "N", default_value_t = 1000)]
    requests_max: u32,

    /// Trust the development keys of this data directory, where no others are set
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR", help_heading = "Tokens")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    Publish,
    Fanout,
    Cleanup,
}

/// What the process tells of itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogArgs {
    /// How much is logged: 0 errors, 1 warnings, 2 info, 3 debug, 4 trace
    #[arg(long, env = "FOREBAY_LOG_LEVEL", value_name = "N", default_value_t = 2)]
    #[arg(value_parser = ValueParser::from(clap::value_parser!(u8).range(0..=4)))]
    log_level: u8,
}

impl LogArgs {
    /// Begins to log, on standard output.
    pub(crate) fn init(&self) -> Result<(), Failure> {
        let levels = [
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        Ok(log::init(levels[usize::from(self.log_level.min(4))])?)
    }
}

/// Serves until SIGTERM, SIGINT or SIGQUIT; a second one of these ends it at once.
pub(crate) fn run(args: &HandlerArgs) -> Result<(), Failure> {
    let roles = Roles {
        publish: args.role.contains(&RoleName::Publish),
        fanout: args.role.contains(&RoleName::Fanout),
        cleanup: args.role.contains(&RoleName::Cleanup),
    };
    let keys = args.keys.resolve(args.data_dir.as_deref(), roles)?;
    args.log.init()?;
    warn_of_development_keys(&keys);
    let config = RolesConfig {
        id: args.id.clone().unwrap_or_else(default_id),
        edges: args.edge.clone(),
        roles,
        subscriber: keys.subscriber,
        publisher: keys.publisher,
        limits: args.limits.limits(),
        requests_max: args.requests_max,
    };
    Runtime::new()?.block_on(async {
        let signals = Signals::new()?;
        let store = open_redis(&args.redis).await?;
        serve(config, store, signals).await
    })
}

async fn serve<S: Store>(
    config: RolesConfig,
    store: S,
    mut signals: Signals,
) -> Result<(), Failure> {
    let id = config.id.clone();
    let mut handlers = Handlers::start(config, store).await.map_err(|error| refused(&error))?;
    tracing::info!("handler {id} started");
    let failed = tokio::select! {
        () = signals.wait() => None,
        failure = handlers.failed() => Some(failure),
    };
    tracing::info!("stopping...");
    signals.exit_at_next();
    handlers.shutdown(SHUTDOWN_LIMIT).await;
    tracing::info!("stopped");
    failed.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Says loudly that anybody who can read a directory can make tokens.
pub(crate) fn warn_of_development_keys(keys: &Keys) {
    if let Some(development) = &keys.development {
        tracing::warn!(
            "DEVELOPMENT KEYS from {} are trusted; set GATEWAY_JWT_PUBLIC_KEY and PUBLISH_JWT_SECRET for production",
            development.dir().display()
        );
    }
}

/// Opens the store in Redis. One that does not answer is waited for, later; the only error is a wrong address.
pub(crate) async fn open_redis(url: &str) -> Result<RedisStore, Failure> {
    RedisStore::open(url).await.map_err(|error| Failure::usage(format!("--redis: {error}")))
}

/// Says which option is wrong.
fn refused(error: &StartError) -> Failure {
    let option = match error {
        StartError::Attach(AttachError::Link(LinkError::Identity { .. })) => "--id: ",
        StartError::Attach(
            AttachError::Link(_) | AttachError::NoEdge | AttachError::EdgeTwice { .. },
        ) => "--edge: ",
        StartError::Attach(AttachError::Serves { .. }) | StartError::Keys(_) => "",
    };
    Failure::usage(format!("{option}{error}"))
}

/// A name that no other handler has, for as long as this one lives.
fn default_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!("handler-{host}-{}", std::process::id())
}

/// The signals that end a process in good order.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals from now on. Must be called in a runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// From now on the next one ends the process at once. Must be called in a runtime.
    pub(crate) fn exit_at_next(mut self) {
        tokio::spawn(async move {
            self.wait().await;
            std::process::exit(1);
        });
    }

    /// Waits for one of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
