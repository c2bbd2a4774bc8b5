//! What clients of held WebSockets say, and its answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use zhttp::hold::{Change, HoldChannel, Message, Said};
use zhttp::{Cursor, Kind};

use super::super::{
    Answer, ClientMessage, ClientMessages, Close, Expires, HeldChannel, Request, Response, Service,
};
use super::{FakeEdge, Got, Tuning, World, base, tuning, within};

/// A service that hears: it tells of what it hears, and answers when it is let.
struct Ear<F> {
    heard: mpsc::UnboundedSender<ClientMessages>,
    gate: Arc<Semaphore>,
    answer: F,
}

impl<F> Service for Ear<F>
where
    F: Fn(&ClientMessages) -> Answer + Send + Sync + 'static,
{
    async fn call(&self, _request: Request) -> Response {
        Response::text(200, "well")
    }

    async fn message(&self, said: ClientMessages) -> Answer {
        let answer = (self.answer)(&said);
        self.heard.send(said).unwrap();
        self.gate.acquire().await.unwrap().forget();
        answer
    }
}

/// An ear, what it hears, and its gate, which is open for so many.
fn ear<F>(
    open: usize,
    answer: F,
) -> (Ear<F>, mpsc::UnboundedReceiver<ClientMessages>, Arc<Semaphore>) {
    let (heard, is_heard) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(open));
    (Ear { heard, gate: Arc::clone(&gate), answer }, is_heard, gate)
}

fn say(text: &str) -> Answer {
    Answer { bodies: vec![text.to_owned()], ..Answer::default() }
}

impl FakeEdge {
    async fn said(&self, id: &str, number: u64, bodies: &[(&[u8], bool)]) {
        let message =
            Message { path: "/ws/", number, context: b"u=7", channels: 3, bodies: Said::default() };
        let fields =
            |fields: &mut zhttp::Fields<'_, '_>| message.write(fields, bodies.iter().copied());
        self.send(Kind::Message, &[(id, None)], fields).await;
    }

    /// The next packet, which closes this connection.
    async fn closed(&mut self, id: &str) -> (Option<u16>, String) {
        let got = self.recv().await;
        assert_eq!((got.kind(), got.id()), (Kind::Close, (id.to_owned(), None)));
        (got.payload().code, got.body().to_owned())
    }

    /// The next packet, which changes the hold of this connection.
    async fn changed(&mut self, id: &str) -> Got {
        let got = self.recv().await;
        assert_eq!((got.kind(), got.id()), (Kind::Hold, (id.to_owned(), None)));
        got
    }
}

