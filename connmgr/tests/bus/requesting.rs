//! DEALER: requests of req mode and their answers, to and from REP, ROUTER and DEALER.
//!
//! What PUSH and DEALER have in common is tested for PUSH at length (`pushing.rs`); here it is shown
//! that it holds for the DEALER as well, and what only a socket has that also receives.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use forebay_connmgr::bus::{
    Bus, BusConfig, BusError, HIGH_WATER_MARK, Inbound, REQ_HIGH_WATER_MARK, Refused, ReqSpec,
};
use serde_json::json;
use tempfile::TempDir;

use crate::peers::{hex, within};
use crate::zmtp::{Raw, announcement, frame, garbage};
use crate::{Edge, Peer, config, dealer, drain, spec_in};

/// A bus with these addresses of req mode, and nothing else: req mode is group 0.
fn req_config(specs: &[&ReqSpec]) -> BusConfig {
    BusConfig { req: specs.iter().map(|&spec| spec.clone()).collect(), ..config(&[]) }
}

fn req_in(dir: &TempDir, name: &str) -> ReqSpec {
    format!("ipc://{}/{name}", dir.path().display()).parse().unwrap()
}

/// A peer of some type that connects to an address of req mode. Without a limit of its own: past
/// one, libzmq's REP and ROUTER drop answers without a word, and a test sends more in one go than
/// any handler would.
async fn peer(kind: &str, spec: &ReqSpec) -> Peer {
    let options = json!({"SNDHWM": 0});
    Peer::with(json!({"type": kind, "connect": [spec.address()], "options": options})).await
}

fn echo(count: usize) -> serde_json::Value {
    json!({"do": "echo", "name": "s", "count": count})
}

fn replied(packet: impl Into<Bytes>) -> Inbound {
    Inbound::Replied { packet: packet.into() }
}

impl Edge {
    /// An edge with req mode only.
    async fn open_req() -> (Edge, ReqSpec) {
        let dir = tempfile::tempdir().unwrap();
        let spec = req_in(&dir, "req");
        let bus = Bus::open(req_config(&[&spec])).await.unwrap();
        (Edge::of(bus, dir), spec)
    }

    /// The next answer, passing over all other events.
    async fn reply(&mut self) -> Bytes {
        match self.until(|event| matches!(event, Inbound::Replied { .. })).await {
            Inbound::Replied { packet } => packet,
            event => panic!("{event:?}"),
        }
    }

    /// A request to the only peer, and its answer.
    async fn ask(&mut self, peer: &mut Peer) {
        self.push("T-ask".into()).await;
        peer.tell(echo(1)).await;
        assert_eq!(self.reply().await, "T-ask");
        assert_eq!(peer.answer().await["count"], 1);
    }
}

#[tokio::test]
async fn rep_router_and_dealer_answer() {
    let (mut edge, spec) = Edge::open_req().await;
    for kind in ["REP", "ROUTER", "DEALER"] {
        let mut handler = peer(kind, &spec).await;
        edge.until_pullers(1).await;
        edge.push("T-frames".into()).await;
        edge.bus.flush().await;
        let frames = handler.recv().await;
        match kind {
            "REP" => assert_eq!(frames, [b"T-frames"]),
            "ROUTER" => assert_eq!(frames[1..], [&b""[..], b"T-frames"]),
            _ => assert_eq!(frames, [&b""[..], b"T-frames"]),
        }
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        handler.send(&frames).await;
        assert_eq!(edge.reply().await, "T-frames", "{kind}");
        edge.ask(&mut handler).await;
        handler.kill().await;
        edge.until_pullers(0).await;
    }
}

