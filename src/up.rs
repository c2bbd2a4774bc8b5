//! `forebay up`: edge, handlers and store in one process.
//!
//! The same code as in separate processes, and the same sockets between edge and handlers, so that other handlers
//! can attach as well. Starting: data directory, keys, store, edge, handlers; then one request through all of it,
//! and `ready`. Stopping goes the other way: the edge drains while the handlers still answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use forebay_connmgr::Edge;
use forebay_connmgr::config::{Config, ConnmgrCommand};
use forebay_handlers::auth::{Grant, Role};
use forebay_handlers::roles::{Handlers, Roles, RolesConfig};
use forebay_handlers::store::{EmbeddedStore, Fsync, RedisStore, Store};
use tokio::runtime::Runtime;

use crate::handler::{LogArgs, SHUTDOWN_LIMIT, Signals, warn_of_development_keys};
use crate::keys::{Development, KeyArgs};
use crate::limits::LimitArgs;
use crate::{Failure, client, time};

/// The longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long the printed tokens last.
const PRINTED_TOKEN_TTL_S: u64 = 24 * 3600;

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

    /// Keep events in this Redis instead: redis://HOST:PORT/DB or redis+unix:///PATH
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

/// Serves until SIGTERM, SIGINT or SIGQUIT.
pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    let edge_spec = edge_spec(args)?;
    let config = edge_config(args.listen, &edge_spec)?;
    let keys = args.keys.resolve(Some(&args.data_dir))?;
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
            let store = runtime.block_on(RedisStore::open(url))?;
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
    let mut signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    let edge = Edge::start(config)?;
    let url = url(edge.addresses());
    let handlers = runtime.block_on(Handlers::start(roles, store))?;
    announce(&url, development)?;
    runtime.block_on(signals.wait());
    tracing::info!("stopping...");
    let drained = edge.drain();
    runtime.block_on(handlers.shutdown(SHUTDOWN_LIMIT));
    tracing::info!("stopped");
    Ok(drained?)
}

/// The base spec of the sockets between edge and handlers.
fn edge_spec(args: &UpArgs) -> Result<String, Failure> {
    std::fs::create_dir_all(&args.data_dir).map_err(|error| {
        Failure::usage(format!("--data-dir {}: {error}", args.data_dir.display()))
    })?;
    let run_dir = args.run_dir.clone().unwrap_or_else(|| args.data_dir.join("run"));
    std::fs::create_dir_all(&run_dir)
        .map_err(|error| Failure::usage(format!("--run-dir {}: {error}", run_dir.display())))?;
    let base = run_dir.join("client");
    let longest = base.as_os_str().len() + "-out-stream".len();
    if longest > SOCKET_PATH_BYTES_MAX {
        return Err(Failure::usage(format!(
            "--run-dir {}: too long for a socket path; give a shorter one",
            run_dir.display()
        )));
    }
    spec_of(&base)
}

fn spec_of(base: &Path) -> Result<String, Failure> {
    let text = base.to_str().ok_or_else(|| Failure::usage("--run-dir: not UTF-8"))?;
    Ok(format!("ipc://{text}"))
}

/// The edge's configuration: that of `forebay connmgr` with these options. The environment may set the others.
fn edge_config(listen: SocketAddr, spec: &str) -> Result<Config, Failure> {
    let arguments = [
        "forebay".to_owned(),
        format!("--listen={listen}"),
        format!("--zclient-stream={spec}"),
        "--id=up".to_owned(),
    ];
    let command = ConnmgrCommand::try_parse_from(arguments)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Config::resolve(&command.args).map_err(|error| Failure::usage(error.to_string()))
}

fn url(addresses: &[SocketAddr]) -> String {
    addresses.first().map_or_else(String::new, |address| format!("http://{address}"))
}

/// Sends one request through edge and handler; then says that all is ready, and how to use it.
fn announce(url: &str, development: Option<&Development>) -> Result<(), Failure> {
    let mut response = client::agent().get(format!("{url}/healthz")).call()?;
    if !response.status().is_success() {
        return Err(Failure {
            text: format!("not healthy: {}", client::text_of(&mut response)),
            code: 1,
        });
    }
    println!("ready {url}");
    let mint = |role| -> Result<String, Failure> {
        let now_s = time::unix_s();
        let grant = Grant { org: Some("1"), channels: &["*"], ttl_s: PRINTED_TOKEN_TTL_S, now_s };
        let token = development.map(|keys| keys.mint(role, &grant)).transpose()?.flatten();
        Ok(token.unwrap_or_else(|| "$TOKEN".to_owned()))
    };
    println!("\nsubscribe:");
    println!("  curl -N '{url}/events/1?channel_id=demo&token={}'", mint(Role::Subscriber)?);
    println!("publish:");
    println!(
        "  curl -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \
         -d '{{\"phase\":\"PHASE_DELTA\",\"payload\":{{\"value\":\"hello\"}}}}' '{url}/publish/1/demo'",
        mint(Role::Publisher)?
    );
    println!("\nThe tokens are good for a day and every channel of org 1.\n");
    Ok(())
}
