//! Clients and handlers that send nonsense, and handlers that die.

use std::time::Instant;

use zhttp::Kind;

use crate::client::Client;
use crate::handler::Handler;
use crate::mutator::Mutator;
use crate::process::EdgeProcess;

#[tokio::test]
async fn nonsense_of_clients_is_answered() {
    let edge = EdgeProcess::start(&[]).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)), 414),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000)), 431),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        let mut client = Client::connect(edge.address).await;
        client.send(request).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{}", response.head);
        assert_eq!(client.rest().await, "");
    }
}

/// An answer reaches also a client that is still sending.
#[tokio::test]
async fn an_early_answer_is_read() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n").await;
    let request = handler.request().await;
    handler.say(&request.id, (413, b"too large"), false).await;
    client.send(vec![b'x'; 1_000_000]).await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (413, "too large"));
}

#[tokio::test]
async fn a_killed_handler_hands_its_requests_on() {
    let edge = EdgeProcess::start(&[]).await;
    let mut first = Handler::greeting(&edge, "first").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = first.next().await;
    let mut second = Handler::greeting(&edge, "second").await;
    first.kill().await;
    let again = second.next_of(Kind::Data).await;
    assert_eq!(again.bytes, request.bytes, "unchanged");
    second.say(&again.id, (200, b"from the second"), false).await;
    assert_eq!(client.response().await.text(), "from the second");
}

#[tokio::test]
async fn a_handler_killed_in_its_answer_is_a_502_or_a_cut_answer() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::greeting(&edge, "h").await;
    let mut awaits = Client::get(edge.address, "/1").await;
    let first = handler.next().await;
    let mut reads = Client::get(edge.address, "/2").await;
    let second = handler.next().await;
    let alive = handler.packet(&first.id, None, Kind::KeepAlive, |_| {});
    handler.send_stream(&alive).await;
    handler.say(&second.id, (200, b"x"), true).await;
    reads.until("x\r\n").await;
    handler.kill().await;
    let response = awaits.response().await;
    assert_eq!(response.status, 502);
    assert!(response.head.contains("\r\nRetry-After: 0\r\n"), "{}", response.head);
    assert_eq!(reads.rest().await, "");
}

/// (`mutated.rs` has more of it.)
#[tokio::test]
async fn nonsense_of_handlers_does_not_fill_the_log() {
    let mut edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    let started = Instant::now();
    let packets = [
        handler.packet("0-9-99", Some(0), Kind::Data, |fields| {
            fields.int("code", 200);
            fields.bytes("body", b"x");
        }),
        handler.packet("", None, Kind::Hello, |fields| {
            fields.int("ttl", 1);
            fields.int("incarnation", 1);
        }),
        handler.packet("1-9-99", None, Kind::Hold, |fields| fields.int("expires", 1)),
        handler.packet("", None, Kind::Heads, |fields| fields.list("heads", |_| {})),
    ];
    let mut mutator = Mutator::new(0);
    for number in 0..2_000 {
        let spoiled = mutator.bytes(&packets[number % packets.len()]);
        if number % 2 == 0 {
            handler.publish(&spoiled).await;
        } else {
            handler.send_stream(&spoiled).await;
        }
    }
    handler.answer(&request.id, "still here").await;
    assert_eq!(client.response().await.text(), "still here");
    client.ask("/").await;
    let request = handler.request().await;
    handler.answer(&request.id, "and on").await;
    assert_eq!(client.response().await.text(), "and on");
    let refused = edge.lines_now("refused").len();
    // The hub and each of two workers has a line of its own.
    let lines_max = 3 * (started.elapsed().as_secs() as usize + 2);
    assert!((1..=lines_max).contains(&refused), "{refused} lines of at most {lines_max}");
}
