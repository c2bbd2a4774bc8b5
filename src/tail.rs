//! `forebay tail`: prints events as they come, and comes back by itself.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::Args;
use forebay_handlers::auth::Role;
use serde_json::{Value, json};
use ureq::{Agent, Body};

use crate::Failure;
use crate::client::sse::{SseEvent, SseReader};
use crate::client::{self, ServerArgs, escape};
use crate::keys::TokenSource;
use crate::names::{parse_channel, parse_org};

/// A connection on which nothing came for so long is dead: three keep-alives were due.
const SILENCE_MAX: Duration = Duration::from_secs(50);

/// Lines read ahead of printing.
const LINES_AHEAD_MAX: usize = 1024;

/// Print the events of channels as they come. Resumes by itself after any interruption, says gaps on standard error,
/// and ends when every channel has ended
#[derive(Args, Debug)]
pub(crate) struct TailArgs {
    /// The org
    #[arg(long, env = "FOREBAY_ORG", value_name = "ORG", value_parser = parse_org)]
    org: String,

    /// A channel; repeatable
    #[arg(
        long,
        env = "FOREBAY_CHANNEL",
        value_name = "CHANNEL",
        value_delimiter = ' ',
        value_parser = parse_channel,
        required = true
    )]
    channel: Vec<String>,

    /// Begin after this event, or with $ from now on [default: at the oldest event that is kept]
    #[arg(long, env = "FOREBAY_FROM", value_name = "CURSOR")]
    from: Option<String>,

    /// Print one JSON object a line: id, event, data
    #[arg(long, env = "FOREBAY_JSON", value_parser = clap::builder::BoolishValueParser::new())]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    token: TokenSource,
}

/// What became of one connection.
enum Ended {
    /// Nobody reads what is printed.
    Reader,
    /// With the end of a channel: perhaps the last, which the next answer says.
    Channel,
    /// The connection is gone; come back.
    Connection(String),
}

/// Prints events until the channels end.
pub(crate) fn run(args: &TailArgs) -> Result<(), Failure> {
    let channels: Vec<&str> = args.channel.iter().map(String::as_str).collect();
    let token = args.token.token(Role::Subscriber, &args.org, &channels)?;
    let query: Vec<String> =
        channels.iter().map(|channel| format!("channel_id={}", escape(channel))).collect();
    let url = args.server.url(&format!("/events/{}?{}", args.org, query.join("&")));
    let agent = client::agent();
    let mut reader = SseReader::from(args.from.clone().unwrap_or_default());
    let mut attempt = 0;
    loop {
        let before = reader.last_event_id.clone();
        reader.reconnected();
        let (why, wait) = match connect(&agent, &url, &token, &reader, attempt)? {
            Connected::Ended => return Ok(()),
            Connected::Refused(why, wait) => (why, wait),
            Connected::Open(body) => match follow(args, body, &mut reader)? {
                Ended::Reader => return Ok(()),
                Ended::Channel => continue,
                Ended::Connection(why) => (why, reader.retry.unwrap_or_default()),
            },
        };
        attempt = if reader.last_event_id == before { attempt + 1 } else { 0 };
        if attempt > 0 {
            eprintln!("waiting: {why}");
        }
        std::thread::sleep(wait.max(client::wait_before_retry(None, attempt.saturating_sub(1))));
    }
}

/// What became of one request.
enum Connected {
    Open(Body),
    Ended,
    /// For now; come again after that time.
    Refused(String, Duration),
}

fn connect(
    agent: &Agent,
    url: &str,
    token: &str,
    reader: &SseReader,
    attempt: u32,
) -> Result<Connected, Failure> {
    let mut request = agent
        .get(url)
        .header("Accept", "text/event-stream")
        .header("Authorization", format!("Bearer {token}"));
    if !reader.last_event_id.is_empty() {
        request = request.header("Last-Event-ID", &reader.last_event_id);
    }
    let mut response = match request.call() {
        Ok(response) => response,
        Err(error) if client::may_pass(&error) => {
            let wait = client::wait_before_retry(None, attempt);
            return Ok(Connected::Refused(error.to_string(), wait));
        }
        Err(error) => return Err(error.into()),
    };
    match response.status().as_u16() {
        200 => Ok(Connected::Open(response.into_body())),
        204 => Ok(Connected::Ended),
        status if client::is_transient(status) => {
            let wait = client::wait_before_retry(Some(response.headers()), attempt);
            Ok(Connected::Refused(client::text_of(&mut response), wait))
        }
        _ => Err(Failure { text: client::text_of(&mut response), code: 1 }),
    }
}

/// Prints what comes over one connection.
fn follow(args: &TailArgs, body: Body, reader: &mut SseReader) -> Result<Ended, Failure> {
    let (lines, received) = mpsc::sync_channel(LINES_AHEAD_MAX);
    // A thread of its own, because a blocking read cannot be given up; it ends with the connection.
    std::thread::spawn(move || {
        for line in BufReader::new(body.into_reader()).lines() {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut out = std::io::stdout().lock();
    let mut has_ended = false;
    loop {
        let line = match received.recv_timeout(SILENCE_MAX) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Ok(Ended::Connection(error.to_string())),
            Err(RecvTimeoutError::Timeout) => return Ok(Ended::Connection("nothing came".into())),
            Err(RecvTimeoutError::Disconnected) if has_ended => return Ok(Ended::Channel),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Ended::Connection("the server closed".into()));
            }
        };
        if let Some(event) = reader.handle_line(&line) {
            let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
            has_ended = data["phase"] == "PHASE_END";
            match print(&mut out, args.json, &reader.last_event_id, &event, &data) {
                // Whoever read this has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Ended::Reader),
                printed => printed?,
            }
        }
    }
}

fn print(
    out: &mut impl Write,
    json: bool,
    id: &str,
    event: &SseEvent,
    data: &Value,
) -> io::Result<()> {
    let is_gap = data["control_type"] == "gap";
    if is_gap {
        let text = |field: &str| data[field].as_str().unwrap_or("?").to_owned();
        eprintln!(
            "gap in {}: what came after {} and before {} is gone ({})",
            text("channel"),
            text("from"),
            text("to"),
            text("reason")
        );
    }
    if json {
        writeln!(out, "{}", json!({ "id": id, "event": event.kind, "data": data }))?;
    } else if event.kind == "stream" {
        let phase = data["phase"].as_str().unwrap_or("?").trim_start_matches("PHASE_");
        writeln!(out, "{id} {phase} {}", data["payload"])?;
    }
    out.flush()
}
