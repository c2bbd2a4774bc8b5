//! HTTP/1.1 as clients and handlers see it: the cases of `vectors/http1/`, run by the whole machine.
//!
//! Here are the requests (RFC 9112): each case says what a handler gets, or how the edge refuses. It is fed in
//! eight ways ([`FEEDS`]), because an edge that is fooled is mostly fooled by how bytes are cut or by what stands before
//! and behind them. `answers` does the same for what handlers say. The parsers alone are tested in `http1`.

mod answers;

use zhttp::{Kind, Packet};

use super::{Edge, Session, config};
use crate::http1::vectors::table::{End, Request, RequestCase, request_cases};
use crate::hub::ToHub;
use crate::slab::Key;

/// How a case is fed.
#[derive(Clone, Copy, Debug)]
struct Feed {
    /// Another request stands before it.
    has_first: bool,
    /// Another request stands behind it.
    has_last: bool,
    /// One byte at a time, and the handler has its turn behind each. Else all bytes are there before it says a word.
    is_cut: bool,
}

/// All ways.
const FEEDS: [Feed; 8] = {
    let mut feeds = [Feed { has_first: false, has_last: false, is_cut: false }; 8];
    let mut index = 0;
    while index < feeds.len() {
        feeds[index].has_first = index & 1 != 0;
        feeds[index].has_last = index & 2 != 0;
        feeds[index].is_cut = index & 4 != 0;
        index += 1;
    }
    feeds
};

const FIRST: &[u8] = b"GET /first HTTP/1.1\r\nHost: first\r\n\r\n";
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: last\r\n\r\n";

/// More than a body of any case.
const BODY_CREDITS: u64 = 100_000;

/// Bytes that the edge reads ahead: its default.
const BUFFER_BYTES: u32 = 8_192;

/// A request that the model of a handler has got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    request: Request,
    /// All of its body has come.
    is_whole: bool,
    /// It was taken back.
    is_cancelled: bool,
}

/// A handler that takes every request and answers with its number, once it has the whole of it.
#[derive(Default)]
struct Handler {
    got: Vec<Got>,
    session: Option<Session>,
}

impl Handler {
    /// Does all there is to do.
    fn turn(&mut self, edge: &mut Edge) {
        while let Some(message) = edge.to_hub.pop_front() {
            match message {
                ToHub::Request(pending) => self.begin(edge, &pending.packet),
                ToHub::Packet { packet, .. } | ToHub::Done { cancel: Some(packet), .. } => {
                    self.go_on(edge, &packet);
                }
                ToHub::Done { cancel: None, .. } => {}
                ToHub::Notify { .. } | ToHub::Want(_) => panic!("nothing is held: {message:?}"),
            }
        }
    }

    fn begin(&mut self, edge: &mut Edge, packet: &[u8]) {
        let mut packet = Packet::parse(packet).unwrap();
        let payload = packet.payload().unwrap();
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        let request = Request {
            method: payload.method.unwrap().into(),
            uri: payload.uri.unwrap().into(),
            headers: payload.headers.map(owned).collect(),
            body: payload.body.to_vec(),
        };
        self.got.push(Got { request, is_whole: !payload.more, is_cancelled: false });
        let id = std::str::from_utf8(packet.ids.next().unwrap().id).unwrap();
        let mut session = Session { from: "h1".into(), id: id.into(), seq: 0 };
        if payload.more {
            session.credit(edge, BODY_CREDITS);
        }
        self.session = Some(session);
        self.answer(edge);
    }

    fn go_on(&mut self, edge: &mut Edge, packet: &[u8]) {
        let packet = Packet::parse(packet).unwrap();
        let got = self.got.last_mut().expect("a packet without a request");
        assert!(!got.is_cancelled, "nothing comes behind a cancel");
        match packet.kind {
            Kind::Data => {
                assert!(!got.is_whole, "nothing comes behind the end of a body");
                let payload = packet.payload().unwrap();
                got.request.body.extend_from_slice(payload.body);
                got.is_whole = !payload.more;
                self.answer(edge);
            }
            Kind::Cancel => got.is_cancelled = true,
            kind => assert_eq!(kind, Kind::Credit),
        }
    }

    fn answer(&mut self, edge: &mut Edge) {
        let Some(Got { is_whole: true, .. }) = self.got.last() else { return };
        let body = self.got.len().to_string();
        self.session.as_mut().unwrap().answer(edge, &[], &body, false);
    }
}

/// A response as the client reads it.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: u16,
    closes: bool,
    body: String,
}

impl Response {
    const CONTINUE: Response = Response { status: 100, closes: false, body: String::new() };

    /// Takes the next response off `text`. Those to HEAD have no content.
    fn read(text: &mut &str, is_head: bool) -> Response {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let length = match field("Content-Length: ") {
            Some(length) if !is_head => length.parse().unwrap(),
            Some(_) | None => 0,
        };
        let (body, behind) = rest.split_at(length);
        *text = behind;
        if status >= 400 {
            assert_eq!(field("Content-Type: "), Some("text/plain"), "{head}");
        }
        Response { status, closes: field("Connection: ") == Some("close"), body: body.into() }
    }

