//! `forebay load`: measures a server, this one or another. What it does is in `forebay-load`; here its command line gets what
//! Forebay's channels need: paths, tokens and messages.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use forebay_handlers::auth::{DevKeys, Grant, Minter, Role};
use forebay_load::fan::{Channels, FanOptions};
use forebay_load::idle::IdleOptions;
use forebay_load::publish::{PublishOptions, Publishing};
use forebay_load::requests::RequestsOptions;
use forebay_load::{Header, LoadError};
use serde_json::json;

use crate::names::{parse_channel, parse_org};
use crate::{Failure, time};

/// How long a token lasts: longer than any measurement.
const TOKEN_TTL_S: u64 = 24 * 3600;

/// Measure a server with many connections, subscribers, publishers or requests. Speaks HTTP/1.1 and WebSockets, no TLS.
/// Ctrl-C ends a measurement early, with the report of what was measured
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct LoadArgs {
    #[command(subcommand)]
    command: LoadCommand,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Hold connections, up to a million, and report what they cost and which were lost
    #[command(after_help = IDLE_FIELDS)]
    Idle(Box<IdleOptions>),
    /// Publish to subscribers, and report how long it takes until each has each event
    #[command(after_help = FAN_FIELDS)]
    Fan(Box<FanArgs>),
    /// Publish as fast as events are taken, or at a rate, and report how fast and how long it takes
    #[command(after_help = PUBLISH_FIELDS)]
    Publish(Box<PublishArgs>),
    /// Send requests, and report how many a second are answered and how long it takes
    #[command(after_help = REQUESTS_FIELDS)]
    Requests(Box<RequestsOptions>),
}

const IDLE_FIELDS: &str = "\
JSON: report (\"step\", \"stats\" or \"idle\"), count, open, opened (since the last report), failed, dropped, window_s (since the \
last report), opens_per_s, open_latency_{mean,p50,p90,p99,max}_us (until a connection is open), read_bytes, events, \
server_cpu_us_per_connection (of those opened), server_rss_bytes_per_connection (grown since the begin, of those open), \
generator_rss_bytes, generator_rss_bytes_per_connection; with --hold also hold_s, hold_open, hold_dropped, hold_read_bytes, \
hold_events, and the common ones of that time with hold_ before them. Common ones: server_cpu_s, server_cpu_percent, \
server_rss_bytes (with --pid), generator_cpu_s, generator_busiest_thread_percent, generator_busiest_thread_waited_percent (it \
could run, and had no processor), limited_by_generator (its busiest thread was busy for more than 85 % of the time), \
interrupted, warnings";

const FAN_FIELDS: &str = "\
JSON: subscribers, channels, payload_bytes, window_s, published, publishes_per_s, deliveries, deliveries_per_s, \
latency_{mean,p50,p90,p99,max}_us (from the sending of an event to each delivery), last_delivery_…_us (to that of the last \
subscriber), publish_latency_…_us (to the answer), publish_lag_…_us (with --rate: sent later than it was due), \
read_bytes_per_delivery, lost, repeated, strayed (to a subscriber of another channel), damaged, unfinished_events (not all \
had it when it was given up), dropped (subscribers), statuses (of publishes), failed, reconnects, server_cpu_us_per_delivery, \
and the common ones, which forebay load idle --help tells";

const PUBLISH_FIELDS: &str = "\
JSON: connections, channels, payload_bytes, batch, window_s, events (stored), events_per_s, requests_per_s, \
latency_{mean,p50,p90,p99,max}_us (of a request), statuses, failed (without an answer), reconnects, \
refused_events_of_batches, server_cpu_us_per_request, and the common ones, which forebay load idle --help tells";

const REQUESTS_FIELDS: &str = "\
JSON: connections, window_s, requests (answered), requests_per_s, read_bytes_per_s, latency_{mean,p50,p90,p99,max}_us, \
statuses, failed (without an answer), reconnects, server_cpu_us_per_request, and the common ones, which forebay load idle \
--help tells";

#[derive(Args, Debug)]
struct FanArgs {
    #[command(flatten)]
    options: FanOptions,

    #[command(flatten)]
    forebay: ForebayArgs,
}

#[derive(Args, Debug)]
struct PublishArgs {
    #[command(flatten)]
    options: PublishOptions,