#[tokio::test]
async fn what_is_said_is_heard_and_answered_with_one_packet() {
    let (ear, mut heard, _gate) = ear(1, |_: &ClientMessages| Answer {
        remove: vec!["acme:old".to_owned()],
        add: vec![HeldChannel {
            ended: true,
            ..HeldChannel::new("acme:news", Cursor::new(1_736_467_200_000, 2))
        }],
        context: Some(Bytes::from_static(b"u=8")),
        expires: Some(Expires { after: Some(Duration::from_millis(60_001)), code: 3000 }),
        bodies: vec!["one".to_owned(), "two".to_owned()],
        close: None,
    });
    let mut world = World::new(ear).await;
    world.edge().said("0-0-1", 7, &[(b"a", false), (b"\xff", true), (b"", false)]).await;
    let said = |body: &'static [u8], binary| ClientMessage { body: body.into(), binary };
    let expected = ClientMessages {
        edge: 0,
        id: "0-0-1".into(),
        path: "/ws/".to_owned(),
        number: 7,
        context: "u=7".into(),
        channels: 3,
        bodies: vec![said(b"a", false), said(b"\xff", true), said(b"", false)],
    };
    assert_eq!(within(heard.recv()).await.unwrap(), expected);
    let got = world.edge().changed("0-0-1").await;
    let packet = got.packet();
    let change = Change::read(&packet).unwrap();
    let add =
        HoldChannel { name: "acme:news", cursor: Cursor::new(1_736_467_200_000, 2), ended: true };
    assert_eq!(change.add.collect::<Vec<_>>(), [add]);
    assert_eq!(change.remove.collect::<Vec<_>>(), ["acme:old"]);
    assert_eq!(change.bodies.collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((change.context, change.answers), (Some(&b"u=8"[..]), Some(7)));
    assert_eq!((change.expires_s, change.expires_code), (Some(61), Some(3000)));
    world.until(|stats| stats.requests_in_flight == 0).await;
    let stats = world.attached.stats();
    assert_eq!((stats.messages_total, stats.requests_total), (1, 0));
}

#[tokio::test]
async fn an_answer_changes_nothing_that_it_does_not_name() {
    let answers = |said: &ClientMessages| match said.number {
        1 => Answer::default(),
        2 => Answer { expires: Some(Expires { after: None, code: 0 }), ..Answer::default() },
        _ => Answer { close: Some(Close { code: 3500, reason: "no".to_owned() }), ..say("last") },
    };
    let (ear, _heard, _gate) = ear(3, answers);
    let mut world = World::new(ear).await;
    let edge = world.edge();
    edge.said("1", 1, &[]).await;
    let got = edge.changed("1").await;
    let nothing = Change { answers: Some(1), ..Change::default() };
    assert_eq!(Change::read(&got.packet()).unwrap(), nothing);
    edge.said("1", 2, &[]).await;
    let got = edge.changed("1").await;
    let never = Change { expires_s: Some(0), expires_code: Some(0), ..nothing };
    assert_eq!(Change::read(&got.packet()).unwrap(), Change { answers: Some(2), ..never });
    edge.said("1", 3, &[]).await;
    let got = edge.changed("1").await;
    assert_eq!(Change::read(&got.packet()).unwrap().bodies.collect::<Vec<_>>(), ["last"]);
    assert_eq!(edge.closed("1").await, (Some(3500), "no".to_owned()));
}

#[tokio::test]
async fn who_does_not_listen_closes() {
    let mut world = World::new(async |_: Request| Response::new(200)).await;
    world.edge().said("1", 1, &[(b"hello", false)]).await;
    world.edge().changed("1").await;
    assert_eq!(world.edge().closed("1").await, (Some(1003), String::new()));
}

#[tokio::test]
async fn a_panic_and_an_answer_that_cannot_be_close_one_connection() {
    let answers = |said: &ClientMessages| match said.number {
        1 => panic!("a bug"),
        2 => say(&"x".repeat(1024 * 1024 + 1)),
        3 => Answer { context: Some(vec![0; 1025].into()), ..Answer::default() },
        4 => {
            let add = (0..129).map(|n| HeldChannel::new(format!("o:{n}"), Cursor::START));
            Answer { add: add.collect(), ..Answer::default() }
        }
        5 => Answer { remove: vec!["a b".to_owned()], ..Answer::default() },
        6 => Answer::close(1005, ""),
        _ => say(&"x".repeat(1024 * 1024)),
    };
    let (ear, _heard, _gate) = ear(10, answers);
    let mut world = World::new(ear).await;
    let edge = world.edge();
    for number in 1..=6 {
        edge.said("bad", number, &[]).await;
        assert_eq!(edge.closed("bad").await, (Some(1011), String::new()), "{number}");
    }
    edge.said("good", 7, &[]).await;
    edge.changed("good").await;
    assert_eq!(world.attached.stats().requests_panicked_total, 1);
}

#[tokio::test]
async fn who_has_too_much_to_do_sends_the_client_elsewhere() {
    let (ear, mut heard, gate) = ear(0, |_: &ClientMessages| say("at last"));
    let tuning = Tuning { requests_in_flight_max: 1, ..tuning() };
    let mut world = World::tuned(ear, tuning).await;
    let edge = world.edge();
    edge.said("1", 1, &[]).await;
    within(heard.recv()).await.unwrap();
    edge.said("2", 1, &[]).await;
    assert_eq!(edge.closed("2").await, (Some(1013), String::new()));
    // Requests and messages have one limit.
    edge.get("3", "/", 8192).await;
    assert_eq!(edge.expect(Kind::Data, "3", 0).await.payload().code, Some(503));
    gate.add_permits(1);
    edge.changed("1").await;
    world.until(|stats| stats.requests_in_flight == 0).await;
    assert_eq!(world.attached.stats().requests_refused_total, 2);
}

#[tokio::test]
async fn an_answer_that_finds_no_room_sends_the_client_elsewhere() {
    let answers = |said: &ClientMessages| say(&"x".repeat(said.number as usize));
    let (ear, _heard, _gate) = ear(3, answers);
    let tuning = Tuning { waiting_answers_bytes_max: 1000, ..tuning() };
    let mut world = World::tuned(ear, tuning).await;
    let edge = world.edge();
    edge.said("1", 600, &[]).await;
    edge.changed("1").await;
    edge.said("2", 1000, &[]).await;
    assert_eq!(edge.closed("2").await, (Some(1013), String::new()));
    // The room of the first was given back.
    world.until(|stats| stats.requests_in_flight == 0).await;
    let edge = world.edge();
    edge.said("3", 601, &[]).await;
    edge.changed("3").await;
    let stats = world.attached.stats();
    assert_eq!((stats.requests_refused_total, stats.requests_panicked_total), (1, 0));
}

#[tokio::test]
async fn what_comes_twice_is_done_twice() {
    let (ear, mut heard, gate) = ear(0, |_: &ClientMessages| say("well"));
    let mut world = World::new(ear).await;
    for _ in 0..2 {
        world.edge().said("1", 4, &[(b"x", false)]).await;
    }
    let first = within(heard.recv()).await.unwrap();
    assert_eq!(within(heard.recv()).await.unwrap(), first);
    gate.add_permits(2);
    let first = world.edge().changed("1").await;
    assert_eq!(world.edge().changed("1").await.0, first.0);
}

#[tokio::test]
async fn a_lost_link_breaks_nothing_off_but_its_answer_is_for_nobody() {
    let (ear, mut heard, gate) = ear(0, |_: &ClientMessages| say("late"));
    let mut world = World::new(ear).await;
    world.edge().said("0-0-1", 1, &[]).await;
    within(heard.recv()).await.unwrap();
    world.edges.remove(0).close().await;
    let mut edge = FakeEdge::bind(&base(&world.dir, 0)).await;
    edge.greeted().await;
    world.edges.push(edge);
    assert_eq!(world.attached.stats().requests_in_flight, 1);
    gate.add_permits(1);
    world.until(|stats| stats.requests_in_flight == 0).await;
    assert_eq!(world.attached.stats().requests_gone_total, 1);
    // This edge may have another connection of that name, which is asked something else.
    world.edge().said("0-0-1", 1, &[]).await;
    gate.add_permits(1);
    world.edge().changed("0-0-1").await;
    world.edge().get("1", "/", 8192).await;
    world.edge().expect(Kind::Data, "1", 0).await;
}

#[tokio::test]
async fn who_leaves_answers_what_it_has() {
    let (ear, mut heard, gate) = ear(0, |_: &ClientMessages| say("well"));
    let mut world = World::new(ear).await;
    world.edge().said("1", 1, &[]).await;
    within(heard.recv()).await.unwrap();
    let World { attached, mut edges, dir } = world;
    let leaving = tokio::spawn(attached.shutdown(Duration::MAX));
    assert_eq!(edges[0].recv().await.kind(), Kind::Bye);
    assert!(!leaving.is_finished());
    gate.add_permits(1);
    edges[0].changed("1").await;
    within(leaving).await.unwrap();
    drop(dir);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_counted() {
    let (ear, _heard, _gate) = ear(0, |_: &ClientMessages| Answer::default());
    let mut world = World::new(ear).await;
    let edge = world.edge();
    edge.send(Kind::Message, &[("1", None)], |fields| fields.int("number", 1)).await;
    edge.said("2", 0, &[]).await;
    let nobody = |fields: &mut zhttp::Fields<'_, '_>| {
        let bodies = Said::default();
        let message = Message { path: "/ws/", number: 1, context: b"", channels: 0, bodies };
        message.write(fields, std::iter::empty());
    };
    edge.send(Kind::Message, &[], nobody).await;
    edge.send(Kind::Message, &[("1", None), ("2", None)], nobody).await;
    world.until(|stats| stats.packets_bad_total == 4).await;
    assert_eq!(world.attached.stats().messages_total, 0);
}
