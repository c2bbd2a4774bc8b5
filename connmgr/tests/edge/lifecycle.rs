//! Starting and stopping.

use crate::client::Client;
use crate::handler::Handler;
use crate::process::{EdgeProcess, fails};

#[tokio::test]
async fn a_drain_lets_answers_through() {
    let mut edge = EdgeProcess::start(&["--drain-timeout=60"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut idle = Client::connect(edge.address).await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    edge.signal("-TERM");
    edge.line("stopping").await;
    assert_eq!(idle.rest().await, "", "who has nothing asked is sent away");
    drop(idle);
    handler.answer(&request.id, "in time").await;
    let response = client.response().await;
    assert_eq!(response.text(), "in time");
    assert!(response.head.contains("Connection: close"));
    drop(client);
    edge.line("stopped").await;
    assert_eq!(edge.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_takes_those_who_wait_to_be_accepted() {
    let mut edge = EdgeProcess::start(&["--drain-timeout=60"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    edge.signal("-STOP");
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::get(edge.address, "/").await);
    }
    edge.signal("-TERM");
    edge.signal("-CONT");
    for _ in &clients {
        let request = handler.request().await;
        handler.answer(&request.id, "in time").await;
    }
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "in time");
    }
    drop(clients);
    assert_eq!(edge.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_has_an_end_and_is_told() {
    for signal in ["-INT", "-QUIT"] {
        let mut edge = EdgeProcess::start(&["--drain-timeout=0.05"]).await;
        let mut handler = Handler::plain(&edge, "h").await;
        let mut client = Client::get(edge.address, "/").await;
        let request = handler.request().await;
        handler.say(&request.id, (200, b"x"), true).await;
        client.until("x\r\n").await;
        edge.signal(signal);
        assert_eq!(edge.wait().await.code(), Some(0));
        assert_eq!(client.rest().await, "", "the answer is cut, and looks it");
        assert_eq!(handler.next_of(zhttp::Kind::Cancel).await.id, request.id);
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut edge = EdgeProcess::start(&["--drain-timeout=3600"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let _client = Client::get(edge.address, "/").await;
    handler.request().await;
    edge.signal("-TERM");
    edge.line("stopping").await;
    edge.signal("-TERM");
    assert_eq!(edge.wait().await.code(), Some(1));
}

#[tokio::test]
async fn wrong_arguments_are_named() {
    for (argument, name, exit_code) in [
        ("--listen=nowhere", "nowhere", 1),
        ("--workers=0", "workers", 1),
        ("--zclient-stream=udp://x", "udp://x", 1),
        ("--stream-timeout=0", "stream-timeout", 1),
        ("--no-such-option", "no-such-option", 2),
        ("--buffer-size=1", "buffer-size", 1),
        ("--id=a b", "a b", 1),
    ] {
        let (text, code) = fails(&[argument]).await;
        assert_eq!(code, Some(exit_code), "{text}");
        assert!(text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let edge = EdgeProcess::start(&[]).await;
    let address = edge.address.to_string();
    let spec = edge.spec("other");
    let (text, code) = fails(&["--listen", &address, "--zclient-stream", &spec]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}: address in use")), "{text}");
}

#[tokio::test]
async fn sizes_are_printed() {
    let (text, code) = fails(&["--sizes"]).await;
    assert_eq!(code, Some(0));
    assert!(text.contains("connection: ") && text.contains("member: "), "{text}");
}