#[tokio::test]
async fn two_reps_are_served_in_turn() {
    let (mut edge, spec) = Edge::open_req().await;
    let (mut one, mut two) = (peer("REP", &spec).await, peer("REP", &spec).await);
    edge.until_pullers(2).await;
    one.tell(echo(50)).await;
    two.tell(echo(50)).await;
    for number in 0..100 {
        edge.push(format!("T{number}").into()).await;
    }
    let mut numbers = Vec::new();
    for _ in 0..100 {
        numbers.push(String::from_utf8(edge.reply().await.into()).unwrap());
    }
    numbers.sort_by_key(|number| number[1..].parse::<u32>().unwrap());
    assert_eq!(numbers, (0..100).map(|number| format!("T{number}")).collect::<Vec<_>>());
    assert_eq!((one.answer().await["count"].clone(), two.answer().await["count"].clone()), {
        (json!(50), json!(50))
    });
}

#[tokio::test]
async fn without_a_peer_the_request_comes_back() {
    let (mut edge, spec) = Edge::open_req().await;
    for group in [0, 1] {
        let refused = edge.bus.try_push(group, "T".into());
        assert_eq!(refused, Err(Refused::NoPeer("T".into())), "{group}");
    }
    assert_eq!(edge.bus.try_route(b"h", "T".into()), Err(Refused::NoPeer("T".into())));
    let one = peer("REP", &spec).await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 1 });
    let two = peer("ROUTER", &spec).await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 2 });
    one.kill().await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 1 });
    two.kill().await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 0 });
    assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer("T".into())));
}

/// What a stopped handler takes is bounded, and all of it is answered when it goes on.
#[tokio::test]
async fn a_stalled_rep_fills_up_and_room_is_told() {
    let hwm = REQ_HIGH_WATER_MARK as usize;
    let (mut edge, spec) = Edge::open_req().await;
    let mut stalled = peer("REP", &spec).await;
    edge.until_pullers(1).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 16 * 1024]);
    let taken = edge.fill(|bus| bus.try_push(0, packet.clone())).await;
    assert!((hwm..3 * hwm).contains(&taken), "{taken}");
    assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::Full("T".into())));
    stalled.signal("-CONT");
    stalled.tell(echo(taken)).await;
    let (mut answered, mut ready) = (0, 0);
    while answered < taken || ready == 0 {
        match edge.recv().await {
            Inbound::Replied { packet: answer } => {
                assert_eq!(answer, packet);
                answered += 1;
            }
            Inbound::PushReady { group: 0 } => ready += 1,
            event => panic!("{event:?}"),
        }
    }
    assert_eq!((answered, ready), (taken, 1));
    assert_eq!(edge.bus.try_push(0, "T".into()), Ok(()));
}

#[tokio::test]
async fn one_of_two_reps_stalls_and_the_other_gets_on() {
    const ANSWERS: usize = 4_000;
    let (mut edge, spec) = Edge::open_req().await;
    let (stalled, mut other) = (peer("REP", &spec).await, peer("REP", &spec).await);
    edge.until_pullers(2).await;
    stalled.signal("-STOP");
    other.tell(echo(ANSWERS)).await;
    let packet = Bytes::from(vec![b'x'; 4 * 1024]);
    let (mut sent, mut answered) = (0, 0);
    while answered < ANSWERS {
        match edge.bus.try_push(0, packet.clone()) {
            Ok(()) => {
                sent += 1;
                edge.bus.flush().await;
            }
            Err(refused) => {
                assert!(matches!(refused, Refused::Full(_)), "{refused:?}");
                answered += usize::from(matches!(edge.recv().await, Inbound::Replied { .. }));
            }
        }
    }
    // Of what is not answered each of the two has our queue full, its own, and what the kernel keeps.
    let queues = (REQ_HIGH_WATER_MARK + HIGH_WATER_MARK) as usize;
    assert!(sent - answered < 3 * queues, "{sent}");
    stalled.kill().await;
    edge.until_pullers(1).await;
    assert_eq!(other.answer().await["count"], ANSWERS);
}

