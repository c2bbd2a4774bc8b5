//! The command line, as typed.
//!
//! All options of condure 1.10 and pushpin-connmgr, with their names and defaults, and Forebay's own beside them.
//! Both `--option=value` and `--option value` are taken; a single-valued option that is given twice is an error, as
//! in Condure. What may be repeated in Condure may also have several values behind one option there, up to the next
//! option (`--listen 8000 8001,req --workers 4`), and so it may here. Each option is also an environment variable: `FOREBAY_` and its name in capitals. The command line
//! wins. Repeatable options are lists there, separated by white space ([`super::value`]).
//!
//! What is typed here is not yet checked against anything else: that is what [`super::Config::resolve`] does.
//!
//! Options that Condure has and Forebay has no use for stand under *Compatibility*, so that scripts and Pushpin's
//! runner may go on to pass them. Those that would change what the edge does, and cannot be honoured
//! yet, are refused when they are resolved; silence would be worse.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser};

use super::value::{ListValue, ListValueParser, parse_duration, parse_file_mode};
use super::{LISTEN_DEFAULT, ZCLIENT_REQ_DEFAULT, ZCLIENT_STREAM_DEFAULT};

/// The edge as a program of its own.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "forebay-connmgr",
    version,
    about = "Owns the clients' sockets and speaks ZHTTP to handlers. A drop-in for condure and pushpin-connmgr."
)]
pub struct ConnmgrCommand {
    /// Everything; the subcommand of `forebay` has the same.
    #[command(flatten)]
    pub args: ConnmgrArgs,
}

/// The options of the edge, by topic.
#[derive(Args, Clone, Debug)]
#[command(about = "Run the edge: it owns the clients' sockets and speaks ZHTTP to handlers")]
pub struct ConnmgrArgs {
    /// Where clients connect.
    #[command(flatten)]
    pub listeners: ListenerArgs,
    /// Where the handlers are, and how requests find them.
    #[command(flatten)]
    pub handlers: HandlerArgs,
    /// What one edge may hold.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How long things may take.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// What the process tells of itself.
    #[command(flatten)]
    pub observation: ObservationArgs,
    /// What Condure has and Forebay has no use for, or not yet.
    #[command(flatten)]
    pub compatibility: CompatibilityArgs,
}

/// Where clients connect.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listeners")]
pub struct ListenerArgs {
    /// Where to take clients; repeatable. A unix socket is PATH,local and may have ,mode=OCTAL ,user=NAME ,group=NAME.
    /// ,req sends whole requests to --zclient-req, ,stream (the default) sends them in pieces to --zclient-stream. A port
    /// with ,tls is encrypted (TLS 1.2 and 1.3); ,default-cert=NAME is for clients that ask for no name, or for another one.
    /// Several edges may have one port if each says ,shared
    #[arg(long, env = "FOREBAY_LISTEN", value_name = "[ADDR:]PORT[,stream|req][,tls][,shared]", num_args(1..))]
    #[arg(value_parser = ListValueParser, default_value = LISTEN_DEFAULT)]
    pub listen: Vec<ListValue>,

    /// Directory of certificates for listeners with tls: NAME.crt (a chain) and NAME.key, in PEM. A client gets that of
    /// the name it asks for, else _.PARENT, else default-cert. Files that change are loaded within a second
    #[arg(long, env = "FOREBAY_TLS_IDENTITIES_DIR", value_name = "DIR", default_value = ".")]
    pub tls_identities_dir: PathBuf,

    /// Compress WebSocket messages for clients that offer permessage-deflate, each by itself: nothing is kept for a
    /// connection that rests
    #[arg(long, env = "FOREBAY_COMPRESSION", value_parser = BoolishValueParser::new())]
    pub compression: bool,

    /// Worker threads, 1 to 1024; each has its own listener, connections and buffers
    #[arg(long, env = "FOREBAY_WORKERS", value_name = "N", default_value_t = 2)]
    pub workers: usize,
}

/// Where the handlers are, and how requests find them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Handlers")]
pub struct HandlerArgs {
    /// Name by which handlers address this edge: 1 to 64 bytes, no white space, unique among edges with common
    /// handlers
    #[arg(long, env = "FOREBAY_ID", value_name = "ID", default_value = "connmgr")]
    pub id: String,

