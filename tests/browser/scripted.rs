//! An edge that says to the page what a test wants, by WebSocket only: what a real one says but once a day.

use std::net::{TcpListener, TcpStream};

use serde_json::Value;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use crate::support::{PATIENCE, eventually};

pub struct ScriptedEdge {
    listener: TcpListener,
    pub address: String,
}

/// A page that has come.
pub struct Visit(WebSocket<TcpStream>);

impl ScriptedEdge {
    pub fn start() -> ScriptedEdge {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // So that a page that does not come is noticed.
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        ScriptedEdge { listener, address }
    }

    /// Waits until a page comes. It is told nothing yet.
    #[track_caller]
    pub fn visit(&self) -> Visit {
        let (stream, _) = eventually("a page comes", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Visit(tungstenite::accept_hdr(stream, choose_protocol).unwrap())
    }

    /// Whether a page has come that nobody has welcomed.
    pub fn has_visit(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

/// Of the sub-protocols that the page offers, one is its token.
#[allow(clippy::result_large_err, clippy::unnecessary_wraps, reason = "a callback of tungstenite")]
fn choose_protocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let protocol = HeaderValue::from_static("forebay.v1");
    response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    Ok(response)
}

impl Visit {
    pub fn say(&mut self, message: &Value) {
        self.0.send(Message::from(message.to_string())).unwrap();
    }

    /// The next thing that the page says.
    #[track_caller]
    pub fn hear(&mut self) -> Value {
        serde_json::from_str(self.0.read().unwrap().to_text().unwrap()).unwrap()
    }

    /// Closes in order, and waits until the page has done so, too.
    pub fn close(mut self, code: u16, reason: &str) {
        let reason = reason.to_owned().into();
        self.0.close(Some(CloseFrame { code: code.into(), reason })).unwrap();
        while self.0.read().is_ok() {}
    }
}
