//! What a publisher hears: the status table of `docs/channels.md`, "Publish", in one place.
//!
//! One message is answered with a status, and plain text except for a conflict. In the answer to a
//! batch, which is a 200, each message has an object with the same status and the same words.

use serde_json::{Value, json};

use super::outcomes::Outcome;
use crate::attach::Response;
use crate::event::EventError;
use crate::store::{AppendError, Appended, Rate};
use crate::web;

/// Milliseconds of a second.
const SECOND_MS: u64 = 1000;

/// What became of one message.
pub(super) type Stored = Result<Appended, Refused>;

/// Why a message is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It could not be decoded.
    Event(EventError),
    /// The store did not take it.
    Append(AppendError),
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
        Err(Refused::Event(error)) => Response::text(error.status(), error.to_string()),
        Err(Refused::Append(AppendError::Conflict { head })) => {
            Response::json(409, json!({"error": "conflict", "head": head.to_string()}).to_string())
        }
        Err(Refused::Append(AppendError::RateLimited { retry_after_ms })) => {
            Response::text(429, rate_text(rate))
                .header("Retry-After", retry_after_ms.div_ceil(SECOND_MS).to_string())
                .header("Forebay-Limit", "channel-rate")
        }
        Err(Refused::Append(AppendError::Unavailable(_))) => web::unavailable(web::STORE_AWAY),
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
        Err(Refused::Event(error)) => {
            json!({"status": error.status(), "error": error.to_string()})
        }
        Err(Refused::Append(AppendError::Conflict { head })) => {
            json!({"status": 409, "error": "conflict", "head": head.to_string()})
        }
        Err(Refused::Append(AppendError::RateLimited { retry_after_ms })) => {
            let seconds = retry_after_ms.div_ceil(SECOND_MS);
            json!({"status": 429, "error": rate_text(rate), "retry_after": seconds})
        }
        Err(Refused::Append(AppendError::Unavailable(_))) => {
            let seconds = web::STORE_RETRY_AFTER_S;
            json!({"status": 503, "error": web::STORE_AWAY, "retry_after": seconds})
        }
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
