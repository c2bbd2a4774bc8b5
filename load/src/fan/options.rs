//! The command line of `fan`, and the plans that come of it.

use clap::builder::BoolishValueParser;
use clap::{ArgGroup, Args};

use super::body::{self, Body};
use super::publisher::Pacing;
use crate::error::LoadError;
use crate::holder::{self, Ask, Say};
use crate::options::{self, CommonOptions, parse_number, parse_positive};
use crate::sources::Sources;
use crate::wire::mark::MARK_BYTES;
use crate::wire::request::{Header, Request, Target, Template, parse_header, parse_target};

/// Publishes to subscribers.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("pacing").required(true).args(["rate", "one_at_a_time", "window"]))]
pub struct FanOptions {
    #[command(flatten)]
    pub(super) common: CommonOptions,

    /// What a subscriber asks for; {c} is the number of its channel
    #[arg(long, env = "FOREBAY_LOAD_SUBSCRIBE", value_name = "TEMPLATE")]
    #[arg(value_parser = crate::parse_path)]
    subscribe: Option<String>,

    /// Where events are posted; {c} is the number of the channel. With http://HOST:PORT before it, to another server
    #[arg(long, env = "FOREBAY_LOAD_PUBLISH", value_name = "URL-TEMPLATE", value_parser = parse_publish)]
    publish: Option<PublishUrl>,

    /// Subscribe by WebSockets, without it by event streams
    #[arg(long, env = "FOREBAY_LOAD_WEBSOCKET", value_parser = BoolishValueParser::new())]
    websocket: bool,

    /// A message that each WebSocket sends first; {c} is the number of its channel. It is open when the answer has come
    #[arg(long, env = "FOREBAY_LOAD_MESSAGE", value_name = "TEMPLATE", requires = "websocket")]
    message: Option<String>,

    /// What is in the message that answers the first one
    #[arg(long, env = "FOREBAY_LOAD_EXPECT", value_name = "TEXT", requires = "message")]
    #[arg(default_value = "")]
    expect: String,

    /// Subscribers, which go round the channels
    #[arg(long, env = "FOREBAY_LOAD_SUBSCRIBERS", value_name = "N", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) subscribers: u64,

    /// Channels, which the events go round
    #[arg(long, env = "FOREBAY_LOAD_CHANNELS", value_name = "C", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(super) channels: u64,

    /// Bytes of each event's payload, 48 at least: its mark
    #[arg(long, env = "FOREBAY_LOAD_PAYLOAD", value_name = "BYTES", default_value = "125")]
    #[arg(value_parser = clap::value_parser!(u32).range(MARK_BYTES as i64..))]
    pub(super) payload: u32,

    /// What is posted: "json" for Forebay, "raw" for the payload alone, or a text with {payload} (and {c})
    #[arg(
        long,
        env = "FOREBAY_LOAD_BODY",
        value_name = "json|raw|TEMPLATE",
        default_value = "json"
    )]
    #[arg(value_parser = body::parse)]
    pub(super) body: Body,

    /// Events a second, of all channels together
    #[arg(long, env = "FOREBAY_LOAD_RATE", value_name = "EVENTS/S", value_parser = parse_positive)]
    rate: Option<f64>,

    /// The next event when all subscribers have the one before
    #[arg(long, env = "FOREBAY_LOAD_ONE_AT_A_TIME", value_parser = BoolishValueParser::new())]
    pub(super) one_at_a_time: bool,

    /// Back to back, with so many events that not all subscribers have yet
    #[arg(long, env = "FOREBAY_LOAD_WINDOW", value_name = "W")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    window: Option<u32>,

    /// How long it is measured
    #[arg(long, env = "FOREBAY_LOAD_SECONDS", value_name = "S", default_value = "10")]
    #[arg(value_parser = parse_positive)]
    pub(super) seconds: f64,

    /// How long the last subscriber is given until the first event is published
    #[arg(long, env = "FOREBAY_LOAD_SETTLE", value_name = "S", default_value = "0")]
    #[arg(value_parser = parse_number)]
    pub(super) settle: f64,

    /// How long events are published before it is measured
    #[arg(long, env = "FOREBAY_LOAD_WARMUP", value_name = "S", default_value = "1")]
    #[arg(value_parser = parse_number)]
    pub(super) warmup: f64,

    /// A header field of each subscriber's request; repeatable
    #[arg(long, env = "FOREBAY_LOAD_HEADER", value_name = "NAME: VALUE")]
    #[arg(value_delimiter = '\n', value_parser = parse_header)]
    header: Vec<Header>,

    /// A header field of each publish; repeatable
    #[arg(long, env = "FOREBAY_LOAD_PUBLISH_HEADER", value_name = "NAME: VALUE")]
    #[arg(value_delimiter = '\n', value_parser = parse_header)]
    publish_header: Vec<Header>,

    /// Connections that events are published by, with one event at a time each
    #[arg(long, env = "FOREBAY_LOAD_PUBLISH_CONNECTIONS", value_name = "K", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) publish_connections: u32,

    /// Source addresses of the subscribers, 127.0.0.2 and those behind it [default: as many as ports demand]
    #[arg(long, env = "FOREBAY_LOAD_SOURCES", value_name = "K")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    sources: Option<u32>,

    /// New subscribers a second
    #[arg(long, env = "FOREBAY_LOAD_OPEN_RATE", value_name = "CONN/S", default_value = "5000")]
    #[arg(value_parser = parse_number)]
    open_rate: f64,

    /// Threads of the subscribers [default: as many as the descriptors demand]
    #[arg(long, env = "FOREBAY_LOAD_THREADS", value_name = "T")]
    threads: Option<usize>,
}

