//! What goes through TLS once hands are shaken: bodies of every size and speed, holds, and every way to end.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use zhttp::Kind;

use crate::client::Client;
use crate::handler::{Handler, sequence};
use crate::holds::{event, event_text, hold};
use crate::peers::within;
use crate::tls_client::{HOST, TlsEdge, VERSIONS, config, handshake, handshake_over};

/// How much the memory of an edge may grow for one client. Beside what plain ones need there is a record either way, and
/// code that was not touched before.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

/// An edge and its handler, after a first request of each version.
async fn warm(options: &[&str]) -> (TlsEdge, Handler) {
    let tls = TlsEdge::start(options).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    for version in VERSIONS {
        let mut client = tls.connect_by(&[version]).await;
        client.ask("/").await;
        let request = handler.request().await;
        handler.answer(&request.id, "warm").await;
        client.response().await;
    }
    (tls, handler)
}

/// A client whose kernel takes little.
async fn narrow_client(tls: &TlsEdge) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_304).unwrap();
    let stream = within(socket.connect(tls.edge.address)).await.unwrap();
    let config = config(&VERSIONS, &[&tls.pair]);
    Client::over(handshake_over(stream, HOST, &config).await.unwrap())
}

#[tokio::test]
async fn a_large_answer_through_small_reads() {
    let (tls, mut handler) = warm(&[]).await;
    for version in VERSIONS {
        let before = tls.edge.memory();
        let length = 10_000_000;
        handler.begin("download", json!({"length": length, "piece": usize::MAX >> 1})).await;
        let mut client = tls.connect_by(&[version]).await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        let mut bytes = 0;
        loop {
            let piece = client.some(10_001).await;
            if piece.is_empty() {
                break;
            }
            assert!(piece == sequence(bytes..bytes + piece.len()), "from {bytes} on");
            bytes += piece.len();
        }
        assert_eq!(bytes, length, "{version:?}");
        assert_eq!(handler.peer.answer().await["bytes"], length);
        let growth_kib = tls.edge.memory().peak_kib.saturating_sub(before.resident_kib);
        assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
    }
}

/// It stops until the handler has no credits left and all buffers are full; then it takes all there is.
#[tokio::test]
async fn a_reader_that_stops_again_and_again_gets_everything() {
    let (tls, mut handler) = warm(&["--workers=1"]).await;
    let mut client = narrow_client(&tls).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let request = handler.request().await;
    let (mut sent, mut credits, mut got) = (0, request.credits, 0);
    while sent < 500_000 {
        sent = handler.spend_credits(&request.id, sent, credits).await;
        if got == 0 {
            client.until("\r\n\r\n").await;
        }
        while got < sent {
            let piece = client.some(701.min(sent - got)).await;
            assert!(piece == sequence(got..got + piece.len()), "from {got} on");
            got += piece.len();
        }
        credits = 0;
        while credits < request.credits {
            credits += handler.next_of(Kind::Credit).await.credits;
        }
    }
    handler.say(&request.id, (0, b""), false).await;
    assert_eq!(client.rest_bytes().await, b"");
}

#[tokio::test]
async fn an_upload_waits_for_its_handler() {
    let (tls, mut handler) = warm(&[]).await;
    for (version, grant) in VERSIONS.into_iter().zip([1_000_000, 5_000]) {
        let before = tls.edge.memory();
        let length = 5_000_000;
        handler.begin("upload", json!({"grant": grant})).await;
        let mut client = tls.connect_by(&[version]).await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"))
            .await;
        for start in (0..length).step_by(300_001) {
            client.send(sequence(start..length.min(start + 300_001))).await;
        }
        assert_eq!(client.response().await.text(), length.to_string());
        assert_eq!(handler.peer.answer().await["bytes"], length);
        let growth_kib = tls.edge.memory().peak_kib.saturating_sub(before.resident_kib);
        assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
    }
}

#[tokio::test]
async fn requests_may_come_in_one_record_or_in_many() {
    let (tls, mut handler) = warm(&[]).await;
    for version in VERSIONS {
        let mut client = tls.connect_by(&[version]).await;
        client.send("GET /0 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3)).await;
        for byte in b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" {
            client.send([*byte]).await;
        }
        for path in ["/0", "/0", "/0", "/1"] {
            let request = handler.request().await;
            assert_eq!(request.uri, format!("https://x{path}"));
            handler.answer(&request.id, path).await;
            assert_eq!(client.response().await.text(), path);
        }
    }
}