    #[command(flatten)]
    forebay: ForebayArgs,
}

/// Channels of Forebay.
#[derive(Args, Debug)]
#[command(next_help_heading = "Channels of Forebay")]
struct ForebayArgs {
    /// The org; paths, messages and tokens are then filled in
    #[arg(long, env = "FOREBAY_ORG", value_name = "ORG", value_parser = parse_org)]
    org: Option<String>,

    /// Channels have this before their number [default: another one each time]
    #[arg(
        long,
        env = "FOREBAY_LOAD_CHANNEL_PREFIX",
        value_name = "P",
        value_parser = parse_channel
    )]
    channel_prefix: Option<String>,

    /// The data directory of `forebay up`, for its development keys
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR", default_value = "./forebay-data")]
    keys: PathBuf,
}

impl ForebayArgs {
    /// Channels `PREFIX0`, `PREFIX1` and so on, which nobody has used if no prefix was given.
    fn prefix(&self) -> String {
        let fresh = || format!("load-{:x}-{:x}-", time::unix_s(), std::process::id());
        self.channel_prefix.clone().unwrap_or_else(fresh)
    }

    /// A header field with a token for all channels with a prefix.
    fn authorization(&self, role: Role, org: &str, prefix: &str) -> Result<Header, Failure> {
        // A client makes no keys: nobody would trust them.
        if !self.keys.join("keys").is_dir() {
            let keys = self.keys.display();
            return Err(Failure::usage(format!(
                "--keys: there are no development keys of forebay up in {keys}"
            )));
        }
        let minter = Minter::new(DevKeys::load_or_create(&self.keys)?.minter_config(role))?;
        let pattern = format!("{prefix}*");
        let now_s = time::unix_s();
        let grant = Grant { org: Some(org), channels: &[&pattern], ttl_s: TOKEN_TTL_S, now_s };
        Ok(Header::new("Authorization", &format!("Bearer {}", minter.mint(&grant)?)))
    }

    fn publish_path(org: &str, prefix: &str) -> String {
        format!("/publish/{org}/{prefix}{{c}}")
    }

    /// What `fan` needs, if it is for Forebay.
    fn channels(&self, is_websocket: bool) -> Result<Option<Channels>, Failure> {
        let Some(org) = &self.org else { return Ok(None) };
        let prefix = self.prefix();
        let channel = format!("{prefix}{{c}}");
        let say = json!({"id": 1, "type": "subscribe", "channel": &channel, "cursor": "$"});
        let message = (say.to_string(), r#""type":"answer""#.to_owned());
        let subscribe = if is_websocket {
            format!("/ws/{org}")
        } else {
            format!("/events/{org}?channel_id={channel}&last_event_id=$")
        };
        Ok(Some(Channels {
            subscribe,
            message: is_websocket.then_some(message),
            publish: Self::publish_path(org, &prefix),
            headers: vec![self.authorization(Role::Subscriber, org, &prefix)?],
            publish_headers: vec![self.authorization(Role::Publisher, org, &prefix)?],
        }))
    }

    /// What `publish` needs.
    fn publishing(&self) -> Result<Publishing, Failure> {
        let org = self.org.as_deref().ok_or_else(|| Failure::usage("--org is needed"))?;
        let prefix = self.prefix();
        let headers = vec![self.authorization(Role::Publisher, org, &prefix)?];
        Ok(Publishing { path: Self::publish_path(org, &prefix), headers })
    }
}

/// Measures, and prints reports.
pub(crate) fn run(args: LoadArgs) -> Result<(), Failure> {
    let result = match args.command {
        LoadCommand::Idle(options) => forebay_load::idle::run(&options),
        LoadCommand::Fan(args) => {
            let FanArgs { mut options, forebay } = *args;
            if let Some(channels) = forebay.channels(options.is_websocket())? {
                options.fill(channels);
            }
            forebay_load::fan::run(&options)
        }
        LoadCommand::Publish(args) => {
            forebay_load::publish::run(&args.options, &args.forebay.publishing()?)
        }
        LoadCommand::Requests(options) => forebay_load::requests::run(&options),
    };
    result.map_err(|error: LoadError| Failure { text: error.to_string(), code: error.exit_code() })
}
