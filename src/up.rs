//! `forebay up`: edge, handlers and store in one process.
//!
//! The same code as in separate processes, and the same sockets between edge and handlers, so that other handlers
//! can attach as well. Starting: data directory, keys, store, edge, handlers; then one request through all of it,
//! and `ready`. Stopping goes the other way: the edge drains while the handlers still answer.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use forebay_connmgr::Edge;
use forebay_connmgr::config::{Config, ConnmgrCommand};
use forebay_handlers::auth::{Grant, Role};
use forebay_handlers::roles::{Handlers, Roles, RolesConfig};
use forebay_handlers::store::{DirectoryLock, EmbeddedStore, Fsync, OpenError, Store};
use tokio::runtime::Runtime;

use crate::handler::{LogArgs, SHUTDOWN_LIMIT, Signals, open_redis, warn_of_development_keys};
use crate::keys::{Development, KeyArgs};
use crate::limits::LimitArgs;
use crate::{Failure, client, time};

/// The longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long the printed tokens last.
const PRINTED_TOKEN_TTL_S: u64 = 24 * 3600;

/// How often it is looked whether the edge is well.
const EDGE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the store is synced to the disk with `--fsync interval`.
const FSYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Run everything in one process: an edge, all handlers and an embedded store. For a laptop or a single server; other
/// handlers may attach to its sockets
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Where clients connect; port 0 takes a free one
    #[arg(
        long,
        env = "FOREBAY_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:8000"
    )]
    listen: SocketAddr,

    /// Where events and development keys are kept; made if it is not there
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR", default_value = "./forebay-data")]
    data_dir: PathBuf,

    /// Keep events in this Redis instead: redis://HOST:PORT/DB, redis+unix:///PATH,
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB or redis+cluster://HOST:PORT,HOST:PORT
    #[arg(long, env = "FOREBAY_REDIS", value_name = "URL", hide_env_values = true)]
    redis: Option<String>,

    /// When the embedded store syncs to the disk. Killing the process loses nothing with any; a power cut may lose
    /// what was not synced
    #[arg(
        long,
        env = "FOREBAY_FSYNC",
        value_name = "WHEN",
        value_enum,
        default_value = "interval"
    )]
    fsync: FsyncName,

    /// Where the sockets are that handlers attach to [default: run in the data directory]
    #[arg(long, env = "FOREBAY_RUN_DIR", value_name = "DIR")]
    run_dir: Option<PathBuf>,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FsyncName {
    /// Before each publish is answered
    Always,
    /// Every second
    Interval,
    /// When the system does
    Never,
}

/// Serves until SIGTERM, SIGINT or SIGQUIT; a second one of these ends it at once.
pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    let directories = Directories::take(args)?;
    let edge_spec = directories.edge_spec()?;
    let config = edge_config(args.listen, &edge_spec)?;
    let keys = args.keys.resolve(Some(&args.data_dir), Roles::ALL)?;
    args.log.init()?;
    warn_of_development_keys(&keys);
    let roles = RolesConfig {
        id: format!("up-{}", std::process::id()),
        edges: vec![edge_spec],
        roles: Roles::ALL,
        subscriber: keys.subscriber,
        publisher: keys.publisher,
        limits: args.limits.limits(),
        requests_max: 0,
    };
    let development = keys.development.as_ref();
    let runtime = Runtime::new()?;
    match &args.redis {
        Some(url) => {
            let store = runtime.block_on(open_redis(url))?;
            serve(&runtime, &config, roles, store, development)
        }
        None => {
            let fsync = match args.fsync {
                FsyncName::Always => Fsync::Always,
                FsyncName::Interval => Fsync::Interval(FSYNC_INTERVAL),
                FsyncName::Never => Fsync::Never,
            };
            let dir = args.data_dir.join("store");
            let store = runtime.block_on(EmbeddedStore::open(&dir, fsync))?;
            let result = serve(&runtime, &config, roles, store.clone(), development);
            let closed = runtime.block_on(store.close());
            result.and(closed.map_err(Failure::from))
        }
    }
}

fn serve<S: Store>(
    runtime: &Runtime,
    config: &Config,
    roles: RolesConfig,
    store: S,
    development: Option<&Development>,
) -> Result<(), Failure> {
    let _context = runtime.enter();
    let mut signals = Signals::new()?;
    let edge = Edge::start(config)?;
    let url = url(edge.addresses());
    let mut handlers = runtime.block_on(Handlers::start(roles, store))?;
    announce(&url, development)?;
    let failed: Option<Failure> = runtime.block_on(async {
        tokio::select! {
            () = signals.wait() => None,
            failure = handlers.failed() => Some(failure.into()),
            () = edge_failed(&edge) => None,
        }
    });
    tracing::info!("stopping...");
    signals.exit_at_next();
    let stopped = if edge.has_failed() { Err(edge.into_failure()) } else { edge.drain() };
    runtime.block_on(handlers.shutdown(SHUTDOWN_LIMIT));
    tracing::info!("stopped");
    stopped?;
    failed.map_or(Ok(()), Err)
}

