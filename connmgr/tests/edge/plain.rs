//! What a plain handler sees and says, as with Condure.

use zhttp::Kind;
use zhttp::hold::Hello;

use crate::client::Client;
use crate::handler::Handler;
use crate::peers::within;
use crate::process::EdgeProcess;

#[tokio::test]
async fn hello() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::get(edge.address, "/path?query").await;
    let request = handler.request().await;
    assert_eq!(request.uri, "http://x.com/path?query");
    handler.answer(&request.id, "hello there").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "hello there"));
    assert!(response.head.contains("\r\nDate: "), "{}", response.head);
    // The connection goes on.
    client.ask("/next").await;
    let request = handler.request().await;
    handler.answer(&request.id, "again").await;
    assert_eq!(client.response().await.text(), "again");
}

#[tokio::test]
async fn who_answers_need_not_be_who_was_asked() {
    let edge = EdgeProcess::start(&[]).await;
    let mut asked = Handler::plain(&edge, "asked").await;
    let mut responder = Handler::responder_at(&edge.spec("zhttp"), "responder").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = asked.request().await;
    asked.kill().await;
    responder.answer(&request.id, "from elsewhere").await;
    assert_eq!(client.response().await.text(), "from elsewhere");
}

#[tokio::test]
async fn who_greets_but_cannot_be_reached_is_not_waited_for() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let serves = zhttp::hold::Serves::default();
    let hello = Hello { ttl_ms: 60_000, incarnation: 1, feeds: true, serves, requests_max: 0 };
    let mut packet = Vec::new();
    zhttp::hold::write_packet(&mut packet, b"ghost", Kind::Hello, |fields| {
        hello.write(fields, &[("*", "/")]);
    });
    handler.publish(&packet).await;
    // What comes behind it on the same way is answered: so it has arrived.
    let probe = handler.packet("0-99-1", None, Kind::KeepAlive, |_| {});
    handler.publish(&probe).await;
    handler.next_of(Kind::Cancel).await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    handler.answer(&request.id, "from one who is there").await;
    assert_eq!(client.response().await.text(), "from one who is there");
}

