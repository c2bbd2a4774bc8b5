//! `GET /ws/{org}`: a request becomes a held socket.
//!
//! A token may come in three ways; if it comes in several, the first of these counts: in the query, as
//! a sub-protocol, in a header. What is refused in a header is answered with a status. A page, which
//! can use only the other two, does not see the status of a handshake; so there the socket is accepted,
//! told, and closed a second later, or as soon as its client says something.
//!
//! A socket may also come without any token. It is closed soon, unless it brings one.

use std::borrow::Cow;
use std::time::Duration;

use zhttp::hold::Format;

use super::answers::{self, Problem};
use super::context::{self, Socket};
use super::tokens::TokenError;
use super::{PREFIX, Sockets};
use crate::attach::{Expires, Hold, Response};
use crate::auth::bearer;
use crate::store::Store;
use crate::web::{self, RequestHead};

/// The methods of the route. A browser needs no preflight for a WebSocket; a page that asks by `fetch`
/// does, to be told what is wrong.
const METHODS: &str = "GET, OPTIONS";

/// The sub-protocol that is spoken here.
const SUBPROTOCOL: &str = "forebay.v1";

/// What a sub-protocol begins with that is a token.
const SUBPROTOCOL_TOKEN: &str = "forebay.token.";

/// How long a socket may be without a token, and with which code it is closed then.
const TOKEN_WAIT: Expires = Expires { after: Some(Duration::from_secs(10)), code: 3502 };

/// How long a socket stays whose token was refused: time to read why.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// The code of the close when a token has expired.
const CLOSE_EXPIRED: u16 = 3000;

impl<S: Store> Sockets<S> {
    /// Answers at `now_ms`, in milliseconds since 1970. `can_hold` says whether the edge holds
    /// connections.
    pub(crate) fn handshake(
        &self,
        head: &RequestHead<'_>,
        (is_websocket, can_hold): (bool, bool),
        now_ms: u64,
    ) -> Response {
        let org = match head.path.strip_prefix(PREFIX).and_then(web::org_of_path) {
            Some(Ok(org)) => org,
            Some(Err(error)) => return Response::text(400, error.to_string()),
            None => return web::not_found(),
        };
        match head.method {
            "GET" => {}
            "OPTIONS" => return web::preflight(METHODS),
            _ => return web::method_not_allowed(METHODS),
        }
        if !is_websocket {
            return Response::text(426, "This is for WebSockets").header("Upgrade", "websocket");
        }
        if !can_hold {
            return Response::text(501, "This edge does not hold connections");
        }
        let new = Socket::new(org);
        let taken = |token: &str| self.tokens.taken(&new, token, now_ms / 1000);
        match token_of(head) {
            Ok(Some(Token::OfPage(token))) => match taken(&token) {
                Ok(socket) => opened(head, &socket, now_ms),
                Err(error) => refused(head, error),
            },
            Ok(Some(Token::OfHeader(token))) => match taken(token) {
                Ok(socket) => opened(head, &socket, now_ms),
                Err(error) => web::token_refused((error.status(), &error.to_string())),
            },
            Ok(None) => opened(head, &new, now_ms),
            Err(response) => *response,
        }
    }
}

/// When a socket is to be closed.
pub(super) fn expiry(socket: &Socket, now_ms: u64) -> Expires {
    let Some(expires_s) = socket.expires_s() else { return TOKEN_WAIT };
    let left = Duration::from_secs(expires_s.saturating_sub(now_ms / 1000).max(1));
    Expires { after: Some(left), code: CLOSE_EXPIRED }
}

/// A token, by who can have sent it.
enum Token<'a> {
    /// In the query, or as a sub-protocol.
    OfPage(Cow<'a, str>),
    OfHeader(&'a str),
}

fn token_of<'a>(head: &RequestHead<'a>) -> Result<Option<Token<'a>>, Box<Response>> {
    let in_query = head
        .parameter("token")
        .map_err(|error| Response::text(400, format!("Invalid query: {error}")))?;
    if let Some(token) = in_query.filter(|token| !token.is_empty()) {
        return Ok(Some(Token::OfPage(token)));
    }
    let mut tokens = subprotocols(head).filter_map(|name| name.strip_prefix(SUBPROTOCOL_TOKEN));
    if let Some(token) = tokens.next() {
        return Ok(Some(Token::OfPage(Cow::Borrowed(token))));
    }
    match head.header("authorization") {
        None => Ok(None),
        header => match bearer(header) {
            Ok(token) => Ok(Some(Token::OfHeader(token))),
            Err(error) => Err(web::unauthorized(error.to_string()).into()),
        },
    }
}

/// The sub-protocols that the client offers, in all headers that do so (RFC 6455 §11.3.4).
fn subprotocols<'a>(head: &RequestHead<'a>) -> impl Iterator<Item = &'a str> {
    let is_named = |name: &str| name.eq_ignore_ascii_case("sec-websocket-protocol");
    let headers = head.headers.iter().filter(move |(name, _)| is_named(name));
    let texts = headers.filter_map(|(_, value)| std::str::from_utf8(value).ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

fn opened(head: &RequestHead<'_>, socket: &Socket, now_ms: u64) -> Response {
    let Some(context) = socket.encode() else {
        // That it fits was seen when its token was taken, and without one it is short.
        tracing::error!("the context of a new socket is too long");
        return Response::text(500, "Internal error");
    };
    let hold = Hold { context, ..hold(expiry(socket, now_ms)) };
    accepted(head).body(answers::open(socket.expires_s())).hold(hold)
}

/// A socket that is told why it is closed.
fn refused(head: &RequestHead<'_>, error: TokenError) -> Response {
    let code = error.close_code();
    let expires = Expires { after: Some(REFUSED_WAIT), code };
    let hold = Hold { context: context::refused(code), ..hold(expires) };
    accepted(head).body(answers::error(None, &Problem::from(error))).hold(hold)
}

fn accepted(head: &RequestHead<'_>) -> Response {
    let response = Response::new(101);
    if subprotocols(head).any(|name| name == SUBPROTOCOL) {
        response.header("Sec-WebSocket-Protocol", SUBPROTOCOL)
    } else {
        response
    }
}

fn hold(expires: Expires) -> Hold {
    Hold {
        expires: expires.after,
        expires_code: expires.code,
        persistent: true,
        messages: PREFIX.to_owned(),
        ..Hold::new(Format::Ws, Vec::new())
    }
}
