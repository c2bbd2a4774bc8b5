//! A WebSocket as `docs/channels.md` has it: it asks, and reads what comes. It forgives nothing, either.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, http};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::cluster::ORG;
use crate::connection::{Address, Duplex};

/// Why there is nothing more to read, or was nothing ever.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Nobody listens.
    #[error("nobody listens: {0}")]
    Away(io::Error),
    /// The handshake was answered with "later".
    #[error("status {status}, again in {after:?}")]
    Later { status: u16, after: Duration },
    /// The edge has said that it ends.
    #[error("closed with {code}: {reason}")]
    Closed { code: u16, reason: String },
    /// The connection was lost.
    #[error("{0}")]
    Lost(String),
    /// What came should not be.
    #[error("{0}")]
    Malformed(String),
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It has begun.
    Open,
    /// The answer to a request.
    Answer { id: u64, answer: Answer },
    /// An event.
    Event(SocketEvent),
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Value),
    Refused {
        code: String,
        message: String,
        /// When to ask again, if that helps.
        again: Option<Duration>,
    },
}

/// An event of a channel, or about it.
#[derive(Debug)]
pub(crate) struct SocketEvent {
    pub(crate) channel: String,
    pub(crate) cursor: String,
    pub(crate) kind: String,
    /// As it came.
    pub(crate) data: String,
}

/// What is known of a message; each type has its members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: Option<u64>,
    #[serde(rename = "expires")]
    _expires: Option<u64>,
    result: Option<Value>,
    code: Option<String>,
    #[serde(rename = "kind")]
    error_kind: Option<&'a str>,
    message: Option<String>,
    channel: Option<String>,
    cursor: Option<String>,
    event: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// How a token comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    Header,
    Protocol,
    Query,
    /// With the first message: see [`Socket::open`].
    Message,
}

impl Credentials {
    /// Each way for a quarter of the clients.
    pub(crate) fn of(client: usize) -> Self {
        [Self::Header, Self::Protocol, Self::Query, Self::Message][client % 4]
    }
}

pub(crate) struct Socket(WebSocketStream<Box<dyn Duplex>>);