#[tokio::test]
async fn an_answer_in_pieces_is_paid_for_as_it_is_read() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    assert_eq!(request.credits, 8192);
    handler.say(&request.id, (200, b"one, "), true).await;
    assert!(client.until("one, ").await.contains("Transfer-Encoding: chunked"));
    assert_eq!(handler.next_of(Kind::Credit).await.credits, 5);
    handler.say(&request.id, (0, b"two"), false).await;
    client.until("two\r\n0\r\n\r\n").await;
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test]
async fn a_large_upload_arrives_byte_for_byte() {
    let edge = EdgeProcess::start(&["--buffer-size=4096"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let sent = pattern(1_000_000);
    let mut client = Client::connect(edge.address).await;
    let body = sent.clone();
    let client = tokio::spawn(async move {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        client.send(&body).await;
        client.response().await
    });
    let request = handler.request().await;
    assert!(request.more);
    let (mut got, mut granted) = (Vec::new(), 0);
    loop {
        if granted - got.len() < 20_000 {
            granted += 50_000;
            let credit = handler
                .packet(&request.id, None, Kind::Credit, |fields| fields.int("credits", 50_000));
            handler.send_stream(&credit).await;
        }
        let piece = handler.next_of(Kind::Data).await;
        assert!(piece.body.len() <= 4096);
        got.extend(piece.body);
        assert!(got.len() <= granted, "no more than the credits allow");
        if !piece.more {
            break;
        }
    }
    assert!(got == sent, "the bytes differ");
    handler.say(&request.id, (204, b""), false).await;
    assert_eq!(within(client).await.unwrap().status, 204);
}

#[tokio::test]
async fn a_large_download_arrives_byte_for_byte() {
    let edge = EdgeProcess::start(&["--buffer-size=4096"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let sent = pattern(1_000_000);
    let mut client = Client::get(edge.address, "/").await;
    let client = tokio::spawn(async move { client.response().await });
    let request = handler.request().await;
    let (mut at, mut credits) = (0, request.credits);
    while at < sent.len() {
        if credits == 0 {
            credits += handler.next_of(Kind::Credit).await.credits;
        }
        let len = credits.min(sent.len() - at);
        let code = if at == 0 { 200 } else { 0 };
        handler.say(&request.id, (code, &sent[at..at + len]), at + len < sent.len()).await;
        at += len;
        credits -= len;
    }
    let response = within(client).await.unwrap();
    assert!(response.body == sent, "the bytes differ");
}

/// Answers everything with its name.
async fn serve(mut handler: Handler, name: &'static str) {
    loop {
        let request = handler.request().await;
        handler.answer(&request.id, name).await;
    }
}

#[tokio::test]
async fn two_handlers_are_asked_in_turn() {
    let edge = EdgeProcess::start(&[]).await;
    for name in ["one", "two"] {
        tokio::spawn(serve(Handler::plain(&edge, name).await, name));
    }
    let mut client = Client::connect(edge.address).await;
    let mut answers = Vec::new();
    // Until both are known to the edge, the first is asked alone.
    while !answers.contains(&"two".to_owned()) {
        client.ask("/").await;
        answers.push(client.response().await.text().to_owned());
    }
    for turn in 0..20 {
        client.ask("/").await;
        let expected = if turn % 2 == 0 { "one" } else { "two" };
        assert_eq!(client.response().await.text(), expected, "{answers:?}, then {turn}");
    }
}

#[tokio::test]
async fn a_request_waits_for_a_handler() {
    let edge = EdgeProcess::start(&["--handler-wait=60"]).await;
    let mut client = Client::get(edge.address, "/").await;
    let mut handler = Handler::plain(&edge, "h").await;
    let request = handler.request().await;
    handler.answer(&request.id, "at last").await;
    assert_eq!(client.response().await.text(), "at last");
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever() {
    let edge = EdgeProcess::start(&["--handler-wait=0.05"]).await;
    let mut client = Client::get(edge.address, "/").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (503, "No handler is available"));
    assert!(response.head.contains("\r\nRetry-After: 1\r\n"), "{}", response.head);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn routes_lead_to_groups() {
    let dir = tempfile::tempdir().unwrap();
    let special = format!("ipc://{}/special", dir.path().display());
    let edge = EdgeProcess::start(&["--route", &format!("/special/={special}")]).await;
    let mut usual = Handler::plain(&edge, "usual").await;
    let mut routed = Handler::plain_at(&special, "routed").await;
    let mut one = Client::get(edge.address, "/special/a").await;
    let mut two = Client::get(edge.address, "/other").await;
    let request = routed.request().await;
    assert!(request.uri.ends_with("/special/a"));
    routed.answer(&request.id, "routed").await;
    let request = usual.request().await;
    assert!(request.uri.ends_with("/other"));
    usual.answer(&request.id, "usual").await;
    assert_eq!((one.response().await.text(), two.response().await.text()), ("routed", "usual"));
}

#[tokio::test]
async fn a_client_that_leaves_is_told() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    handler.say(&request.id, (200, b"x"), true).await;
    client.until("x\r\n").await;
    drop(client);
    assert_eq!(handler.next_of(Kind::Cancel).await.id, request.id);
    // Whoever goes on nevertheless is told again.
    handler.say(&request.id, (0, b"y"), true).await;
    assert_eq!(handler.next_of(Kind::Cancel).await.id, request.id);
}

#[tokio::test]
async fn a_client_may_close_its_side() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::get(edge.address, "/").await;
    client.half_close().await;
    let request = handler.request().await;
    handler.answer(&request.id, "hello").await;
    assert!(client.rest().await.ends_with("hello"));
}

#[tokio::test]
async fn clients_may_come_by_unix_sockets() {
    let edge = EdgeProcess::start(&["--listen=clients.sock,local,mode=0600"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let path = edge.dir.path().join("clients.sock");
    let mut client = Client::over(within(tokio::net::UnixStream::connect(path)).await.unwrap());
    client.ask("/").await;
    let request = handler.request().await;
    let packet = zhttp::Packet::parse(&request.bytes).unwrap();
    assert_eq!(packet.payload().unwrap().peer_address, None);
    handler.answer(&request.id, "local").await;
    assert_eq!(client.response().await.text(), "local");
}
