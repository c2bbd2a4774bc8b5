//! Held clients outlive their handlers.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use zhttp::hold::{Change, ChangeLists, Event, EventList, Events, Feed, Format, HoldParams};
use zhttp::{Cursor, Envelope, Id, Kind, Packet};

use crate::client::Client;
use crate::handler::{Got, Handler};
use crate::peers::within;
use crate::process::EdgeProcess;
use crate::websocket;

const CHANNEL: &str = "acme:news";
const EPOCH: u64 = 1_736_467_200_000;

/// Takes the hold of a request, from the beginning of the channel on.
pub async fn hold(handler: &mut Handler, request: &Got) {
    hold_as(handler, request, (Format::Sse, 200, b"retry: 500\n\n")).await;
}

async fn hold_as(handler: &mut Handler, request: &Got, (format, code, body): (Format, u64, &[u8])) {
    let ids = [Id { id: request.id.as_bytes(), seq: Some(0) }];
    let messages = if format == Format::Ws { "/ws/" } else { "" };
    let params = HoldParams { context: b"u=7", notify: true, messages, ..HoldParams::new(format) };
    let mut packet = Vec::new();
    let from = handler.name().as_bytes();
    Envelope { from, ids: &ids, kind: Kind::Data, multi: false }.write_ext(
        &mut packet,
        |ext| params.write(ext, &[(CHANNEL, Cursor::new(EPOCH, 0))]),
        |fields| {
            fields.int("code", code);
            fields.bytes("body", body);
        },
    );
    handler.send_stream(&packet).await;
}

/// Sends one event, the one behind `after`.
pub async fn event(handler: &mut Handler, after: u64, data: &str) {
    let events = EventList::default();
    let events = Events { channel: CHANNEL, epoch: EPOCH, after, prev: None, events };
    let event = Event { data: data.as_bytes(), kind: "stream", end: false };
    let packet = handler.packet("", None, Kind::Events, |fields| {
        events.write(fields, std::iter::once(event));
    });
    handler.send_stream(&packet).await;
}

/// An event as a client gets it.
pub fn event_text(number: u64, data: &str) -> String {
    format!("event: stream\nid: {EPOCH}-{number}\ndata: {data}\n\n")
}

/// What a feeder is asked to feed, and from where.
fn feed(got: &Got) -> Vec<(String, Option<Cursor>)> {
    let packet = Packet::parse(&got.bytes).unwrap();
    Feed::read(&packet).unwrap().map(|(name, head)| (name.to_owned(), head)).collect()
}

#[tokio::test]
async fn a_held_websocket_outlives_its_handler() {
    let edge = EdgeProcess::start(&[]).await;
    let mut first = Handler::greeting(&edge, "first").await;
    let url = format!("ws://{}/ws", edge.address);
    let connecting = tokio::spawn(async move { websocket::connect(&url).await });
    let request = first.next_of(Kind::Data).await;
    hold_as(&mut first, &request, (Format::Ws, 101, b"welcome")).await;
    let mut client = connecting.await.unwrap();
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("welcome"));
    first.next_of(Kind::Feed).await;
    let message = |number: u64, data: &str| {
        let cursor = format!("\"cursor\":\"{EPOCH}-{number}\"");
        Message::text(format!(
            "{{\"type\":\"event\",\"channel\":\"news\",{cursor},\"event\":\"stream\",\"data\":{data}}}"
        ))
    };
    event(&mut first, 0, "1").await;
    assert_eq!(within(client.next()).await.unwrap().unwrap(), message(1, "1"));
    first.kill().await;
    let mut second = Handler::greeting(&edge, "second").await;
    second.next_of(Kind::Feed).await;
    event(&mut second, 0, "1").await;
    event(&mut second, 1, "[2]").await;
    assert_eq!(within(client.next()).await.unwrap().unwrap(), message(2, "[2]"));
    within(client.send(Message::Ping(b"there?"[..].into()))).await.unwrap();
    let pong = Message::Pong(b"there?"[..].into());
    assert_eq!(within(client.next()).await.unwrap().unwrap(), pong);
    within(client.close(None)).await.unwrap();
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::Close(None));
    second.next_of(Kind::Closed).await;
}