impl Socket {
    /// Connects. If the token is to come with a message, it is a `refresh` with the id 0.
    pub(crate) async fn open(
        address: &Address,
        token: &str,
        how: Credentials,
    ) -> Result<Self, SocketError> {
        let stream = address.connect().await.map_err(SocketError::Away)?;
        let query =
            if how == Credentials::Query { format!("?token={token}") } else { String::new() };
        let uri = format!("ws://chaos/ws/{ORG}{query}").parse().expect("a token needs no escapes");
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol("forebay.v1");
        if how == Credentials::Header {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        if how == Credentials::Protocol {
            request = request.with_sub_protocol(format!("forebay.token.{token}"));
        }
        let (socket, _) = client_async(request, stream).await.map_err(error_of)?;
        let mut socket = Socket(socket);
        if how == Credentials::Message {
            socket.ask(&json!({"id": 0, "type": "refresh", "token": token})).await?;
        }
        Ok(socket)
    }

    pub(crate) async fn ask(&mut self, request: &Value) -> Result<(), SocketError> {
        self.0.send(Message::text(request.to_string())).await.map_err(error_of)
    }

    /// The next thing that comes. Can be dropped and called again.
    pub(crate) async fn hear(&mut self) -> Result<Heard, SocketError> {
        loop {
            let message = self.0.next().await.transpose().map_err(error_of)?;
            match message {
                Some(Message::Text(text)) => return heard(&text),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(Message::Close(Some(close))) => {
                    let (code, reason) = (u16::from(close.code), close.reason.to_string());
                    return Err(SocketError::Closed { code, reason });
                }
                Some(Message::Close(None)) => {
                    let code = CloseCode::Status.into();
                    return Err(SocketError::Closed { code, reason: String::new() });
                }
                Some(Message::Binary(_) | Message::Frame(_)) => {
                    return Err(SocketError::Malformed("a message that is no text".to_owned()));
                }
                None => return Err(SocketError::Lost("it ended without a close".to_owned())),
            }
        }
    }

    /// Says that it closes, and waits for the edge to say so, too. Nobody closes who still waits for an event, so none may come.
    pub(crate) async fn close(mut self) -> Result<(), SocketError> {
        self.0.close(None).await.map_err(error_of)?;
        loop {
            match self.hear().await {
                // Who comes back only to close has asked for what it need not wait for.
                Ok(Heard::Open | Heard::Answer { .. }) => {}
                Ok(Heard::Event(event)) => {
                    return Err(SocketError::Malformed(format!("behind the last END: {event:?}")));
                }
                Err(SocketError::Closed { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn heard(text: &str) -> Result<Heard, SocketError> {
    // Enough to tell what it was.
    let malformed = |why: &str| SocketError::Malformed(format!("{why}: {text:.200}"));
    let wire: Wire<'_> =
        serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))?;
    match wire {
        Wire { kind: "open", .. } => Ok(Heard::Open),
        Wire { kind: "answer", id: Some(id), result: Some(result), .. } => {
            Ok(Heard::Answer { id, answer: Answer::Done(result) })
        }
        Wire {
            kind: "error",
            id: Some(id),
            code: Some(code),
            error_kind: Some(kind),
            message: Some(message),
            data,
            ..
        } => {
            let again = match kind {
                "transient" => Some(retry_after(data)),
                "permanent" => None,
                _ => return Err(malformed("an error of what kind?")),
            };
            Ok(Heard::Answer { id, answer: Answer::Refused { code, message, again } })
        }
        Wire {
            kind: "event",
            channel: Some(channel),
            cursor: Some(cursor),
            event: Some(kind),
            data: Some(data),
            ..
        } => {
            let data = data.get().to_owned();
            Ok(Heard::Event(SocketEvent { channel, cursor, kind, data }))
        }
        Wire { .. } => Err(malformed("a message of what type?")),
    }
}

/// When to ask again, as an error says it.
fn retry_after(data: Option<&RawValue>) -> Duration {
    let data = data.and_then(|data| serde_json::from_str::<Value>(data.get()).ok());
    let seconds = data.and_then(|data| data.get("retry_after")?.as_u64());
    Duration::from_secs(seconds.unwrap_or(0))
}

fn error_of(error: Error) -> SocketError {
    match error {
        Error::Http(response) => refused(&response),
        Error::Io(error) => SocketError::Lost(error.to_string()),
        Error::ConnectionClosed | Error::AlreadyClosed => {
            SocketError::Lost("it was closed already".to_owned())
        }
        // An edge that is killed says no more, be it in the middle of a handshake.
        Error::Protocol(
            error @ (ProtocolError::ResetWithoutClosingHandshake
            | ProtocolError::HandshakeIncomplete),
        ) => SocketError::Lost(error.to_string()),
        error => SocketError::Malformed(error.to_string()),
    }
}

/// Such an answer must say when to come again.
fn refused(response: &http::Response<Option<Vec<u8>>>) -> SocketError {
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after");
    let after = after.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    match (status, after) {
        (502..=504, Some(seconds)) => {
            SocketError::Later { status, after: Duration::from_secs(seconds) }
        }
        (502..=504, None) => SocketError::Malformed(format!("status {status} without Retry-After")),
        _ => SocketError::Malformed(format!("status {status} to a handshake")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// What closing comes to, if the edge says these words before it closes, too.
    async fn close(words: &[&str]) -> Result<(), SocketError> {
        let (here, there) = tokio::io::duplex(4096);
        let here: Box<dyn Duplex> = Box::new(here);
        let socket = Socket(WebSocketStream::from_raw_socket(here, Role::Client, None).await);
        let mut edge = WebSocketStream::from_raw_socket(there, Role::Server, None).await;
        for word in words {
            edge.send(Message::text(*word)).await.unwrap();
        }
        let listen = async { while let Some(Ok(_)) = edge.next().await {} };
        tokio::join!(socket.close(), listen).0
    }

    #[tokio::test]
    async fn no_event_may_come_behind_the_last_end() {
        let answer = r#"{"type":"answer","id":1,"result":{}}"#;
        let event = r#"{"type":"event","channel":"a","cursor":"1-2","event":"stream","data":{}}"#;
        close(&[]).await.unwrap();
        close(&[answer]).await.unwrap();
        let error = close(&[answer, event]).await.unwrap_err();
        assert!(matches!(&error, SocketError::Malformed(why) if why.contains("1-2")), "{error}");
    }
}
