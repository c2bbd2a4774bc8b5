//! What handlers answer, and what clients get of it: the cases of `vectors/http1/answers/`.
//!
//! Each is run with a client that takes everything at once, and with one that takes one byte at a time.

use zhttp::Kind;

use super::edge;
use crate::http1::vectors::table::{Record, header, records, unescape};
use crate::slab::Key;
use crate::worker::tests::{DATE, Edge, Session};

/// One packet of the handler.
#[derive(Debug, Default)]
struct Packet {
    code: Option<u64>,
    reason: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    more: bool,
}

/// What the client gets.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// An error of the edge's own.
    Refused(u16),
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It takes another request.
    Keep,
    /// It is closed behind the answer.
    Close,
    /// It is closed within the answer.
    Cut,
}

#[derive(Debug)]
struct AnswerCase<'f> {
    name: &'f str,
    request: Vec<u8>,
    packets: Vec<Packet>,
    answer: Answer,
    end: End,
    /// The handler is told that its packet was refused.
    is_told: bool,
}

impl<'f> AnswerCase<'f> {
    fn read(record: &Record<'f>) -> Self {
        let name = record.name;
        let (mut request, mut bytes, mut refused, mut end) = (Vec::new(), Vec::new(), None, None);
        let (mut packets, mut is_told) = (vec![Packet::default()], false);
        for &(key, text) in &record.lines {
            let packet = packets.last_mut().expect("there is one");
            match key {
                ">" => request.extend(unescape(text)),
                "code" => packet.code = Some(text.parse().expect("a number")),
                "reason" => packet.reason = unescape(text),
                "header" => packet.headers.push(header(text, unescape)),
                "body" => packet.body = unescape(text),
                "more" => packet.more = true,
                "packet" => packets.push(Packet::default()),
                "=" => bytes.extend(unescape(text)),
                "refuse" => refused = Some(text.parse().expect("a status")),
                "keep" => end = Some(End::Keep),
                "close" => end = Some(End::Close),
                "cut" => end = Some(End::Cut),
                "told" => is_told = text == "error",
                _ => panic!("{name}: what is {key:?}?"),
            }
        }
        if request.is_empty() {
            request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        }
        let end = end.unwrap_or_else(|| panic!("{name} has no end"));
        let answer = refused.map_or(Answer::Bytes(bytes), Answer::Refused);
        AnswerCase { name, request, packets, answer, end, is_told }
    }

    /// Runs the case; the client takes so many bytes at a time.
    fn check(&self, takes: Option<usize>) {
        let at = format!("{}, {takes:?} bytes at a time", self.name);
        let mut edge = edge();
        let client = edge.connect();
        edge.client(client).takes = takes.map(|_| 0);
        edge.send(client, &self.request);
        let mut session = edge.request();
        for packet in &self.packets {
            say(&mut edge, &mut session, packet);
        }
        while let Some(bytes) = takes
            && take(&mut edge, client, bytes)
        {}
        edge.client(client).takes = None;

        let got = std::mem::take(&mut edge.client(client).got);
        self.check_bytes(&got, takes, &at);
        let errors = edge.told().iter().filter(|told| told.kind == "error").count();
        assert_eq!(errors, usize::from(self.is_told), "{at}");
        assert_eq!(edge.worker.stats().bad_packets, errors as u64, "{at}: what is told is logged");

        assert_eq!(edge.is_shut(client), self.end == End::Close, "{at}");
        assert_eq!(edge.is_closed(client), self.end == End::Cut, "{at}");
        if self.end == End::Keep {
            edge.send(client, "GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
            edge.request().answer(&mut edge, &[], "next", false);
            assert!(edge.got(client).ends_with("\r\n\r\nnext"), "{at}");
        }
        edge.end();
    }

    fn check_bytes(&self, got: &[u8], takes: Option<usize>, at: &str) {
        let shown = got.escape_ascii();
        match &self.answer {
            Answer::Bytes(expected) => {
                let bytes = without_date(got);
                if self.end == End::Cut && takes.is_some() {
                    // What it has not taken when the connection is cut is lost.
                    assert!(expected.starts_with(&bytes), "{at}: {shown}");
                } else {
                    assert_eq!(
                        bytes.escape_ascii().to_string(),
                        expected.escape_ascii().to_string(),
                        "{at}"
                    );
                    let is_dated = |line: &&[u8]| line.to_ascii_lowercase().starts_with(b"date: ");
                    let dates = got.split(|&byte| byte == b'\n').filter(is_dated).count();
                    assert_eq!(dates, 1, "{at}: {shown}");
                }
            }
            Answer::Refused(status) => {
                let text = std::str::from_utf8(got).unwrap();
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{at}: {text}");
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                assert_eq!(body.is_empty(), self.request.starts_with(b"HEAD "), "{at}: {text}");
                let names = head.lines().skip(1).map(|line| line.split(':').next().unwrap());
                let expected = ["Content-Type", "Content-Length", "Connection", "Date"];
                assert_eq!(names.collect::<Vec<_>>(), expected, "{at}: only the edge's own");
            }
        }
    }
}

fn say(edge: &mut Edge, session: &mut Session, packet: &Packet) {
    let bytes = session.packet(Kind::Data, |fields| {
        if let Some(code) = packet.code {
            fields.int("code", code);
        }
        fields.bytes("reason", &packet.reason);
        fields.headers(packet.headers.iter().map(|(name, value)| (&name[..], &value[..])));
        fields.bytes("body", &packet.body);
        fields.flag("more", packet.more);
    });
    edge.packet(bytes);
}

/// The client takes some bytes; says whether there were any.
fn take(edge: &mut Edge, client: Key, bytes: usize) -> bool {
    let before = edge.client(client).got.len();
    if !edge.is_closed(client) && !edge.is_shut(client) {
        edge.take(client, bytes);
    }
    edge.client(client).got.len() > before
}

fn without_date(got: &[u8]) -> Vec<u8> {
    let date = format!("Date: {DATE}\r\n");
    match got.windows(date.len()).position(|window| window == date.as_bytes()) {
        Some(at) => [&got[..at], &got[at + date.len()..]].concat(),
        None => got.to_vec(),
    }
}

#[test]
fn answers() {
    let records = records(&[
        include_str!("../../../../vectors/http1/answers/connections.txt"),
        include_str!("../../../../vectors/http1/answers/fields.txt"),
        include_str!("../../../../vectors/http1/answers/framing.txt"),
        include_str!("../../../../vectors/http1/answers/own-fields.txt"),
        include_str!("../../../../vectors/http1/answers/status-lines.txt"),
    ]);
    assert!(records.len() >= 130, "only {} cases", records.len());
    for case in records.iter().map(AnswerCase::read) {
        for takes in [None, Some(1), Some(7)] {
            case.check(takes);
        }
    }
}