/// What a client has said is given to the next handler if the first dies before it has answered, and answered once.
#[tokio::test]
async fn what_a_client_says_outlives_a_handler() {
    let edge = EdgeProcess::start(&[]).await;
    let mut first = Handler::greeting(&edge, "first").await;
    let url = format!("ws://{}/ws/", edge.address);
    let connecting = tokio::spawn(async move { websocket::connect(&url).await });
    let request = first.next_of(Kind::Data).await;
    hold_as(&mut first, &request, (Format::Ws, 101, b"welcome")).await;
    let mut client = connecting.await.unwrap();
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("welcome"));
    within(client.send(Message::text("one"))).await.unwrap();
    let asked = first.next_of(Kind::Message).await;
    within(client.send(Message::text("two"))).await.unwrap();
    first.kill().await;
    let mut second = Handler::greeting(&edge, "second").await;
    let again = second.next_of(Kind::Message).await;
    assert_eq!(again.bytes, asked.bytes, "it is the same");
    let answer = |number: u64, bodies: &'static [&'static str]| {
        let change = Change { answers: Some(number), ..Change::default() };
        let lists = ChangeLists { bodies, ..ChangeLists::default() };
        second.packet(&request.id, None, Kind::Hold, |fields| change.write(fields, &lists))
    };
    let (one, two) = (answer(1, &["first answer"]), answer(2, &["second answer"]));
    second.send_stream(&one).await;
    second.send_stream(&one).await;
    let next = second.next_of(Kind::Message).await;
    let packet = Packet::parse(&next.bytes).unwrap();
    let said = zhttp::hold::Message::read(&packet).unwrap();
    assert_eq!((said.number, said.context, said.path), (2, &b"u=7"[..], "/ws/"));
    assert_eq!(said.bodies.collect::<Vec<_>>(), [(&b"two"[..], false)]);
    second.send_stream(&two).await;
    for text in ["first answer", "second answer"] {
        assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text(text));
    }
    within(client.close(None)).await.unwrap();
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::Close(None));
}

#[tokio::test]
async fn a_feeder_is_killed_and_another_takes_over() {
    let edge = EdgeProcess::start(&[]).await;
    let mut first = Handler::greeting(&edge, "first").await;
    let mut client = Client::get(edge.address, "/events").await;
    let request = first.next_of(Kind::Data).await;
    hold(&mut first, &request).await;
    client.until("retry: 500\n\n\r\n").await;
    let asked = feed(&first.next_of(Kind::Feed).await);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, CHANNEL);
    event(&mut first, 0, "one").await;
    client.until(&event_text(1, "one")).await;

    first.kill().await;
    let mut second = Handler::greeting(&edge, "second").await;
    let asked = feed(&second.next_of(Kind::Feed).await);
    assert_eq!(asked, [(CHANNEL.to_owned(), Some(Cursor::new(EPOCH, 1)))], "where it stands");
    event(&mut second, 0, "one").await;
    event(&mut second, 1, "two").await;
    let got = client.until(&event_text(2, "two")).await;
    assert!(!got.contains("one"), "what came twice is told once: {got}");

    // Another handler writes to the client, and ends the response; the connection goes on.
    let send = second.packet(&request.id, None, Kind::Send, |fields| fields.bytes("body", b"{}"));
    second.send_stream(&send).await;
    client.until("event: control\ndata: {}\n\n").await;
    let close = second.packet(&request.id, None, Kind::Close, |_| {});
    second.send_stream(&close).await;
    client.until("0\r\n\r\n").await;
    assert_eq!(second.next_of(Kind::Closed).await.id, request.id);
    client.ask("/next").await;
    let request = second.next_of(Kind::Data).await;
    second.say(&request.id, (200, b"next"), false).await;
    assert_eq!(client.response().await.text(), "next");
}

#[tokio::test]
async fn a_drain_sends_held_clients_away() {
    let mut edge = EdgeProcess::start(&["--drain-timeout=60"]).await;
    let mut handler = Handler::greeting(&edge, "first").await;
    let mut client = Client::get(edge.address, "/events").await;
    let request = handler.next_of(Kind::Data).await;
    hold(&mut handler, &request).await;
    client.until("retry: 500\n\n\r\n").await;
    edge.signal("-TERM");
    let got = client.rest().await;
    assert!(got.contains("server_draining") && got.ends_with("0\r\n\r\n"), "{got}");
    drop(client);
    assert_eq!(edge.wait().await.code(), Some(0));
}
