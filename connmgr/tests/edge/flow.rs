//! Bodies through clients and handlers of every speed: byte-exact, without a standstill, and in bounded
//! memory. Condure 1.9.1 stalls slow readers for good: bytes stay in its buffer when the handler has no
//! credits, and nothing wakes either of them. `peers/zhttp.py` has the other end.

use serde_json::json;
use zhttp::Kind;

use crate::client::{Client, SocketOptions};
use crate::handler::{Handler, sequence};
use crate::peers::within;
use crate::process::EdgeProcess;
use crate::unread::unread_bytes;

/// How much the memory of an edge may grow for one client, however large what passes through it is.
/// Its buffers are 8 KiB a side, and what a handler has granted may be on its way to it; the rest is the
/// allocator's, and code that was not touched before.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

const UPLOAD_BYTES: usize = 10_000_000;

const DOWNLOAD_BYTES: usize = 50_000_000;

/// Takes pieces of the body as they come.
#[derive(Default)]
struct Checker {
    bytes: usize,
}

impl Checker {
    fn take(&mut self, piece: &[u8]) {
        let expected = sequence(self.bytes..self.bytes + piece.len());
        assert!(piece == expected, "the bytes from {} on differ", self.bytes);
        self.bytes += piece.len();
    }
}

/// An edge and its handler, after a first request: what is only needed once is there.
async fn warm(options: &[&str]) -> (EdgeProcess, Handler) {
    let edge = EdgeProcess::start(options).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    handler.answer(&request.id, "warm").await;
    client.response().await;
    (edge, handler)
}

/// Uploads in writes of some size to a handler that grants some bytes at a time.
async fn upload(write_bytes: usize, grant_bytes: usize) {
    let (edge, mut handler) = warm(&[]).await;
    let before = edge.memory();
    handler.begin("upload", json!({"grant": grant_bytes})).await;
    let mut client = Client::connect(edge.address).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
    client.send(head).await;
    for start in (0..UPLOAD_BYTES).step_by(write_bytes) {
        client.send(sequence(start..UPLOAD_BYTES.min(start + write_bytes))).await;
    }
    assert_eq!(client.response().await.text(), UPLOAD_BYTES.to_string());
    assert_eq!(handler.peer.answer().await["bytes"], UPLOAD_BYTES);
    let growth_kib = edge.memory().peak_kib.saturating_sub(before.resident_kib);
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
}

/// Downloads in reads of some size from a handler that sends pieces of some size.
async fn download(
    (body_bytes, piece_bytes): (usize, usize),
    options: SocketOptions,
    read_bytes: usize,
) {
    let (edge, mut handler) = warm(&[]).await;
    let before = edge.memory();
    handler.begin("download", json!({"length": body_bytes, "piece": piece_bytes})).await;
    let mut client = Client::connect_by(edge.address, options).await;
    // One that ends with its connection has no framing in between.
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.until("\r\n\r\n").await;
    let mut got = Checker::default();
    loop {
        let piece = client.some(read_bytes).await;
        if piece.is_empty() {
            break;
        }
        got.take(&piece);
    }
    assert_eq!(got.bytes, body_bytes);
    assert_eq!(handler.peer.answer().await["bytes"], body_bytes);
    let growth_kib = edge.memory().peak_kib.saturating_sub(before.resident_kib);
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
}

#[tokio::test]
async fn a_fast_client_and_a_slow_handler() {
    upload(1_000_000, 8_192).await;
}

#[tokio::test]
async fn a_slow_client_and_a_fast_handler() {
    // What a handler has granted and not read yet waits in queues for it: that is its own bound.
    upload(3_001, 1_000_000).await;
}

#[tokio::test]
async fn a_fast_handler_and_a_slow_client() {
    let narrow = SocketOptions { receive_buffer_bytes: 65_536, ..SocketOptions::default() };
    download((DOWNLOAD_BYTES, usize::MAX >> 1), narrow, 10_001).await;
}

#[tokio::test]
async fn a_slow_handler_and_a_fast_client() {
    download((DOWNLOAD_BYTES / 10, 1_001), SocketOptions::default(), 1_000_000).await;
}

/// It stops until the handler has no credits left and all buffers are full; then it takes what there
/// is, in small pieces, and stops again.
#[tokio::test]
async fn a_reader_that_stops_again_and_again_gets_everything() {
    let edge = EdgeProcess::start(&["--workers=1"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let narrow = SocketOptions { receive_buffer_bytes: 2_304, ..SocketOptions::default() };
    let mut client = Client::connect_by(edge.address, narrow).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let request = handler.request().await;
    let (mut sent, mut credits, mut got) = (0, request.credits, Checker::default());
    while sent < 2_000_000 {
        sent = handler.spend_credits(&request.id, sent, credits).await;
        if got.bytes == 0 {
            client.until("\r\n\r\n").await;
        }
        while got.bytes < sent {
            got.take(&client.some(701.min(sent - got.bytes)).await);
        }
        // The client has all there was, so the handler may go on.
        credits = 0;
        while credits < request.credits {
            credits += handler.next_of(Kind::Credit).await.credits;
        }
    }
    handler.say(&request.id, (0, b""), false).await;
    assert_eq!(client.rest_bytes().await, b"");
}

const UPLOADS: usize = 100;

const UPLOADED_BYTES: usize = 1_000_000;

/// How much the memory of an edge may grow for a handler that stops, however many send to it: its queue, what was on
/// its way there when it stopped, and the buffers of the connections.
const STALL_GROWTH_KIB_MAX: u64 = 64 * 1024;

/// What clients send waits with them while their handler is stopped, and all of it arrives when it goes on.
#[tokio::test]
async fn a_handler_that_stops_for_a_while_loses_nothing() {
    let (edge, mut handler) = warm(&[]).await;
    let before = edge.memory();
    let (mut clients, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..UPLOADS {
        let stream = within(tokio::net::TcpStream::connect(edge.address)).await.unwrap();
        ends.push((stream.peer_addr().unwrap(), stream.local_addr().unwrap()));
        let mut client = Client::over(stream);
        let length = format!("Content-Length: {UPLOADED_BYTES}\r\n");
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n")).await;
        let request = handler.request().await;
        let credit = handler.packet(&request.id, None, Kind::Credit, |fields| {
            fields.int("credits", UPLOADED_BYTES as u64);
        });
        handler.send_stream(&credit).await;
        clients.push(client);
    }
    handler.peer.signal("-STOP");
    let uploads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                client.send(sequence(0..UPLOADED_BYTES)).await;
                client.response().await.text().to_owned()
            })
        })
        .collect();
    // The edge reads no more when much waits in the sockets, and goes on to wait.
    let mut before_bytes = 0;
    within(async {
        loop {
            let unread = ends.iter().map(|(edge, own)| unread_bytes(*edge, *own).unwrap() as usize);
            let unread_bytes: usize = unread.sum();
            if unread_bytes > UPLOADED_BYTES && unread_bytes == before_bytes {
                break;
            }
            before_bytes = unread_bytes;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let growth_kib = edge.memory().peak_kib.saturating_sub(before.resident_kib);
    assert!(growth_kib <= STALL_GROWTH_KIB_MAX, "{growth_kib} KiB more");
    handler.peer.signal("-CONT");
    handler.begin("collect", json!({"count": UPLOADS})).await;
    for upload in uploads {
        assert_eq!(upload.await.unwrap(), UPLOADED_BYTES.to_string());
    }
    assert_eq!(handler.peer.answer().await["bytes"], UPLOADS * UPLOADED_BYTES);
}
