//! The requests of `core/vectors/http1/requests/`, sent to the real process over real sockets.
//!
//! The machine alone runs them in many ways (`core/src/worker/tests/conformance.rs`); here each is run once, with
//! another request behind it, to see that the shell around the machine neither loses nor changes anything: limits,
//! reads, the order of writes and closes, packets on the bus.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/handler.rs"]
mod handler;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with the tests of the machine")]
#[path = "../core/src/http1/vectors/table.rs"]
mod table;

use zhttp::{Kind, Packet};

use client::{Client, Response};
use handler::{Got, Handler};
use process::EdgeProcess;
use table::{End, Request, RequestCase, request_cases};

const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: last\r\n\r\n";

/// More than a body of any case.
const BODY_CREDITS: u64 = 100_000;

struct Run<'c> {
    case: &'c RequestCase,
    handler: &'c mut Handler,
    client: Client,
}

impl Run<'_> {
    async fn check(mut self) {
        let name = &self.case.name;
        self.client.send(&self.case.input).await;
        match &self.case.end {
            End::Keep => {
                self.client.send(LAST).await;
                assert!(!self.answer().await, "{name} closes");
                let last = self.handler.request().await;
                assert_eq!(last.uri, "http://last/last", "{name}");
                self.handler.say(&last.id, (200, b"last"), false).await;
                assert_eq!(self.client.response().await.text(), "last", "{name}");
            }
            End::Close => {
                self.client.send(LAST).await;
                assert!(self.answer().await, "{name} does not say that it closes");
                assert_eq!(self.client.rest().await, "", "{name}");
            }
            End::Refuse { status, text } => {
                self.client.send(LAST).await;
                self.be_cancelled(false).await;
                let response = self.response(false).await;
                assert_eq!((response.status, response.text()), (*status, &**text), "{name}");
                assert!(closes(&response), "{name}: {}", response.head);
                assert_eq!(self.client.rest().await, "", "{name}");
            }
            End::Incomplete => {
                self.be_cancelled(true).await;
                assert_eq!(self.client.rest().await, "", "{name}");
            }
        }
    }

    /// Gets the request and answers it. Says whether the connection ends.
    async fn answer(&mut self) -> bool {
        let name = &self.case.name;
        let expected = self.case.request.as_ref().expect("what is answered was asked");
        let got = self.handler.request().await;
        let mut request = request_of(&got);
        if got.more {
            self.grant(&got).await;
            loop {
                let piece = self.handler.next_of(Kind::Data).await;
                assert_eq!(piece.id, got.id, "{name}");
                request.body.extend_from_slice(&piece.body);
                if !piece.more {
                    break;
                }
            }
        }
        assert_eq!(&request, expected, "{name}");
        self.handler.say(&got.id, (200, b"answer"), false).await;
        let is_head = expected.method == b"HEAD";
        let response = self.response(is_head).await;
        let body = if is_head { "" } else { "answer" };
        assert_eq!((response.status, response.text()), (200, body), "{name}");
        closes(&response)
    }

    /// Gets the request, if there is to be one, and the word that it is over. The client may have to leave for that; not
    /// before the handler has the request, as it would else not be told of it at all.
    async fn be_cancelled(&mut self, leaves: bool) {
        let name = &self.case.name;
        let got = match &self.case.request {
            Some(_) => Some(self.handler.request().await),
            None => None,
        };
        if leaves {
            self.client.half_close().await;
        }
        let (Some(expected), Some(got)) = (&self.case.request, got) else { return };
        let mut request = request_of(&got);
        self.grant(&got).await;
        loop {
            let packet = self.handler.next().await;
            assert_eq!(packet.id, got.id, "{name}");
            if packet.kind == Kind::Cancel {
                break;
            }
            assert!(packet.kind == Kind::Data && packet.more, "{name}: {packet:?}");
            request.body.extend_from_slice(&packet.body);
        }
        // How much of a broken body comes before its end depends on how it was cut.
        if self.case.end != End::Incomplete && expected.body.starts_with(&request.body) {
            request.body.clone_from(&expected.body);
        }
        assert_eq!(&request, expected, "{name}");
    }

    async fn grant(&mut self, got: &Got) {
        let credit = self.handler.packet(&got.id, None, Kind::Credit, |fields| {
            fields.int("credits", BODY_CREDITS);
        });
        self.handler.send_stream(&credit).await;
    }

    /// The next final response.
    async fn response(&mut self, is_head: bool) -> Response {
        loop {
            let response = if is_head {
                let head = self.client.until("\r\n\r\n").await;
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                Response { status, head, body: Vec::new() }
            } else {
                self.client.response().await
            };
            if response.status != 100 {
                return response;
            }
            // It is said if the kernel hands over the head alone.
            assert!(self.case.interim, "{}: {}", self.case.name, response.head);
        }
    }
}

fn closes(response: &Response) -> bool {
    response.head.contains("\r\nConnection: close\r\n")
}

fn request_of(got: &Got) -> Request {
    let payload = Packet::parse(&got.bytes).unwrap().payload().unwrap();
    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    Request {
        method: payload.method.unwrap().into(),
        uri: payload.uri.unwrap().into(),
        headers: payload.headers.map(owned).collect(),
        body: payload.body.to_vec(),
    }
}

#[tokio::test]
async fn requests() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let (cases, _) = request_cases();
    assert!(cases.len() >= 400, "only {} cases", cases.len());
    for case in &cases {
        let client = Client::connect(edge.address).await;
        Run { case, handler: &mut handler, client }.check().await;
    }
    // Had one that was refused come to the handler, it would stand before this one.
    let _client = Client::get(edge.address, "/end").await;
    assert_eq!(handler.request().await.uri, "http://x.com/end");
}
