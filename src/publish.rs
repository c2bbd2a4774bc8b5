//! `forebay publish`: each line of standard input becomes an event.

use std::io::{BufRead, IsTerminal, Read};
use std::time::{Duration, Instant};

use clap::Args;
use forebay_handlers::auth::Role;
use forebay_handlers::event::MESSAGE_BYTES_MAX;
use serde_json::{Value, json};
use ureq::Agent;
use uuid::Uuid;

use crate::Failure;
use crate::client::{self, ServerArgs};
use crate::keys::TokenSource;
use crate::names::{parse_channel, parse_org};

/// After so long a line on standard error tells how far it is, and again after so long.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Tries of one event before it is given up: some minutes with the waits between.
const TRIES_MAX: u32 = 60;

/// Publish each line of standard input as an event, in order: a JSON object is the payload as it is, anything else
/// becomes {"value": line}
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    /// The org
    #[arg(long, env = "FOREBAY_ORG", value_name = "ORG", value_parser = parse_org)]
    org: String,

    /// The channel
    #[arg(long, env = "FOREBAY_CHANNEL", value_name = "CHANNEL", value_parser = parse_channel)]
    channel: String,

    /// Leave the channel open: publish no END
    #[arg(long, env = "FOREBAY_NO_END", value_parser = clap::builder::BoolishValueParser::new())]
    no_end: bool,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    token: TokenSource,
}

/// Publishes START, a DELTA for each line, and END.
pub(crate) fn run(args: &PublishArgs) -> Result<(), Failure> {
    let token = args.token.token(Role::Publisher, &args.org, &[&args.channel])?;
    let mut publisher = Publisher {
        agent: client::agent(),
        url: args.server.url(&format!("/publish/{}/{}", args.org, args.channel)),
        authorization: format!("Bearer {token}"),
        channel: args.channel.clone(),
        sequence: 0,
        progress: Progress::start(),
    };
    publisher.publish("PHASE_START", &Value::Null)?;
    let mut input = std::io::stdin().lock();
    for number in 1u64.. {
        let line = next_line(&mut input).map_err(|error| Failure {
            text: format!("line {number} of the input was not published: {error}"),
            code: 1,
        })?;
        let Some(line) = line else { break };
        publisher.publish("PHASE_DELTA", &payload(&line))?;
    }
    if !args.no_end {
        publisher.publish("PHASE_END", &Value::Null)?;
    }
    publisher.progress.finish();
    Ok(())
}

/// Why a line cannot be an event.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("it is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// Reads a line, without its line break. One that is too long is not read to its end.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>, LineError> {
    let mut line = Vec::new();
    // Two more for the line break.
    input.take(MESSAGE_BYTES_MAX as u64 + 2).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    std::str::from_utf8(text).map(|text| Some(text.to_owned())).map_err(|_| LineError::NotUtf8)
}

/// The payload that a line means.
fn payload(line: &str) -> Value {
    match serde_json::from_str(line) {
        Ok(object @ Value::Object(_)) => object,
        Ok(_) | Err(_) => json!({ "value": line }),
    }
}

struct Publisher {
    agent: Agent,
    url: String,
    authorization: String,
    channel: String,
    sequence: u64,
    progress: Progress,
}

impl Publisher {
    /// Publishes one event. Tries again with the same message id as long as that can help, so that
    /// the event is stored once however often it was sent.
    fn publish(&mut self, phase: &str, payload: &Value) -> Result<(), Failure> {
        let event = json!({
            "channel_id": self.channel,
            "message_id": Uuid::new_v4().to_string(),
            "phase": phase,
            "sequence": self.sequence,
            "payload": payload,
        });
        let body = event.to_string();
        let mut last = String::new();
        for attempt in 0..TRIES_MAX {
            let answer = self
                .agent
                .post(&self.url)
                .header("Authorization", &self.authorization)
                .header("Content-Type", "application/json")
                .send(&body);
            let wait = match answer {
                Ok(response) if response.status().is_success() => {
                    self.sequence += 1;
                    self.progress.count(self.sequence);
                    return Ok(());
                }
                Ok(mut response) => {
                    last = client::text_of(&mut response);
                    if !client::is_transient(response.status().as_u16()) {
                        return Err(self.failure(&last));
                    }
                    client::wait_before_retry(Some(response.headers()), attempt)
                }
                Err(error) if client::may_pass(&error) => {
                    last = error.to_string();
                    client::wait_before_retry(None, attempt)
                }
                Err(error) => return Err(error.into()),
            };
            self.progress.waiting(self.sequence, &last);
            std::thread::sleep(wait);
        }
        Err(self.failure(&last))
    }

    fn failure(&self, why: &str) -> Failure {
        Failure { text: format!("event {} was not published: {why}", self.sequence), code: 1 }
    }
}

/// Tells on standard error how far it is, when it takes long.
struct Progress {
    started: Instant,
    told: Instant,
    is_terminal: bool,
    has_told: bool,
}

impl Progress {
    fn start() -> Self {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Progress { started: now, told: now, is_terminal, has_told: false }
    }

    fn count(&mut self, events: u64) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            let rate = events as f64 / self.started.elapsed().as_secs_f64();
            self.tell(&format!("{events} events published, {rate:.0} a second"));
        }
    }

    fn waiting(&mut self, events: u64, why: &str) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.tell(&format!("{events} events published, waiting: {why}"));
        }
    }

    /// One line, over and over on a terminal.
    fn tell(&mut self, text: &str) {
        if self.is_terminal {
            eprint!("\r\x1b[K{text}");
        } else {
            eprintln!("{text}");
        }
        self.told = Instant::now();
        self.has_told = true;
    }

    fn finish(&self) {
        if self.is_terminal && self.has_told {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_have_a_largest_size() {
        let mut input = &b"a\r\n\n\xc3\xa4"[..];
        let mut next = || next_line(&mut input).unwrap();
        assert_eq!([next(), next()], [Some("a".to_owned()), Some(String::new())]);
        assert_eq!([next(), next()], [Some("ä".to_owned()), None]);

        let longest = "x".repeat(MESSAGE_BYTES_MAX);
        for end in ["", "\n", "\r\n"] {
            let line = format!("{longest}{end}");
            assert_eq!(next_line(&mut line.as_bytes()).unwrap().as_ref(), Some(&longest));
            let line = format!("{longest}x{end}");
            assert!(matches!(next_line(&mut line.as_bytes()), Err(LineError::TooLong)));
        }
        assert!(matches!(next_line(&mut &b"\xff"[..]), Err(LineError::NotUtf8)));
    }

    #[test]
    fn a_line_is_an_object_or_a_value() {
        assert_eq!(payload(r#"{"a":1}"#), json!({"a": 1}));
        for line in ["", "hello", "[1]", "7", "null", "\"text\"", "{broken"] {
            assert_eq!(payload(line), json!({ "value": line }));
        }
    }
}
