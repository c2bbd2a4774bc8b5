//! Handlers that break a rule: each loses the one session that it broke it in, and is told; the client
//! gets a 500 if it has no head yet, and else sees that its answer is cut (zhttp-spec/zhttp.md §10).

use zhttp::{Fields, Kind};

use crate::client::Client;
use crate::handler::Handler;
use crate::process::EdgeProcess;

/// When a rule can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Only in the packet with the head.
    Head,
    /// Also behind it.
    Any,
}

struct Case {
    /// What the log says of it.
    log: &'static str,
    when: When,
    seq: Option<u32>,
    kind: Kind,
    fill: fn(&mut Fields<'_, '_>),
}

const fn data(log: &'static str, when: When, fill: fn(&mut Fields<'_, '_>)) -> Case {
    Case { log, when, seq: None, kind: Kind::Data, fill }
}

const fn kind(log: &'static str, kind: Kind) -> Case {
    Case { log, when: When::Any, seq: None, kind, fill: |_| {} }
}

fn code(fields: &mut Fields<'_, '_>) {
    fields.int("code", 200);
}

fn header(fields: &mut Fields<'_, '_>, name: &[u8], value: &[u8]) {
    code(fields);
    fields.headers(std::iter::once((name, value)));
}

fn cases() -> Vec<Case> {
    let bad_seq = Case { seq: Some(7), ..data("packet 7 of the session", When::Any, code) };
    vec![
        bad_seq,
        data("credits", When::Any, |fields| {
            code(fields);
            fields.bytes("body", &[b'x'; 8_193]);
        }),
        data("code is missing", When::Head, |fields| fields.bytes("body", b"x")),
        data("field code", When::Any, |fields| fields.bytes("code", b"200")),
        data("field code", When::Any, |fields| fields.int("code", 65_536)),
        data("code", When::Head, |fields| fields.int("code", 99)),
        data("field headers", When::Any, |fields| {
            code(fields);
            fields.bytes("headers", b"X: y");
        }),
        data("header", When::Head, |fields| header(fields, b"X", b"a\r\nSet-Cookie: b")),
        data("header", When::Head, |fields| header(fields, b"X y", b"a")),
        data("Content-Length", When::Head, |fields| {
            header(fields, b"Content-Length", b"3");
            fields.bytes("body", b"four");
            fields.flag("more", true);
        }),
        data("field body", When::Any, |fields| {
            code(fields);
            fields.flag("body", true);
        }),
        data("field credits", When::Any, |fields| {
            code(fields);
            fields.bytes("credits", b"1");
        }),
        data("field more", When::Any, |fields| {
            code(fields);
            fields.int("more", 1);
        }),
        // What comes twice counts in its last form.
        data("type", When::Any, |fields| fields.bytes("type", b"nonsense")),
        data("field ext", When::Any, |fields| fields.bytes("ext", b"multi")),
        data("field seq", When::Any, |fields| fields.bytes("seq", b"0")),
        kind("type close", Kind::Close),
        kind("type ping", Kind::Ping),
        kind("type handoff-proceed", Kind::HandoffProceed),
        kind("type send", Kind::Send),
    ]
}

/// Breaks a rule in a session that has its head, or not.
async fn break_rule(edge: &EdgeProcess, handler: &mut Handler, case: &Case, has_head: bool) {
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    if has_head {
        handler.say(&request.id, (200, b"x"), true).await;
        client.until("x\r\n").await;
    }
    let packet = handler.packet(&request.id, case.seq, case.kind, case.fill);
    handler.send_stream(&packet).await;
    let error = handler.next_of(Kind::Error).await;
    assert_eq!(error.id, request.id, "{}", case.log);
    let packet = zhttp::Packet::parse(&error.bytes).unwrap();
    assert_eq!(packet.payload().unwrap().condition, Some("bad-request"));
    if has_head {
        let rest = client.rest().await;
        assert!(!rest.ends_with("0\r\n\r\n"), "{}: it looks whole: {rest:?}", case.log);
    } else {
        let response = client.response().await;
        assert_eq!(response.status, 500, "{}", case.log);
        assert!(response.head.contains("\r\nConnection: close\r\n"), "{}", response.head);
        assert!(!response.body.is_empty() && !response.head.contains("Set-Cookie"));
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test]
async fn a_wrong_packet_ends_its_own_session() {
    let mut edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut other = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    for case in cases() {
        break_rule(&edge, &mut handler, &case, false).await;
        if case.when == When::Any {
            break_rule(&edge, &mut handler, &case, true).await;
        }
    }
    handler.answer(&request.id, "nothing has happened").await;
    assert_eq!(other.response().await.text(), "nothing has happened");
    // It is told at most once a second, by the hub and by each worker.
    assert!(edge.lines_now("packet from handler \"h\" refused: ").len() <= 60);
}

/// What is told first is told in full.
#[tokio::test]
async fn the_log_names_the_handler_and_what_is_wrong() {
    for case in cases().into_iter().step_by(3) {
        let mut edge = EdgeProcess::start(&["--workers=1"]).await;
        let mut handler = Handler::plain(&edge, "the-handler").await;
        break_rule(&edge, &mut handler, &case, false).await;
        let line = edge.line("refused").await;
        assert!(line.starts_with("[WARN]"), "{line}");
        assert!(line.contains("\"the-handler\"") && line.contains(case.log), "{line}");
    }
}

/// A packet that is about nobody is dropped, logged, and that is all.
#[tokio::test]
async fn what_names_no_session_is_logged() {
    for (packet, text) in [(&b"T5:hello,"[..], "tnetstring"), (b"T11:4:from,1:h,}", "id")] {
        let mut edge = EdgeProcess::start(&["--workers=1"]).await;
        let mut handler = Handler::plain(&edge, "h").await;
        handler.send_stream(packet).await;
        let line = edge.line("refused").await;
        assert!(line.contains("\"h\"") && line.contains(text), "{line}");
        assert!(handler.settle(0).await.is_empty());
    }
}

/// What comes by PUB names its sender itself.
#[tokio::test]
async fn the_log_names_who_published() {
    let cases = [("0-0-ffff", "nonsense", "type"), ("", "keep-alive", "id")];
    for (id, kind, text) in cases {
        let mut edge = EdgeProcess::start(&["--workers=1"]).await;
        let mut handler = Handler::plain(&edge, "the-publisher").await;
        let packet = handler.packet(id, None, Kind::Data, |fields| {
            fields.bytes("type", kind.as_bytes());
        });
        handler.publish(&packet).await;
        let line = edge.line("refused").await;
        assert!(line.contains("\"the-publisher\"") && line.contains(text), "{line}");
    }
}