    /// Address of the DEALER socket of req mode, as it stands: ipc://PATH or tcp://HOST:PORT; repeatable. Opened only if
    /// a listener is req
    #[arg(long, env = "FOREBAY_ZCLIENT_REQ", value_name = "SPEC", num_args(1..))]
    #[arg(value_parser = ListValueParser, default_value = ZCLIENT_REQ_DEFAULT)]
    pub zclient_req: Vec<ListValue>,

    /// Base spec of the PUSH, ROUTER and SUB sockets of stream mode: ipc://PATH or tcp://HOST:PORT (takes 3 ports);
    /// repeatable. Opened only if a listener is stream
    #[arg(long, env = "FOREBAY_ZCLIENT_STREAM", value_name = "BASE", num_args(1..))]
    #[arg(value_parser = ListValueParser, default_value = ZCLIENT_STREAM_DEFAULT)]
    pub zclient_stream: Vec<ListValue>,

    /// Connect to the specs of handlers, instead of binding them
    #[arg(long, env = "FOREBAY_ZCLIENT_CONNECT", value_parser = BoolishValueParser::new())]
    pub zclient_connect: bool,

    /// Send requests of stream mode whose path begins with PREFIX to plain handlers at base spec SPEC; repeatable, the
    /// longest prefix wins
    #[arg(long, env = "FOREBAY_ROUTE", value_name = "PREFIX=SPEC", value_parser = ListValueParser)]
    pub route: Vec<ListValue>,

    /// Mode of the ipc files that are bound, in octal; 0 leaves what the umask gives
    #[arg(long, env = "FOREBAY_IPC_FILE_MODE", value_name = "OCTAL")]
    #[arg(value_parser = parse_file_mode, default_value = "0")]
    pub ipc_file_mode: u32,
}

/// What one edge may hold.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Connections in stream mode, of all workers together; a descriptor each. More wait in the kernel's backlog
    #[arg(long, env = "FOREBAY_STREAM_MAXCONN", value_name = "N", default_value_t = 10_000)]
    pub stream_maxconn: usize,

    /// Connections in req mode, of all workers together; a descriptor each. More wait in the kernel's backlog
    #[arg(long, env = "FOREBAY_REQ_MAXCONN", value_name = "N", default_value_t = 100)]
    pub req_maxconn: usize,

    /// Bytes of a body read ahead for a connection in stream mode, and that its handler may send ahead, 256 to 8388608;
    /// held only while bytes are in flight
    #[arg(long, env = "FOREBAY_BUFFER_SIZE", value_name = "BYTES", default_value_t = 8192)]
    pub buffer_size: usize,

    /// Bytes of a body in req mode, of request and of response, 1 to 14680064; a larger request gets a 413. Held until
    /// the body is whole
    #[arg(long, env = "FOREBAY_BODY_BUFFER_SIZE", value_name = "BYTES", default_value_t = 100_000)]
    pub body_buffer_size: usize,

    /// Bytes of a request head, 1024 to 1048576; a larger one gets a 431. Held until the head is whole
    #[arg(long, env = "FOREBAY_REQUEST_HEAD_MAX", value_name = "BYTES", default_value_t = 32_768)]
    pub request_head_max: usize,

    /// Bytes of a request target (path and query), 64 to --request-head-max; a longer one gets a 414 [default: half of
    /// --request-head-max]
    #[arg(long, env = "FOREBAY_REQUEST_TARGET_MAX", value_name = "BYTES")]
    pub request_target_max: Option<usize>,

    /// Unsent bytes at which a held connection falls behind until it has drained. A slow client takes no more memory
    /// than this, one delivery (64 KiB of events or one larger packet, and what frames each event) and two blocks of
    /// --buffer-size
    #[arg(
        long,
        env = "FOREBAY_CLIENT_BACKLOG_MAX",
        value_name = "BYTES",
        default_value_t = 65_536
    )]
    pub client_backlog_max: usize,

    /// Bytes of newest events kept for each channel, so that clients that come back are served from memory
    #[arg(long, env = "FOREBAY_TAIL_BYTES", value_name = "BYTES", default_value_t = 262_144)]
    pub tail_bytes: usize,

    /// Bytes of newest events kept for all channels together; the memory that tails may take
    #[arg(long, env = "FOREBAY_TAIL_BUDGET_BYTES", value_name = "BYTES")]
    #[arg(default_value_t = 268_435_456)]
    pub tail_budget_bytes: usize,
}