    /// All responses in that text, to HEAD where `is_head` says so.
    fn read_all(mut text: &str, is_head: &[bool]) -> Vec<Response> {
        let (mut responses, mut is_head) = (Vec::new(), is_head.iter());
        while !text.is_empty() {
            let is_interim = text.starts_with("HTTP/1.1 100 ");
            let is_head = !is_interim && is_head.next().is_some_and(|is_head| *is_head);
            responses.push(Response::read(&mut text, is_head));
        }
        responses
    }
}

fn edge() -> Edge {
    let mut config = config();
    config.buffer_bytes = BUFFER_BYTES;
    Edge::with(config)
}

/// What a handler and a client see of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    got: Vec<Got>,
    responses: Vec<Response>,
}

impl Seen {
    fn answered(&mut self, request: Request, closes: bool) {
        let is_head = request.method == b"HEAD";
        self.got.push(Got { request, is_whole: true, is_cancelled: false });
        let body = if is_head { String::new() } else { self.got.len().to_string() };
        self.responses.push(Response { status: 200, closes, body });
    }

    fn cancelled(&mut self, request: Option<Request>) {
        let cancelled = |request| Got { request, is_whole: false, is_cancelled: true };
        self.got.extend(request.map(cancelled));
    }

    /// What must come of a case that is fed so.
    fn of(case: &RequestCase, feed: Feed) -> Seen {
        let mut seen = Seen::default();
        if feed.has_first {
            seen.answered(plain("first"), false);
        }
        if case.interim && feed.is_cut {
            seen.responses.push(Response::CONTINUE);
        }
        match (&case.end, case.request.clone()) {
            (End::Keep, Some(request)) => seen.answered(request, false),
            (End::Close, Some(request)) => seen.answered(request, true),
            (End::Keep | End::Close, None) => panic!("{}: which request?", case.name),
            (End::Incomplete, request) => seen.cancelled(request),
            (End::Refuse { status, text }, request) => {
                seen.cancelled(request);
                let body = text.clone();
                seen.responses.push(Response { status: *status, closes: true, body });
            }
        }
        if feed.has_last && case.end == End::Keep {
            seen.answered(plain("last"), false);
        }
        seen
    }
}

/// The request of [`FIRST`] or [`LAST`].
fn plain(name: &str) -> Request {
    Request {
        method: b"GET".to_vec(),
        uri: format!("http://{name}/{name}").into(),
        headers: vec![(b"Host".to_vec(), name.into())],
        body: Vec::new(),
    }
}

/// Feeds all bytes; says what the handler got and what the client.
fn run(edge: &mut Edge, client: Key, bytes: &[u8], feed: Feed) -> (Handler, String) {
    let mut handler = Handler::default();
    for piece in bytes.chunks(if feed.is_cut { 1 } else { bytes.len() }) {
        edge.send(client, piece);
        handler.turn(edge);
    }
    let text = edge.got(client);
    (handler, text)
}

fn check(case: &RequestCase, feed: Feed) {
    if case.end == End::Incomplete && feed.has_last {
        // What follows would complete it.
        return;
    }
    let at = format!("{}, {feed:?}", case.name);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(if feed.has_first { FIRST } else { b"" });
    bytes.extend_from_slice(&case.input);
    bytes.extend_from_slice(if feed.has_last { LAST } else { b"" });
    let mut edge = edge();
    let client = edge.connect();
    let (mut handler, text) = run(&mut edge, client, &bytes, feed);

    let is_over = matches!(case.end, End::Close | End::Refuse { .. });
    assert_eq!(edge.is_shut(client), is_over, "{at}: {text}");
    assert!(!edge.is_closed(client), "{at}: it lingers, so that the answer is read");
    edge.half_close(client);
    handler.turn(&mut edge);
    assert!(edge.is_closed(client), "{at}");
    assert_eq!(edge.got(client), "", "{at}");

    let expected = Seen::of(case, feed);
    if matches!(case.end, End::Refuse { .. }) {
        forgive_half_a_body(&mut handler.got, &expected.got);
    }
    let is_head: Vec<bool> = expected.got.iter().map(|got| got.request.method == b"HEAD").collect();
    let seen = Seen { got: handler.got, responses: Response::read_all(&text, &is_head) };
    assert_eq!(seen, expected, "{at}");
    edge.end();
}

/// How much of a body that turns out to be broken was passed on before depends on how it was cut. It was never more
/// than there is.
fn forgive_half_a_body(got: &mut [Got], expected: &[Got]) {
    let (Some(got), Some(expected)) = (got.last_mut(), expected.last()) else { return };
    if expected.request.body.starts_with(&got.request.body) {
        got.request.body.clone_from(&expected.request.body);
    }
}

#[test]
fn requests() {
    let (cases, written) = request_cases();
    assert!(written >= 400, "only {written} cases");
    for case in &cases {
        for feed in FEEDS {
            check(case, feed);
        }
    }
}
