//! A request, as a handler sees it.
//!
//! The head is there when the handler is called. The body is not: the edge has read no byte of it
//! yet, and does so only when [`Request::body`] asks for it. So a handler that refuses a request by
//! its head costs nothing more, and until then the edge may give the request to another handler if
//! this one leaves.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zhttp::hold::HOLD_VERSION;
use zhttp::tnetstring::Value;
use zhttp::{Ext, Payload};

use super::EdgeId;
use super::flow::Gone;
use super::session::Session;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the caller takes. It is not read any further.
    #[error("a body of {size} bytes or more is too large")]
    TooLarge {
        /// The `Content-Length` in bytes if there is one, else what had come by then.
        size: u64,
    },
    /// The bodies of all requests together are more than the process takes
    /// ([`BODY_BYTES_MAX`](super::BODY_BYTES_MAX)). It is not read any further, and may be sent again.
    #[error("too many bodies are being read")]
    NoRoom,
    /// The client has left, or the connection to the edge is lost. No answer reaches it any more.
    #[error("the client is gone")]
    Gone,
}

impl From<Gone> for BodyError {
    fn from(_: Gone) -> Self {
        BodyError::Gone
    }
}

/// A request. Dropping it does not answer it: the response is what
/// [`Service::call`](super::Service::call) returns.
#[derive(Debug)]
pub struct Request {
    /// The method, as the client wrote it.
    pub method: String,
    /// The absolute URI, with the scheme `http`, `https`, `ws` or `wss`.
    pub uri: String,
    /// Names as the client wrote them, in its order, repetitions kept. Values are bytes of its
    /// choice.
    pub headers: Vec<(String, Bytes)>,
    /// Where the client connects from; `None` if it does not come over TCP.
    pub peer_address: Option<IpAddr>,
    /// The edge that it came from.
    pub edge: EdgeId,
    can_hold: bool,
    body: RequestBody,
}

#[derive(Debug)]
enum RequestBody {
    Coming(Coming),
    Whole(Bytes),
}

/// A body that is being gathered.
#[derive(Debug)]
pub(super) struct Coming {
    session: Arc<Session>,
    read: BytesMut,
    /// Room for what was read, of the room that all bodies have together.
    room: Option<OwnedSemaphorePermit>,
    all_room: Arc<Semaphore>,
}

impl Coming {
    pub(super) fn new(session: Arc<Session>, all_room: Arc<Semaphore>) -> Self {
        Coming { session, read: BytesMut::new(), room: None, all_room }
    }

    /// Takes what has come; returns whether it goes on.
    fn take(&mut self) -> Result<bool, BodyError> {
        let (piece, more) = self.session.take_body()?;
        let len = u32::try_from(piece.len()).map_err(|_| BodyError::NoRoom)?;
        let room = Arc::clone(&self.all_room).try_acquire_many_owned(len);
        let room = room.map_err(|_| BodyError::NoRoom)?;
        match &mut self.room {
            Some(own) => own.merge(room),
            None => self.room = Some(room),
        }
        self.read.extend_from_slice(&piece);
        Ok(more)
    }

    /// All of it. The room is given back with the last copy.
    fn whole(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.read);
        Bytes::from_owner(Gathered { bytes, _room: self.room.take() })
    }
}