/// How long things may take. All in seconds; fractions and `500ms` are understood.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timeouts")]
pub struct TimeoutArgs {
    /// Seconds without progress after which a connection is closed and its handler gets a cancel; may be 0.5 or 500ms
    #[arg(long, env = "FOREBAY_STREAM_TIMEOUT", value_name = "SECONDS")]
    #[arg(value_parser = parse_duration, default_value = "1800")]
    pub stream_timeout: Duration,

    /// Seconds from the head of a request in req mode to its answer; then it gets a 504, or a 408 if its body is not
    /// there yet
    #[arg(long, env = "FOREBAY_REQ_TIMEOUT", value_name = "SECONDS")]
    #[arg(value_parser = parse_duration, default_value = "30")]
    pub req_timeout: Duration,

    /// Seconds a request waits for a handler before it gets a 503; 0 = not at all. Waiting requests take memory
    #[arg(long, env = "FOREBAY_HANDLER_WAIT", value_name = "SECONDS")]
    #[arg(value_parser = parse_duration, default_value = "10")]
    pub handler_wait: Duration,

    /// Seconds that requests in flight have after SIGTERM; 0 = none. Pushpin's runner kills after 4
    #[arg(long, env = "FOREBAY_DRAIN_TIMEOUT", value_name = "SECONDS")]
    #[arg(value_parser = parse_duration, default_value = "3")]
    pub drain_timeout: Duration,
}

/// What the process tells of itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Observation")]
pub struct ObservationArgs {
    /// Lines on standard output: 0 errors, 1 warnings, 2 information, 3 debugging, 4 everything (slow)
    #[arg(long, env = "FOREBAY_LOG_LEVEL", value_name = "N", default_value_t = 2)]
    pub log_level: usize,

    /// Unix socket that gives each client the log at debug level from then on, whatever --log-level says. A slow client
    /// loses lines and is told how many
    #[arg(long, env = "FOREBAY_DEBUG_SOCKET", value_name = "PATH[,mode=][,user=][,group=]")]
    pub debug_socket: Option<String>,

    /// Where GET /metrics answers with metrics for Prometheus. A unix socket is PATH,local and may have ,mode=OCTAL
    /// ,user=NAME ,group=NAME. ,prefix=P puts P_ before each name
    #[arg(long, env = "FOREBAY_PROMETHEUS", value_name = "[ADDR:]PORT[,prefix=P]")]
    pub prometheus: Option<String>,

    /// Print the sizes of what each connection takes, and exit
    #[arg(long, env = "FOREBAY_SIZES", value_parser = BoolishValueParser::new())]
    pub sizes: bool,
}

/// Options of condure and pushpin-connmgr that are without effect, or refused.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Compatibility")]
pub struct CompatibilityArgs {
    /// Buffer blocks of all connections, at least 2 a connection [default: that]; without effect: buffers are pooled
    #[arg(long, env = "FOREBAY_BLOCKS_MAX", value_name = "N")]
    pub blocks_max: Option<usize>,

    /// Buffer blocks of one connection, at least 2; without effect: buffers are pooled
    #[arg(long, env = "FOREBAY_CONNECTION_BLOCKS_MAX", value_name = "N", default_value_t = 2)]
    pub connection_blocks_max: usize,

    /// WebSocket messages queued for a connection; without effect: what waits is bounded in bytes, by --buffer-size
    #[arg(long, env = "FOREBAY_MESSAGES_MAX", value_name = "N", default_value_t = 100)]
    pub messages_max: usize,

    /// Let no outgoing request reach private networks; without effect until there is a client mode
    #[arg(long, env = "FOREBAY_DENY_OUT_INTERNAL", value_parser = BoolishValueParser::new())]
    pub deny_out_internal: bool,

    /// Spec of the ROUTER socket of client mode; refused, not supported yet
    #[arg(long, env = "FOREBAY_ZSERVER_REQ", value_name = "SPEC", num_args(1..))]
    #[arg(value_parser = ListValueParser)]
    pub zserver_req: Vec<ListValue>,

    /// Base spec of the PULL, ROUTER and PUB sockets of client mode; refused, not supported yet
    #[arg(long, env = "FOREBAY_ZSERVER_STREAM", value_name = "BASE", num_args(1..))]
    #[arg(value_parser = ListValueParser)]
    pub zserver_stream: Vec<ListValue>,

    /// Connect the sockets of client mode; refused, not supported yet
    #[arg(long, env = "FOREBAY_ZSERVER_CONNECT", value_parser = BoolishValueParser::new())]
    pub zserver_connect: bool,
}