/// A handler that is killed takes its requests with it; the one that comes in its place gets those
/// that come then.
#[tokio::test]
async fn a_rep_is_killed_and_comes_back() {
    let (mut edge, spec) = Edge::open_req().await;
    for _ in 0..5 {
        let mut handler = peer("REP", &spec).await;
        edge.until_pullers(1).await;
        edge.ask(&mut handler).await;
        for _ in 0..50 {
            edge.push("T-lost".into()).await;
        }
        edge.bus.flush().await;
        assert_eq!(handler.recv().await, [b"T-lost"]);
        handler.kill().await;
        edge.until_pullers(0).await;
        assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer("T".into())));
    }
}

#[tokio::test]
async fn a_stalled_rep_is_killed_while_a_send_waits() {
    let (mut edge, spec) = Edge::open_req().await;
    let stalled = peer("REP", &spec).await;
    edge.until_pullers(1).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 16 * 1024]);
    edge.fill(|bus| bus.try_push(0, packet.clone())).await;
    stalled.kill().await;
    edge.until_pullers(0).await;
    assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer("T".into())));
    let mut next = peer("REP", &spec).await;
    edge.until_pullers(1).await;
    edge.ask(&mut next).await;
}

#[tokio::test]
async fn both_framings_are_taken_and_others_told() {
    let (mut edge, spec) = Edge::open_req().await;
    let mut handler = peer("DEALER", &spec).await;
    edge.until_pullers(1).await;
    let malformed: [&[&[u8]]; 5] =
        [&[b""], &[b"", b""], &[b"", b"T", b"x"], &[b"x", b"T"], &[b"x", b""]];
    for frames in malformed {
        handler.send(frames).await;
        let event = edge.recv().await;
        assert!(matches!(event, Inbound::Malformed { peer: None, .. }), "{event:?} {frames:?}");
    }
    handler.send(&[b"", b"T-1"]).await;
    assert_eq!(edge.recv().await, replied("T-1"));
    handler.send(&[b"T-2"]).await;
    assert_eq!(edge.recv().await, replied("T-2"));
    edge.ask(&mut handler).await;
}

#[tokio::test]
async fn greetings_of_garbage_and_frames_too_large_harm_nobody() {
    let (mut edge, spec) = Edge::open_req().await;
    let mut good = peer("REP", &spec).await;
    edge.until_pullers(1).await;
    for bytes in garbage() {
        let mut bad = Raw::connect(spec.address()).await;
        bad.write(&bytes).await;
        bad.read_to_end().await;
        edge.ask(&mut good).await;
    }
    for announced in [1 << 40, u64::MAX] {
        let mut bad = Raw::dealer(spec.address(), "").await;
        edge.until_pullers(2).await;
        bad.write(&frame(1, b"")).await;
        bad.write(&announcement(announced)).await;
        bad.read_to_end().await;
        edge.until_pullers(1).await;
        edge.ask(&mut good).await;
    }
}

/// More than any queue holds, and then the end of the connection: first all answers, in their order,
/// then the loss.
#[tokio::test]
async fn a_loss_comes_after_the_last_answer() {
    const ANSWERS: usize = 5_000;
    let (mut edge, spec) = Edge::open_req().await;
    let mut handler = peer("DEALER", &spec).await;
    edge.until_pullers(1).await;
    let prefix = [String::new(), hex(b"T")];
    handler.tell(json!({"do": "number", "name": "s", "prefix": prefix, "count": ANSWERS})).await;
    handler.tell(json!({"do": "close", "name": "s"})).await;
    for number in 0..ANSWERS {
        assert_eq!(edge.recv().await, replied(format!("T{number}")));
    }
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 0 });
}

