//! What a client hears on its socket, rendered; and the codes of errors (`docs/channels.md`,
//! "WebSocket").
//!
//! All of it is one JSON object for each message. An id is repeated as it stood in the request.

use serde_json::json;
use zhttp::Cursor;

use super::tokens::TokenError;
use crate::publish::Refusal;
use crate::store::{ChannelName, StoreError};
use crate::web;

/// The longest text of an error, in characters. It may quote what the client said, which may be long.
const PROBLEM_CHARS_MAX: usize = 200;

/// The largest answer but for a page of history, in bytes, with the gap that may follow it: an id and
/// an error text may become six times as long by being escaped, and names are short.
pub(super) const ANSWER_BYTES_MAX: usize = 4096;

/// What is wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadRequest,
    Unauthorized,
    InvalidToken,
    Forbidden,
    Conflict,
    TooLarge,
    TooManyChannels,
    RateLimited,
    Unavailable,
    Internal,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::Unauthorized => "unauthorized",
            Code::InvalidToken => "invalid_token",
            Code::Forbidden => "forbidden",
            Code::Conflict => "conflict",
            Code::TooLarge => "too_large",
            Code::TooManyChannels => "too_many_channels",
            Code::RateLimited => "rate_limited",
            Code::Unavailable => "unavailable",
            Code::Internal => "internal",
        }
    }

    /// Whether the same request may be answered otherwise a little later.
    fn kind(self) -> &'static str {
        match self {
            Code::BadRequest
            | Code::Unauthorized
            | Code::InvalidToken
            | Code::Forbidden
            | Code::Conflict
            | Code::TooLarge
            | Code::TooManyChannels => "permanent",
            Code::RateLimited | Code::Unavailable | Code::Internal => "transient",
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    text: String,
    retry_after_s: Option<u64>,
    limit: Option<&'static str>,
    head: Option<Cursor>,
}

impl Problem {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Problem { code, text: text.into(), retry_after_s: None, limit: None, head: None }
    }

    /// One that is over soon.
    fn passing(code: Code, text: &str) -> Self {
        let retry_after_s = Some(web::STORE_RETRY_AFTER_S);
        Problem { retry_after_s, ..Problem::new(code, text) }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Problem::new(Code::BadRequest, text)
    }

    pub(super) fn unavailable() -> Self {
        Problem::passing(Code::Unavailable, web::STORE_AWAY)
    }

    pub(super) fn internal() -> Self {
        Problem::passing(Code::Internal, "Internal error")
    }

    /// A limit that only what came at once has reached.
    pub(super) fn limited(text: &str, limit: &'static str) -> Self {
        Problem { limit: Some(limit), ..Problem::passing(Code::RateLimited, text) }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired
            | TokenError::Invalid
            | TokenError::Narrower
            | TokenError::TooLarge => Code::InvalidToken,
            TokenError::Org => Code::Forbidden,
        };
        Problem::new(code, error.to_string())
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Problem::unavailable(),
            StoreError::Corrupt(_) => Problem::internal(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.status {
            409 => Code::Conflict,
            413 => Code::TooLarge,
            429 => Code::RateLimited,
            503 => Code::Unavailable,
            // What else there is says that the message is wrong.
            _ => Code::BadRequest,
        };
        let Refusal { text, head, retry_after_s, limit, .. } = refusal;
        Problem { code, text, retry_after_s, limit, head }
    }
}

/// The first message; `expires_s` is when the socket is closed, in seconds since 1970.
pub(super) fn open(expires_s: Option<u64>) -> String {
    match expires_s {
        Some(expires_s) => format!(r#"{{"type":"open","expires":{expires_s}}}"#),
        None => r#"{"type":"open"}"#.to_owned(),
    }
}

/// A request is done; `id` and `result` are JSON.
pub(super) fn answer(id: Option<&str>, result: &str) -> String {
    let id = id_member(id);
    format!(r#"{{"type":"answer"{id},"result":{result}}}"#)
}

/// A request is not done; `id` is JSON.
pub(super) fn error(id: Option<&str>, problem: &Problem) -> String {
    let (id, code, kind) = (id_member(id), problem.code.name(), problem.code.kind());
    let text: String = problem.text.chars().take(PROBLEM_CHARS_MAX).collect();
    let text = json!(text);
    let mut data = serde_json::Map::new();
    if let Some(head) = problem.head {
        data.insert("head".to_owned(), json!(head.to_string()));
    }
    if let Some(limit) = problem.limit {
        data.insert("limit".to_owned(), json!(limit));
    }
    if let Some(seconds) = problem.retry_after_s {
        data.insert("retry_after".to_owned(), json!(seconds));
    }
    let data = if data.is_empty() { String::new() } else { format!(r#","data":{}"#, json!(data)) };
    format!(r#"{{"type":"error"{id},"code":"{code}","kind":"{kind}","message":{text}{data}}}"#)
}

/// A control event of a channel, as the edge writes it (H-61).
pub(super) fn control(channel: &ChannelName, cursor: Cursor, data: &str) -> String {
    // Names have nothing that would have to be escaped.
    let channel = channel.channel();
    format!(
        r#"{{"type":"event","channel":"{channel}","cursor":"{cursor}","event":"control","data":{data}}}"#
    )
}

fn id_member(id: Option<&str>) -> String {
    id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_an_id_if_the_request_had_one() {
        assert_eq!(answer(Some("7"), "{}"), r#"{"type":"answer","id":7,"result":{}}"#);
        assert_eq!(answer(None, r#"{"a":1}"#), r#"{"type":"answer","result":{"a":1}}"#);
        assert_eq!(open(Some(9)), r#"{"type":"open","expires":9}"#);
        assert_eq!(open(None), r#"{"type":"open"}"#);
    }

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(
            error(Some(r#""a""#), &Problem::bad_request("\"x\"")),
            r#"{"type":"error","id":"a","code":"bad_request","kind":"permanent","message":"\"x\""}"#
        );
        assert_eq!(
            error(None, &Problem::unavailable()),
            r#"{"type":"error","code":"unavailable","kind":"transient","message":"Store unavailable","data":{"retry_after":1}}"#
        );
    }

    #[test]
    fn no_answer_is_larger_than_is_said() {
        let last = Cursor::new(i64::MAX as u64, i64::MAX as u64);
        let problem = Problem {
            retry_after_s: Some(u64::MAX),
            head: Some(last),
            ..Problem::limited(&"\u{1}".repeat(100_000), "answer-bytes")
        };
        let id = format!("\"{}\"", "\\u0001".repeat(64));
        assert!(error(Some(&id), &problem).len() <= ANSWER_BYTES_MAX);
        let longest = ChannelName::new(&"o".repeat(64), &"c".repeat(128)).expect("a name");
        let data =
            crate::control::gap_data(&longest, last, last, crate::store::GapReason::Recreated);
        let result = format!(r#"{{"channel":"{}","cursor":"{last}"}}"#, longest.channel());
        let size = answer(Some(&id), &result).len() + control(&longest, last, &data).len();
        assert!(size <= ANSWER_BYTES_MAX, "{size}");
    }
}
