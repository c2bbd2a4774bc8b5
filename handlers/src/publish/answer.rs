//! What a publisher hears: the status table of `docs/channels.md`, "Publish", in one place.
//!
//! A [`Refusal`] says what is wrong, and what may be done about it, for whatever a publisher has used
//! to send its message. One message by HTTP is answered with a status, and plain text except for a
//! conflict. In the answer to a batch, which is a 200, each message has an object with the same status
//! and the same words. What is said on a WebSocket is in `socket`, made of the same.

use serde_json::{Value, json};
use zhttp::Cursor;

use super::outcomes::Outcome;
use crate::attach::Response;
use crate::event::EventError;
use crate::store::{AppendError, Appended, Rate};
use crate::web;

/// Milliseconds of a second.
const SECOND_MS: u64 = 1000;

/// Which limit a message was refused for that came too fast.
const CHANNEL_RATE: &str = "channel-rate";

/// What became of one message.
pub(super) type Stored = Result<Appended, Refused>;

/// Why a message is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It could not be decoded.
    Event(EventError),
    /// The store did not take it.
    Append(AppendError),
    /// It was not to be waited for, and there is no room where it would wait.
    Full,
}

/// What a publisher is told whose message is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What is wrong, in words.
    pub(crate) text: String,
    /// Where the log ends, if that is why.
    pub(crate) head: Option<Cursor>,
    /// When the same may be tried again, in seconds; `None` if it would be in vain.
    pub(crate) retry_after_s: Option<u64>,
    /// Which limit was reached.
    pub(crate) limit: Option<&'static str>,
}

impl Refused {
    /// What is said about it. `rate` is that of the channel.
    pub(super) fn refusal(&self, rate: Option<Rate>) -> Refusal {
        let refusal = |status, text: &str| Refusal {
            status,
            text: text.to_owned(),
            head: None,
            retry_after_s: None,
            limit: None,
        };
        let later = Some(web::STORE_RETRY_AFTER_S);
        match self {
            Refused::Event(error) => refusal(error.status(), &error.to_string()),
            Refused::Append(AppendError::Conflict { head }) => {
                Refusal { head: Some(*head), ..refusal(409, "conflict") }
            }
            Refused::Append(AppendError::RateLimited { retry_after_ms }) => Refusal {
                retry_after_s: Some(retry_after_ms.div_ceil(SECOND_MS)),
                limit: Some(CHANNEL_RATE),
                ..refusal(429, &rate_text(rate))
            },
            Refused::Append(AppendError::Unavailable(_)) => {
                Refusal { retry_after_s: later, ..refusal(503, web::STORE_AWAY) }
            }
            Refused::Full => {
                Refusal { retry_after_s: later, ..refusal(503, "Too many accepted messages wait") }
            }
        }
    }
}

impl Refusal {
    fn response(&self) -> Response {
        if let Some(head) = self.head {
            let body = json!({"error": self.text, "head": head.to_string()});
            return Response::json(self.status, body.to_string());
        }
        let mut response = Response::text(self.status, &*self.text);
        if let Some(seconds) = self.retry_after_s {
            response = response.header("Retry-After", seconds.to_string());
        }
        if let Some(limit) = self.limit {
            response = response.header("Forebay-Limit", limit);
        }
        response
    }

    /// The same as one of a batch.
    fn item(&self) -> Value {
        let mut item = json!({"status": self.status, "error": self.text});
        if let Some(head) = self.head {
            item["head"] = json!(head.to_string());
        }
        if let Some(seconds) = self.retry_after_s {
            item["retry_after"] = json!(seconds);
        }
        item
    }
}

/// The outcome of an append, and its reason.
pub(super) fn outcome(result: &Result<Appended, AppendError>) -> (Outcome, &'static str) {
    match result {
        Ok(Appended { duplicate: false, .. }) => (Outcome::Accepted, "stored"),
        Ok(Appended { duplicate: true, .. }) => (Outcome::Accepted, "duplicate"),
        Err(AppendError::Conflict { .. }) => (Outcome::Invalid, "conflict"),
        Err(AppendError::RateLimited { .. }) => (Outcome::RateLimited, "channel_rate"),
        Err(AppendError::Unavailable(_)) => (Outcome::Internal, "store"),
    }
}

/// The answer to a request with one message.
pub(super) fn one(stored: &Stored, rate: Option<Rate>) -> Response {
    match stored {
        Ok(Appended { id, duplicate }) => {
            let response = Response::text(200, id.to_string());
            if *duplicate { response.header("Forebay-Duplicate", "true") } else { response }
        }
        Err(refused) => refused.refusal(rate).response(),
    }
}

/// The answer to a batch.
pub(super) fn batch(items: &[Stored], rate: Option<Rate>) -> Response {
    let items: Vec<Value> = items.iter().map(|stored| item(stored, rate)).collect();
    Response::json(200, Value::Array(items).to_string())
}

fn item(stored: &Stored, rate: Option<Rate>) -> Value {
    match stored {
        Ok(Appended { id, duplicate: false }) => json!({"status": 200, "id": id.to_string()}),
        Ok(Appended { id, duplicate: true }) => {
            json!({"status": 200, "id": id.to_string(), "duplicate": true})
        }
        Err(refused) => refused.refusal(rate).item(),
    }
}

/// As Sentry's server words it.
fn rate_text(rate: Option<Rate>) -> String {
    // Without a rate nothing is limited by one.
    let Rate { messages, per_ms } = rate.unwrap_or(Rate { messages: 0, per_ms: SECOND_MS });
    let window = match per_ms % SECOND_MS {
        0 => format!("{} second(s)", per_ms / SECOND_MS),
        _ => format!("{per_ms} ms"),
    };
    format!("Rate limit exceeded: maximum {messages} requests per {window} per channel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_told_in_seconds_if_it_is_one() {
        let text = |messages, per_ms| rate_text(Some(Rate { messages, per_ms }));
        assert_eq!(
            text(20, 1000),
            "Rate limit exceeded: maximum 20 requests per 1 second(s) per channel"
        );
        assert_eq!(
            text(1, 1500),
            "Rate limit exceeded: maximum 1 requests per 1500 ms per channel"
        );
    }
}