/// A bus with both modes: req mode is the group behind the others, and nobody who sends without a
/// pause holds up another, whichever socket it is on.
#[tokio::test]
async fn both_modes_have_their_turn() {
    const REQ: usize = 2;
    let dir = tempfile::tempdir().unwrap();
    let (a, b, req) = (spec_in(&dir, "a"), spec_in(&dir, "b"), req_in(&dir, "a"));
    let mut config = config(&[&[a.base()], &[b.base()]]);
    config.req = vec![req.clone()];
    let mut edge = Edge::of(Bus::open(config).await.unwrap(), dir);
    assert_eq!(edge.bus.try_push(REQ, "T".into()), Err(Refused::NoPeer("T".into())));

    let (mut rep, mut stream) = (peer("REP", &req).await, dealer(&a, "calm").await);
    edge.until_joined("calm").await;
    while edge.bus.push_peers(REQ) != 1 {
        edge.until(|event| *event == Inbound::PushPeers { group: REQ, count: 1 }).await;
    }
    assert_eq!((edge.bus.push_peers(0), edge.bus.push_peers(1)), (0, 0));

    let (mut req_flood, mut stream_flood) = (peer("DEALER", &req).await, dealer(&b, "flood").await);
    let flood = json!({"do": "send", "name": "s", "frames": ["", "@1000"], "copies": 100_000_000});
    req_flood.tell(flood.clone()).await;
    stream_flood.tell(flood).await;
    // Both floods are here before anything is measured.
    edge.until(|event| matches!(event, Inbound::Routed { peer, .. } if peer == "flood")).await;
    edge.reply().await;

    rep.tell(echo(20)).await;
    stream.tell(echo(20)).await;
    let (mut answered, mut asked) = (0, 0);
    for number in 0..20 {
        // The flooding DEALER is a peer of req mode as well, and gets every other request.
        while answered <= number {
            if asked <= 2 * answered + 1 {
                edge.bus.try_push(REQ, "T-calm".into()).unwrap();
                asked += 1;
            }
            answered += usize::from(edge.recv().await == replied("T-calm"));
        }
        edge.bus.try_route(b"calm", "T-calm".into()).unwrap();
        let calm =
            |event: &Inbound| matches!(event, Inbound::Routed { peer, .. } if peer == "calm");
        edge.until(calm).await;
    }
    assert_eq!((rep.answer().await, stream.answer().await), {
        (json!({"count": 20}), json!({"count": 20}))
    });
}

/// A bus that connects gives requests to those who are there, hears all of them, and finds those
/// again who are restarted.
#[tokio::test]
async fn when_connecting_handlers_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (req_in(&dir, "one"), req_in(&dir, "two"));
    let mut config = req_config(&[&one, &two]);
    config.connect = true;
    let mut edge = Edge::of(Bus::open(config).await.unwrap(), dir);
    assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer("T".into())));
    let bound = |spec: &ReqSpec| Peer::with(json!({"type": "REP", "bind": [spec.address()]}));
    let mut late = None;
    for round in 0..3 {
        let mut handler = bound(&one).await;
        edge.until_pullers(1 + usize::from(late.is_some())).await;
        if let Some(late) = &mut late {
            // In turn, and so one each.
            edge.push("T-1".into()).await;
            edge.push("T-2".into()).await;
            handler.tell(echo(1)).await;
            Peer::tell(late, echo(1)).await;
            let mut answers = [edge.reply().await, edge.reply().await];
            answers.sort();
            assert_eq!(answers, ["T-1", "T-2"]);
            assert_eq!(handler.answer().await["count"], 1);
            assert_eq!(late.answer().await["count"], 1);
        } else {
            for _ in 0..100 {
                // Nothing waits for the one that is not there.
                edge.ask(&mut handler).await;
            }
            late = Some(bound(&two).await);
            edge.until_pullers(2).await;
        }
        handler.kill().await;
        edge.until_pullers(1).await;
        edge.ask(late.as_mut().unwrap()).await;
        assert_eq!(edge.bus.push_peers(0), 1, "{round}");
    }
}

/// What waits for a handler is lost with its connection, though the address stays: who is started
/// there gets no old requests.
#[tokio::test]
async fn when_connecting_a_restarted_handler_gets_no_old_requests() {
    let dir = tempfile::tempdir().unwrap();
    let spec = req_in(&dir, "req");
    let mut config = req_config(&[&spec]);
    config.connect = true;
    let mut edge = Edge::of(Bus::open(config).await.unwrap(), dir);
    let bound = || Peer::with(json!({"type": "REP", "bind": [spec.address()]}));
    let stalled = bound().await;
    edge.until_pullers(1).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 16 * 1024]);
    edge.fill(|bus| bus.try_push(0, packet.clone())).await;
    stalled.kill().await;
    edge.until_pullers(0).await;
    let mut next = bound().await;
    edge.until_pullers(1).await;
    edge.ask(&mut next).await;
}