#[tokio::test]
async fn a_client_that_has_said_its_last_gets_its_answer() {
    let (tls, mut handler) = warm(&[]).await;
    for version in VERSIONS {
        let mut client = tls.connect_by(&[version]).await;
        client.ask("/").await;
        client.half_close().await;
        let request = handler.request().await;
        handler.answer(&request.id, "the answer").await;
        assert_eq!(client.response().await.text(), "the answer");
        assert_eq!(client.rest().await, "");
    }
}

/// A client that reads to the end knows whether it has everything: a `close_notify` says so.
#[tokio::test]
async fn a_whole_answer_ends_otherwise_than_a_cut_one() {
    let (tls, mut handler) = warm(&[]).await;
    for version in VERSIONS {
        for is_whole in [true, false] {
            let config = config(&[version], &[&tls.pair]);
            let mut stream = handshake(tls.edge.address, HOST, &config).await.unwrap();
            within(stream.write_all(b"GET / HTTP/1.0\r\n\r\n")).await.unwrap();
            let request = handler.request().await;
            handler.say(&request.id, (200, b"answer"), true).await;
            if is_whole {
                handler.say(&request.id, (0, b""), false).await;
            } else {
                let cancel = handler.packet(&request.id, None, Kind::Cancel, |_| {});
                handler.send_stream(&cancel).await;
            }
            let mut got = Vec::new();
            let end = within(stream.read_to_end(&mut got)).await;
            assert!(got.ends_with(b"answer"), "{got:?}");
            assert_eq!(end.is_ok(), is_whole, "{version:?}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_is_cut_off_has_left() {
    let (tls, mut handler) = warm(&[]).await;
    for is_clean in [true, false] {
        let config = config(&VERSIONS, &[&tls.pair]);
        let mut stream = handshake(tls.edge.address, HOST, &config).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf";
        within(stream.write_all(head.as_bytes())).await.unwrap();
        within(stream.flush()).await.unwrap();
        let request = handler.request().await;
        let credit = handler.packet(&request.id, None, Kind::Credit, |fields| {
            fields.int("credits", 100);
        });
        handler.send_stream(&credit).await;
        assert_eq!(handler.next_of(Kind::Data).await.body, b"half");
        if is_clean {
            within(stream.shutdown()).await.unwrap();
        }
        // Without a `close_notify`, otherwise.
        drop(stream);
        assert_eq!(handler.next_of(Kind::Cancel).await.id, request.id);
    }
}

#[tokio::test]
async fn a_held_client_gets_its_events_and_is_sent_away() {
    let mut tls = TlsEdge::start(&["--drain-timeout=60"]).await;
    let mut handler = Handler::greeting(&tls.edge, "first").await;
    let mut clients = Vec::new();
    for version in VERSIONS {
        let mut client = tls.connect_by(&[version]).await;
        client.ask("/events").await;
        let request = handler.next_of(Kind::Data).await;
        hold(&mut handler, &request).await;
        client.until("retry: 500\n\n\r\n").await;
        clients.push(client);
    }
    handler.next_of(Kind::Feed).await;
    event(&mut handler, 0, "one").await;
    for client in &mut clients {
        client.until(&event_text(1, "one")).await;
    }
    tls.edge.signal("-TERM");
    for mut client in clients {
        let got = client.rest().await;
        assert!(got.contains("server_draining") && got.ends_with("0\r\n\r\n"), "{got}");
    }
    assert_eq!(tls.edge.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_lets_answers_through() {
    let (mut tls, mut handler) = warm(&["--drain-timeout=60"]).await;
    let mut client = tls.connect().await;
    client.ask("/").await;
    let request = handler.request().await;
    tls.edge.signal("-TERM");
    tls.edge.line("stopping").await;
    handler.answer(&request.id, "in time").await;
    let response = client.response().await;
    assert_eq!(response.text(), "in time");
    assert!(response.head.contains("Connection: close"));
    assert_eq!(client.rest().await, "");
    drop(client);
    assert_eq!(tls.edge.wait().await.code(), Some(0));
}