/// A path, and the server if it is another one.
#[derive(Clone, Debug)]
struct PublishUrl {
    server: Option<Target>,
    path: String,
}

fn parse_publish(text: &str) -> Result<PublishUrl, String> {
    let (server, path) = match text.strip_prefix("http://") {
        Some(rest) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            (Some(parse_target(host)?), format!("/{path}"))
        }
        None => (None, text.to_owned()),
    };
    let path = crate::parse_path(&path)?;
    Ok(PublishUrl { server, path })
}

/// How channels are read and written, where the command line does not say it by itself.
#[derive(Clone, Debug)]
pub struct Channels {
    /// What a subscriber asks for; {c} is the number of its channel.
    pub subscribe: String,
    /// What a WebSocket sends first, and what is in the answer.
    pub message: Option<(String, String)>,
    /// Where events are posted.
    pub publish: String,
    /// Header fields of each subscriber's request.
    pub headers: Vec<Header>,
    /// Header fields of each publish.
    pub publish_headers: Vec<Header>,
}

impl FanOptions {
    /// What all commands have.
    #[must_use]
    pub fn common(&self) -> &CommonOptions {
        &self.common
    }

    /// Whether subscribers are WebSockets.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.websocket
    }

    /// Fills in what the command line has not said.
    pub fn fill(&mut self, channels: Channels) {
        self.subscribe.get_or_insert(channels.subscribe);
        self.publish.get_or_insert(PublishUrl { server: None, path: channels.publish });
        if let (None, Some((message, expect))) = (&self.message, channels.message) {
            (self.message, self.expect) = (Some(message), expect);
        }
        self.header.extend(channels.headers);
        self.publish_header.extend(channels.publish_headers);
    }

    pub(super) fn holder_plan(&self) -> Result<holder::Plan, LoadError> {
        let subscribe = self.subscribe.as_deref();
        let missing = || LoadError::Usage("--subscribe or --org is needed".to_owned());
        let path = Template::new(subscribe.ok_or_else(missing)?, "{c}").modulo(self.channels);
        let target = &self.common.connect;
        let ask = if self.websocket {
            let say = self.message.as_ref().map(|message| Say {
                message: Template::new(message, "{c}").modulo(self.channels),
                expected: self.expect.clone().into_bytes(),
            });
            Ask::Socket { request: Request::upgrade(target, path, &self.header), say }
        } else {
            Ask::Stream(Request::get(target, path, &self.header))
        };
        Ok(holder::Plan {
            sources: Sources::new(target, self.sources, self.subscribers)?,
            ask,
            rate_per_s: self.open_rate,
            threads: options::holders(self.threads, self.subscribers)?,
        })
    }

    /// Where events are posted, and the request that does it.
    pub(super) fn publish_request(&self) -> Result<(Target, Request), LoadError> {
        let missing = || LoadError::Usage("--publish or --org is needed".to_owned());
        let PublishUrl { server, path } = self.publish.as_ref().ok_or_else(missing)?;
        let target = server.as_ref().unwrap_or(&self.common.connect).clone();
        let mut headers = self.publish_header.clone();
        if !headers.iter().any(|header| header.has_name("content-type")) {
            headers.push(Header::new("Content-Type", self.body.content_type()));
        }
        let request = Request::post(&target, Template::new(path, "{c}"), &headers);
        Ok((target, request))
    }

    pub(super) fn pacing(&self) -> Pacing {
        match (self.rate, self.window) {
            (Some(rate), _) => Pacing::rate(rate),
            (None, Some(window)) => Pacing::Window(window.into()),
            (None, None) => Pacing::Window(1),
        }
    }
}
