//! Debian's Pushpin 1.36 with our binary in the place of `condure`: nothing may be missing.
//!
//! `pushpin/process.rs` runs it, `pushpin/backend.rs` is the web server behind it. One Pushpin serves all parts, one
//! after the other, each with channels of its own; each prints a line when it has passed. Where Pushpin is not
//! installed the test passes and says so.
//!
//! `FOREBAY_TEST_CONDURE_BIN` names another binary to run instead of ours; `scripts/pushpin` sets it.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[path = "pushpin/backend.rs"]
mod backend;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "edge/client.rs"]
mod client;
#[path = "pushpin/process.rs"]
mod process;
#[path = "peers/websocket.rs"]
mod websocket;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use client::Client;
use peers::{Peer, unhex, within};
use process::Pushpin;

/// The version that takes `condure_bin`; from 1.38 on the connection manager is a part of it.
const VERSION: &str = "pushpin 1.36";
/// Clients of one channel.
const CLIENTS: usize = 200;
/// Pushpin answers 500 when more than a hundred requests wait to be handed from its proxy to its handler.
const HOLDS_AT_ONCE_MAX: usize = 50;
const LARGE_RESPONSE_BYTES: usize = 10_000_000;
const UPLOAD_BYTES: usize = 2_000_000;
/// What is published for a long-polling client is lost if the client is not there yet: then it is published again.
const REPUBLISH_INTERVAL: Duration = Duration::from_millis(250);

#[tokio::test]
async fn everything_works_behind_pushpin() {
    let Some(version) = Pushpin::version().filter(|version| version.starts_with(VERSION)) else {
        // Not by println, which is shown only when a test fails.
        let note = b"the test with Pushpin is passed over: apt-get install condure pushpin\n";
        std::io::stderr().write_all(note).unwrap();
        return;
    };
    let ours = env!("CARGO_BIN_EXE_forebay-connmgr").to_owned();
    let condure_bin = std::env::var("FOREBAY_TEST_CONDURE_BIN").unwrap_or(ours);
    println!("{version} with {condure_bin}");
    let mut pushpin = Pushpin::start(&condure_bin, backend::start().await).await;
    let mut holders = Holders::start(&pushpin).await;

    plain_responses(&pushpin).await;
    large_response(&pushpin).await;
    uploads(&pushpin).await;
    long_polling(&pushpin).await;
    websockets(&pushpin).await;
    stream_to_many(&mut pushpin).await;
    one_client_leaves(&mut pushpin, &mut holders).await;
    all_clients_leave(&mut pushpin, &mut holders).await;
    stop(pushpin).await;
}

fn passed(what: &str) {
    println!("passed: {what}");
}

async fn plain_responses(pushpin: &Pushpin) {
    let mut client = Client::connect(pushpin.address).await;
    for _ in 0..3 {
        client.ask("/").await;
        let response = client.response().await;
        let expected = (200, "Hello from the Pushpin test handler!\n");
        assert_eq!((response.status, response.text()), expected);
    }
    passed("plain responses on one connection");
}

async fn large_response(pushpin: &Pushpin) {
    let mut client =
        Client::get(pushpin.address, &format!("/backend/{LARGE_RESPONSE_BYTES}")).await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.body == backend::pattern(LARGE_RESPONSE_BYTES), "bytes are wrong");
    passed("a large response of a backend");
}

async fn uploads(pushpin: &Pushpin) {
    let body = backend::pattern(UPLOAD_BYTES);
    let mut client = Client::connect(pushpin.address).await;
    let post = "POST /backend/echo HTTP/1.1\r\nHost: x.com\r\n";
    client.send(format!("{post}Content-Length: {UPLOAD_BYTES}\r\n\r\n")).await;
    client.send(&body).await;
    assert!(client.response().await.body == body, "bytes with a length are wrong");

    client.send(format!("{post}Transfer-Encoding: chunked\r\n\r\n")).await;
    for piece in body.chunks(3001) {
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    client.send("0\r\n\r\n").await;
    assert!(client.response().await.body == body, "bytes in chunks are wrong");
    passed("uploads to a backend, with a length and in chunks");
}

async fn long_polling(pushpin: &Pushpin) {
    let mut responses = tokio::task::JoinSet::new();
    let address = pushpin.address;
    for _ in 0..5 {
        responses.spawn(async move {
            Client::get(address, "/response?channel=poll").await.response().await
        });
    }
    let mut interval = tokio::time::interval(REPUBLISH_INTERVAL);
    loop {
        tokio::select! {
            response = responses.join_next() => {
                let Some(response) = response else { break };
                let response = response.unwrap();
                assert_eq!((response.status, response.text()), (200, "news\n"));
            }
            _ = interval.tick() => {
                let format = json!({ "http-response": { "body": "news\n" } });
                pushpin.publish("poll", format).await;
            }
        }
    }
    passed("long-polling holds, answered by a publish");
}

/// Pushpin's handler for tests echoes at `/ws`, and subscribes to a channel. It takes messages whole, within the 8192
/// bytes that it grants.
async fn websockets(pushpin: &Pushpin) {
    let url = format!("ws://{}/ws?channel=sockets", pushpin.address);
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = websocket::connect(&url).await;
        for message in [Message::text(format!("hello {number}")), Message::binary(vec![1; 8_000])] {
            within(client.send(message.clone())).await.unwrap();
            assert_eq!(within(client.next()).await.unwrap().unwrap(), message);
        }
        clients.push(client);
    }
    pushpin.publish("sockets", json!({"ws-message": {"content": "to all"}})).await;
    for client in &mut clients {
        assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("to all"));
        within(client.close(None)).await.unwrap();
        while let Some(Ok(message)) = within(client.next()).await {
            assert!(message.is_close(), "{message}");
        }
    }
    passed("WebSockets echo, get a publish, and close");
}