/// With several sockets, too, a `recv` that is dropped takes no message with it.
#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    const ANSWERS: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let specs = [req_in(&dir, "one"), req_in(&dir, "two")];
    let mut handlers = Vec::new();
    for spec in &specs {
        handlers.push(Peer::with(json!({"type": "DEALER", "bind": [spec.address()]})).await);
    }
    let mut config = req_config(&[&specs[0], &specs[1]]);
    config.connect = true;
    let mut edge = Edge::of(Bus::open(config).await.unwrap(), dir);
    edge.until_pullers(2).await;
    for (handler, name) in handlers.iter_mut().zip(["T-one-", "T-two-"]) {
        let prefix = [String::new(), hex(name.as_bytes())];
        let number = json!({"do": "number", "name": "s", "prefix": prefix, "count": ANSWERS});
        handler.tell(number).await;
    }
    let (mut one, mut two, mut dropped) = (0, 0, 0);
    within(async {
        while one + two < 2 * ANSWERS {
            let event = tokio::select! {
                biased;
                event = edge.bus.recv() => event,
                // Ready a few polls later: most receives are dropped in the middle.
                () = async { for _ in 0..(one + two) % 3 { tokio::task::yield_now().await } } => {
                    dropped += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            if event == replied(format!("T-one-{one}")) {
                one += 1;
            } else {
                assert_eq!(event, replied(format!("T-two-{two}")));
                two += 1;
            }
        }
    })
    .await;
    assert_eq!((one, two), (ANSWERS, ANSWERS));
    assert!(dropped > 0);
}

#[tokio::test]
async fn ten_megabytes_go_there_and_back() {
    let (mut edge, spec) = Edge::open_req().await;
    let mut handler = peer("REP", &spec).await;
    edge.until_pullers(1).await;
    let packet = Bytes::from((0..10_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    edge.push(packet.clone()).await;
    handler.tell(echo(1)).await;
    assert!(edge.reply().await == packet, "not as it was");
}

#[tokio::test]
async fn over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, spec) = loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let spec: ReqSpec = format!("tcp://127.0.0.1:{port}").parse().unwrap();
        if let Ok(bus) = Bus::open(req_config(&[&spec])).await {
            break (bus, spec);
        }
    };
    let mut edge = Edge::of(bus, dir);
    let mut handler = peer("REP", &spec).await;
    edge.until_pullers(1).await;
    edge.ask(&mut handler).await;
}

/// Only the one file, since there is no stream mode; and it goes with the bus.
#[tokio::test]
async fn the_ipc_file_gets_the_mode_and_goes_with_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let spec = req_in(&dir, "req");
    // A stale one is replaced.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("req")).unwrap());
    for mode in [0o600, 0o660] {
        let mut config = req_config(&[&spec]);
        config.ipc_file_mode = Some(mode);
        let bus = Bus::open(config).await.unwrap();
        let permissions = std::fs::metadata(dir.path().join("req")).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        within(bus.close()).await;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    let missing = req_in(&dir, "no/such/directory");
    match Bus::open(req_config(&[&missing])).await {
        Err(BusError::Bind { endpoint, .. }) => assert_eq!(endpoint, missing.address()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_sent_before_close_arrives() {
    let (mut edge, spec) = Edge::open_req().await;
    let mut handler = peer("DEALER", &spec).await;
    edge.until_pullers(1).await;
    const REQUESTS: usize = REQ_HIGH_WATER_MARK as usize / 2;
    for _ in 0..REQUESTS {
        edge.bus.try_push(0, vec![b'x'; 1_000].into()).unwrap();
    }
    within(edge.bus.close()).await;
    assert_eq!(handler.ask(drain(REQUESTS)).await["count"], REQUESTS);
}