/// Tends the edge. Returns when a thread of it has ended though nobody stopped it.
async fn edge_failed(edge: &Edge) {
    let mut looks = tokio::time::interval(EDGE_LOOK_INTERVAL);
    while !edge.has_failed() {
        edge.tend();
        looks.tick().await;
    }
}

/// The directories of one `forebay up`. Locked, so that no other process takes its sockets or its events.
struct Directories {
    run: PathBuf,
    _locks: Vec<DirectoryLock>,
}

impl Directories {
    /// Makes them if they are not there, and locks them.
    fn take(args: &UpArgs) -> Result<Self, Failure> {
        let run = args.run_dir.clone().unwrap_or_else(|| args.data_dir.join("run"));
        let lock = |directory: &Path, noun: &str, option: &str| {
            DirectoryLock::take(directory).map_err(|error| match error {
                OpenError::InUse { directory, pid } => Failure {
                    text: format!("{noun} {directory} is in use by another process (pid {pid})"),
                    code: 1,
                },
                OpenError::Directory { directory, source } => {
                    Failure::usage(format!("{option} {directory}: {source}"))
                }
                other @ (OpenError::Address(_) | OpenError::Data { .. }) => other.into(),
            })
        };
        let mut locks = vec![lock(&args.data_dir, "data directory", "--data-dir")?];
        let is_one = match (args.data_dir.canonicalize(), run.canonicalize()) {
            (Ok(data), Ok(run)) => data == run,
            (Err(_), _) | (_, Err(_)) => false,
        };
        if !is_one {
            locks.push(lock(&run, "run directory", "--run-dir")?);
        }
        Ok(Directories { run, _locks: locks })
    }

    /// The base spec of the sockets between edge and handlers.
    fn edge_spec(&self) -> Result<String, Failure> {
        let base = self.run.join("client");
        let longest = base.as_os_str().len() + "-out-stream".len();
        if longest > SOCKET_PATH_BYTES_MAX {
            return Err(Failure::usage(format!(
                "--run-dir {}: too long for a socket path; give a shorter one",
                self.run.display()
            )));
        }
        let base = base.to_str().ok_or_else(|| Failure::usage("--run-dir: not UTF-8"))?;
        Ok(format!("ipc://{base}"))
    }
}

/// The edge's configuration: that of `forebay connmgr` with these options. The environment may set the others.
fn edge_config(listen: SocketAddr, spec: &str) -> Result<Config, Failure> {
    let arguments = [
        "forebay".to_owned(),
        format!("--listen={listen}"),
        format!("--zclient-stream={spec}"),
        "--id=up".to_owned(),
    ];
    let command = ConnmgrCommand::try_parse_from(arguments).map_err(|error| {
        // Its first line says what is wrong; the rest is help for a command line that nobody typed.
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        Failure::usage(line.trim_start_matches("error: "))
    })?;
    Config::resolve(&command.args).map_err(|error| Failure::usage(error.to_string()))
}

fn url(addresses: &[SocketAddr]) -> String {
    addresses.first().map_or_else(String::new, |address| format!("http://{address}"))
}

/// Sends one request through edge and handler; then says that all is ready, and how to use it.
fn announce(url: &str, development: Option<&Development>) -> Result<(), Failure> {
    // Past any proxy of the environment: it is our own socket.
    let request = client::agent().get(format!("{url}/healthz"));
    let mut response = request.config().proxy(None).build().call()?;
    if !response.status().is_success() {
        let text = format!("not healthy: {}", client::text_of(&mut response));
        return Err(Failure { text, code: 1 });
    }
    // Nobody may be reading this; that is no reason not to serve.
    let _ = std::io::stdout().write_all(announcement(url, development)?.as_bytes());
    Ok(())
}

/// What is printed when all is ready.
fn announcement(url: &str, development: Option<&Development>) -> Result<String, Failure> {
    let mint = |role| -> Result<Option<String>, Failure> {
        let now_s = time::unix_s();
        let grant = Grant { org: Some("1"), channels: &["*"], ttl_s: PRINTED_TOKEN_TTL_S, now_s };
        Ok(development.map(|keys| keys.mint(role, &grant)).transpose()?.flatten())
    };
    let (subscribe, publish) = (mint(Role::Subscriber)?, mint(Role::Publisher)?);
    let note = match (&subscribe, &publish) {
        (Some(_), Some(_)) => "The tokens are good for a day and every channel of org 1.",
        (None, None) => "Put tokens of your own into SUBSCRIBE_TOKEN and PUBLISH_TOKEN.",
        (None, Some(_)) => "Put a token of your own into SUBSCRIBE_TOKEN.",
        (Some(_), None) => "Put a token of your own into PUBLISH_TOKEN.",
    };
    let subscribe = subscribe.unwrap_or_else(|| "$SUBSCRIBE_TOKEN".to_owned());
    let publish = publish.unwrap_or_else(|| "$PUBLISH_TOKEN".to_owned());
    Ok(format!(
        r#"ready {url}

subscribe:
  curl -N "{url}/events/1?channel_id=demo&token={subscribe}"
publish:
  curl -H "Authorization: Bearer {publish}" -H "Content-Type: application/json" -d '{{"phase":"PHASE_DELTA","payload":{{"value":"hello"}}}}' "{url}/publish/1/demo"

{note}

"#
    ))
}