async fn stream_to_many(pushpin: &mut Pushpin) {
    let mut clients = hold_streams(pushpin, "many", CLIENTS).await;
    for text in ["one\n", "two\n", "three\n"] {
        publish_to_streams(pushpin, "many", text).await;
    }
    for client in &mut clients {
        body_goes_on(client, "one\ntwo\nthree\n").await;
    }
    passed("http-stream holds: each of many clients gets each publish once and in order");
}

async fn one_client_leaves(pushpin: &mut Pushpin, holders: &mut Holders) {
    let mut clients = hold_streams(pushpin, "leaving", 3).await;
    holders.until("leaving", 3).await;
    drop(clients.pop());
    holders.until("leaving", 2).await;
    publish_to_streams(pushpin, "leaving", "to two\n").await;
    pushpin.lines("publish channel=leaving receivers=2", 1).await;
    for client in &mut clients {
        body_goes_on(client, "to two\n").await;
    }
    passed("a client that leaves is noticed");
}

async fn all_clients_leave(pushpin: &mut Pushpin, holders: &mut Holders) {
    let clients = hold_streams(pushpin, "crowd", CLIENTS).await;
    holders.until("crowd", CLIENTS).await;
    drop(clients);
    holders.until("crowd", 0).await;
    passed("many clients that leave in one moment are noticed, each");
}

async fn stop(mut pushpin: Pushpin) {
    let mut clients = hold_streams(&mut pushpin, "last", 3).await;
    let status = pushpin.stop().await;
    assert!(status.success(), "{status}");
    for client in &mut clients {
        // What they got is whole; if it was ended in order, there is the last chunk.
        let rest = client.rest().await;
        assert!(rest.is_empty() || rest == "0\r\n\r\n", "{rest:?}");
    }
    passed("SIGTERM ends all of it");
}

/// Clients whose streams are held on a channel.
async fn hold_streams(pushpin: &mut Pushpin, channel: &str, count: usize) -> Vec<Client> {
    let path = format!("/stream?channel={channel}");
    let mut clients = Vec::new();
    while clients.len() < count {
        let asking = HOLDS_AT_ONCE_MAX.min(count - clients.len());
        let first = clients.len();
        for _ in 0..asking {
            clients.push(Client::get(pushpin.address, &path).await);
        }
        for client in &mut clients[first..] {
            let head = client.until("\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            body_goes_on(client, "[stream opened]\n").await;
        }
        pushpin.lines(&format!("{path} channel={channel}"), asking).await;
    }
    clients
}

async fn publish_to_streams(pushpin: &Pushpin, channel: &str, text: &str) {
    pushpin.publish(channel, json!({ "http-stream": { "content": text } })).await;
}

/// Reads as many chunks as it takes to get this text.
async fn body_goes_on(client: &mut Client, text: &str) {
    let mut body = Vec::new();
    while body.len() < text.len() {
        let chunk = chunk(client).await;
        assert!(!chunk.is_empty(), "the body ends");
        body.extend(chunk);
    }
    assert_eq!(String::from_utf8(body).unwrap(), text);
}

/// Reads a chunk; the last one is empty (RFC 9112 §7.1).
async fn chunk(connection: &mut Client) -> Vec<u8> {
    let size = connection.until("\r\n").await;
    let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
    let mut chunk = connection.exactly(size + 2).await;
    chunk.truncate(size);
    chunk
}

/// How many hold each channel, by what Pushpin publishes about it.
struct Holders {
    subscriber: Peer,
    counts: BTreeMap<String, u64>,
}

impl Holders {
    /// Subscribes, and waits until it hears something.
    async fn start(pushpin: &Pushpin) -> Holders {
        let connect = [pushpin.stats_spec()];
        let subscriber =
            Peer::with(json!({ "type": "SUB", "connect": connect, "subscribe": [""] })).await;
        let mut holders = Holders { subscriber, counts: BTreeMap::new() };
        while !holders.hear(100).await {
            Client::get(pushpin.address, "/").await.response().await;
        }
        holders
    }

    /// Waits until so many hold a channel.
    async fn until(&mut self, channel: &str, count: usize) {
        while self.counts.get(channel) != Some(&(count as u64)) {
            let is_news = self.hear(60_000).await;
            assert!(is_news, "{channel} is not held by {count}: {:?}", self.counts);
        }
    }

    /// Takes one piece of news, if it comes in time.
    async fn hear(&mut self, timeout_ms: u64) -> bool {
        let ask = json!({ "do": "recv", "name": "s", "timeout": timeout_ms });
        let answer = self.subscriber.ask(ask).await;
        let Some(frame) = answer["messages"][0][0].as_str() else { return false };
        let text = String::from_utf8(unhex(frame)).unwrap();
        if let Some(news) = text.strip_prefix("sub J") {
            let news: Value = serde_json::from_str(news).unwrap();
            // It is `unavailable` when there are none.
            let count = news["subscribers"].as_u64().unwrap_or(0);
            self.counts.insert(news["channel"].as_str().unwrap().into(), count);
        }
        true
    }
}