/// A body with the room that it takes.
struct Gathered {
    bytes: BytesMut,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Request {
    /// The request of a first packet. `None` if it has no method or no URI.
    pub(super) fn new(
        bytes: &Bytes,
        ext: Ext<'_>,
        payload: &Payload<'_>,
        edge: EdgeId,
        body: Coming,
    ) -> Option<Request> {
        // Values are not copied: they keep the packet, which is little more than they are.
        let header = |(name, value): (&[u8], &[u8])| {
            (String::from_utf8_lossy(name).into_owned(), bytes.slice_ref(value))
        };
        let version = i64::try_from(HOLD_VERSION).unwrap_or(i64::MAX);
        Some(Request {
            method: payload.method?.to_owned(),
            uri: payload.uri?.to_owned(),
            headers: payload.headers.map(header).collect(),
            peer_address: payload.peer_address.and_then(|address| address.parse().ok()),
            edge,
            can_hold: matches!(ext.hold, Some(Value::Int(offered)) if offered >= version),
            body: RequestBody::Coming(body),
        })
    }

    /// A request that comes from no edge and has its body already: to try out a
    /// [`Service`](super::Service) by itself. It says that it can be held.
    pub fn detached(method: &str, uri: &str, body: impl Into<Bytes>) -> Request {
        Request {
            method: method.to_owned(),
            uri: uri.to_owned(),
            headers: Vec::new(),
            peer_address: None,
            edge: 0,
            can_hold: true,
            body: RequestBody::Whole(body.into()),
        }
    }

    /// The same with one more header.
    pub fn with_header(mut self, name: &str, value: impl Into<Bytes>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The path, percent-encoded as it came, without the query; `/` if the URI has none.
    pub fn path(&self) -> &str {
        let (path, _) = self.path_and_query();
        if path.is_empty() { "/" } else { path }
    }

    /// What follows the first `?`, percent-encoded as it came. `None` without a `?`.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query().1
    }

    fn path_and_query(&self) -> (&str, Option<&str>) {
        let rest = self.uri.split_once("://").map_or(&*self.uri, |(_, rest)| rest);
        // The authority ends with whichever of the two comes first (RFC 3986 §3.2).
        let target = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
        match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        }
    }

    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let named = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value)
    }

    /// The `Content-Length`, in bytes. `None` for a chunked body, and if there is no body.
    pub fn content_length(&self) -> Option<u64> {
        let digits = std::str::from_utf8(self.header("content-length")?).ok()?;
        // `u64::from_str` would take a sign (RFC 9110 §8.6 does not).
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    }

    /// Whether the edge can hold the connection: without it a response must not have a hold.
    pub fn can_hold(&self) -> bool {
        self.can_hold
    }

    /// Whether it is the handshake of a WebSocket. Any answer but a hold refuses it.
    pub fn is_websocket(&self) -> bool {
        self.uri.starts_with("ws://") || self.uri.starts_with("wss://")
    }

    /// Reads the whole body, of at most `max` bytes; asked again it gives the same. Memory: the
    /// body, within what all bodies may take together, and 64 KiB that are underway.
    ///
    /// Cancel-safe: what was read is kept, so that the next call goes on from there.
    ///
    /// # Errors
    /// See [`BodyError`]. A body whose `Content-Length` is too large is not even begun to be read.
    pub async fn body(&mut self, max: usize) -> Result<Bytes, BodyError> {
        let max_size = max as u64;
        if let Some(size) = self.content_length().filter(|size| *size > max_size) {
            return Err(BodyError::TooLarge { size });
        }
        if let RequestBody::Coming(coming) = &mut self.body {
            loop {
                let more = coming.take()?;
                if coming.read.len() > max {
                    return Err(BodyError::TooLarge { size: coming.read.len() as u64 });
                }
                if !more {
                    break;
                }
                coming.session.wait_body().await?;
            }
            self.body = RequestBody::Whole(coming.whole());
        }
        match &self.body {
            RequestBody::Whole(body) if body.len() > max => {
                Err(BodyError::TooLarge { size: body.len() as u64 })
            }
            RequestBody::Whole(body) => Ok(body.clone()),
            RequestBody::Coming(_) => unreachable!("it was made whole above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_those_of_the_uri() {
        for (uri, path, query) in [
            ("http://h/a%2Fb/c?x=1&y=?2", "/a%2Fb/c", Some("x=1&y=?2")),
            ("https://h:1", "/", None),
            ("http://h?x", "/", Some("x")),
            ("ws://h/?", "/", Some("")),
            ("http://h?x=/a", "/", Some("x=/a")),
            ("http://h/a?b=http://c/d", "/a", Some("b=http://c/d")),
            ("/a?b", "/a", Some("b")),
        ] {
            let request = Request::detached("GET", uri, "");
            assert_eq!((request.path(), request.query()), (path, query), "{uri}");
        }
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let request = Request::detached("POST", "http://h/", "")
            .with_header("Content-Length", "12")
            .with_header("content-length", "13");
        assert_eq!(request.header("CONTENT-LENGTH"), Some(&b"12"[..]));
        assert_eq!(request.content_length(), Some(12));
        for bad in ["+1", "-1", " 1", "x", "99999999999999999999"] {
            let request =
                Request::detached("POST", "http://h/", "").with_header("content-length", bad);
            assert_eq!(request.content_length(), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_can_be_read_twice_and_has_its_limit() {
        let mut request = Request::detached("POST", "http://h/", "four");
        assert_eq!(request.body(3).await, Err(BodyError::TooLarge { size: 4 }));
        assert_eq!(request.body(4).await, Ok("four".into()));
        assert_eq!(request.body(4).await, Ok("four".into()));
        let mut request = request.with_header("Content-Length", "5000");
        assert_eq!(request.body(4999).await, Err(BodyError::TooLarge { size: 5000 }));
    }
}
