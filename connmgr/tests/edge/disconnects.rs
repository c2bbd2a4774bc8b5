//! Clients that leave, at each stage of a session and in each way (zhttp-spec/zhttp.md §12, hold.md
//! §6): a reset is seen at once, and so is any end of a client that is held. A FIN may be no more than
//! a half-close, so while an answer is being made it is believed after two seconds.
//!
//! What is *at once* is not measured: the edge is stopped while all clients leave, and then sees them
//! go in one turn. What is told at once comes before what is told after a wait, however slow the
//! machine is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use zhttp::Kind;

use crate::client::{Client, SocketOptions};
use crate::handler::{Got, Handler, sequence};
use crate::holds::hold;
use crate::process::EdgeProcess;

/// How long the end of what a client sends is not taken for the end of the client: `eof_ms` in
/// forebay-core. Less a millisecond for either clock, which count whole ones.
const EOF_HELD_MIN: Duration = Duration::from_millis(2_000 - 2);

/// Of a client's body: more than the edge reads without credits, and less than a socket keeps.
const STUCK_BODY_BYTES: usize = 48 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Between two requests.
    Idle,
    /// Half a head is sent.
    HalfHead,
    /// Half of the body is sent, and has reached the handler.
    HalfBody,
    /// A handler has the request, and was not heard.
    Given,
    /// A handler has said that it is at it.
    Known,
    /// The client has a piece of the answer.
    MidResponse,
    /// The client takes nothing, and the handler has spent its credits.
    ResponseStuck,
    /// The handler gives no credits, and the body is on its way in the sockets.
    BodyStuck,
    /// Server-sent events.
    Held,
}

const STAGES: [Stage; 9] = [
    Stage::Idle,
    Stage::HalfHead,
    Stage::HalfBody,
    Stage::Given,
    Stage::Known,
    Stage::MidResponse,
    Stage::ResponseStuck,
    Stage::BodyStuck,
    Stage::Held,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Reset,
    Close,
    HalfClose,
}

/// A client at its stage.
struct Session {
    client: Client,
    /// None if no handler has heard of it.
    id: String,
}

/// An edge of one worker, and a handler.
struct Stand {
    edge: EdgeProcess,
    handler: Handler,
}

impl Stand {
    async fn new(connections_max: usize) -> Stand {
        let maxconn = format!("--stream-maxconn={connections_max}");
        let edge = EdgeProcess::start(&["--workers=1", "--buffer-size=16384", &maxconn]).await;
        let handler = Handler::greeting(&edge, "first").await;
        Stand { edge, handler }
    }

    async fn begin(&mut self, stage: Stage, way: Way) -> Session {
        let options = SocketOptions {
            // So that it does not take much to fill it.
            receive_buffer_bytes: if stage == Stage::ResponseStuck { 4096 } else { 0 },
            resets: way == Way::Reset,
        };
        let mut client = Client::connect_by(self.edge.address, options).await;
        let head = match stage {
            Stage::HalfHead => "GET / HTTP/1.1\r\nHo".to_owned(),
            Stage::HalfBody => post(100),
            Stage::BodyStuck => post(STUCK_BODY_BYTES),
            Stage::Idle
            | Stage::Given
            | Stage::Known
            | Stage::MidResponse
            | Stage::ResponseStuck
            | Stage::Held => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        };
        client.send(head).await;
        if stage == Stage::HalfHead {
            return Session { client, id: String::new() };
        }
        let request = self.handler.next_of(Kind::Data).await;
        self.answer_in_part(&mut client, stage, &request).await;
        let id = if stage == Stage::Idle { String::new() } else { request.id };
        Session { client, id }
    }

    async fn answer_in_part(&mut self, client: &mut Client, stage: Stage, request: &Got) {
        let handler = &mut self.handler;
        let alive = handler.packet(&request.id, None, Kind::KeepAlive, |_| {});
        match stage {
            Stage::Idle => {
                handler.say(&request.id, (200, b"x"), false).await;
                client.response().await;
            }
            Stage::HalfHead | Stage::Given => {}
            Stage::HalfBody => {
                client.send([b'b'; 50]).await;
                let credit = handler
                    .packet(&request.id, None, Kind::Credit, |fields| fields.int("credits", 200));
                handler.send_stream(&credit).await;
                assert_eq!(handler.next_of(Kind::Data).await.body.len(), 50);
            }
            Stage::Known => handler.send_stream(&alive).await,
            Stage::MidResponse => {
                handler.say(&request.id, (200, b"x"), true).await;
                client.until("x\r\n").await;
            }
            Stage::ResponseStuck => {
                handler.spend_credits(&request.id, 0, request.credits).await;
            }
            Stage::BodyStuck => {
                handler.send_stream(&alive).await;
                client.send(vec![b'b'; STUCK_BODY_BYTES]).await;
            }
            Stage::Held => {
                hold(handler, request).await;
                client.until("retry: 500\n\n\r\n").await;
            }
        }
    }

    /// Waits until the edge has done what it was told; says what it sent about sessions up to then.
    async fn settle(&mut self) -> Vec<Got> {
        let mut got = self.handler.settle(0).await;
        got.retain(|got| !matches!(got.kind, Kind::Feed | Kind::Unfeed));
        got
    }

    /// The next packets that tell of sessions that are over.
    async fn ends(&mut self, count: usize) -> BTreeSet<(&'static str, String)> {
        let mut ends = BTreeSet::new();
        while ends.len() < count {
            let got = self.handler.next().await;
            // That is about the channel of those who are held.
            if matches!(got.kind, Kind::Feed | Kind::Unfeed) {
                continue;
            }
            assert!(matches!(got.kind, Kind::Cancel | Kind::Closed), "{got:?}");
            for id in got.ids {
                assert!(ends.insert((got.kind.name(), id)), "told twice");
            }
        }
        ends
    }
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// What a handler is told, and whether that has to wait for two seconds.
fn expected(stage: Stage, way: Way) -> Option<(&'static str, bool)> {
    let is_late = match stage {
        Stage::Idle | Stage::HalfHead => return None,
        Stage::Held => return Some((Kind::Closed.name(), false)),
        // The rest of the body will not come.
        Stage::HalfBody => false,
        // What was sent and never read makes a reset of a close (RFC 2525 §2.17).
        Stage::ResponseStuck => way == Way::HalfClose,
        Stage::Given | Stage::Known | Stage::MidResponse | Stage::BodyStuck => way != Way::Reset,
    };
    Some((Kind::Cancel.name(), is_late))
}

#[tokio::test]
async fn clients_leave() {
    let cells: Vec<(Stage, Way)> = STAGES
        .iter()
        .flat_map(|&stage| [Way::Reset, Way::Close, Way::HalfClose].map(|way| (stage, way)))
        .collect();
    let mut stand = Stand::new(cells.len()).await;
    let (mut at_once, mut late) = (BTreeSet::new(), BTreeSet::new());
    let (mut gone, mut half_closed) = (Vec::new(), Vec::new());
    for &(stage, way) in &cells {
        let session = stand.begin(stage, way).await;
        match expected(stage, way) {
            Some((kind, true)) => late.insert((kind, session.id.clone())),
            Some((kind, false)) => at_once.insert((kind, session.id.clone())),
            None => true,
        };
        let ends = if way == Way::HalfClose { &mut half_closed } else { &mut gone };
        ends.push(session.client);
    }
    stand.settle().await;

    stand.edge.signal("-STOP");
    let left = Instant::now();
    drop(gone);
    for client in &mut half_closed {
        client.half_close().await;
    }
    stand.edge.signal("-CONT");

    assert_eq!(stand.ends(at_once.len()).await, at_once, "at once");
    assert_eq!(stand.ends(late.len()).await, late, "after a wait");
    assert!(left.elapsed() >= EOF_HELD_MIN, "a half-close is no end yet");
    for client in &mut half_closed {
        // They are let go, too.
        client.rest_bytes().await;
    }
    drop(half_closed);
    assert_eq!(stand.settle().await.len(), 0, "each is told once");

    // As many as may be there at all come in: so no place is still taken.
    let mut clients = Vec::new();
    for _ in &cells {
        clients.push(Client::get(stand.edge.address, "/").await);
        let request = stand.handler.next_of(Kind::Data).await;
        stand.handler.say(&request.id, (200, b"x"), false).await;
    }
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "x");
    }
}

/// As long as an answer may come, it reaches a client that has only closed its side. Each answer is
/// under way when the edge sees the half-close.
#[tokio::test]
async fn half_closed_clients_get_their_answers() {
    let stages = [Stage::Given, Stage::Known, Stage::MidResponse, Stage::ResponseStuck];
    let mut stand = Stand::new(100).await;
    let mut sessions = Vec::new();
    for stage in stages {
        sessions.push((stage, stand.begin(stage, Way::HalfClose).await));
    }
    stand.settle().await;
    stand.edge.signal("-STOP");
    for (stage, session) in &mut sessions {
        session.client.half_close().await;
        let (code, body): (u64, &[u8]) = match stage {
            Stage::Given | Stage::Known => (200, b"whole"),
            Stage::MidResponse => (0, b"the rest"),
            // There are no credits for more.
            Stage::ResponseStuck => (0, b""),
            Stage::Idle | Stage::HalfHead | Stage::HalfBody | Stage::BodyStuck | Stage::Held => {
                unreachable!("not among them")
            }
        };
        stand.handler.say(&session.id, (code, body), false).await;
    }
    stand.edge.signal("-CONT");
    for (stage, session) in &mut sessions {
        let rest = session.client.rest_bytes().await;
        let is_whole = matches!(stage, Stage::Given | Stage::Known);
        let end: &[u8] = if is_whole { b"\r\n\r\nwhole" } else { b"\r\n0\r\n\r\n" };
        assert!(rest.ends_with(end), "{stage:?}: {} bytes", rest.len());
    }
    let told = stand.settle().await;
    assert!(told.iter().all(|got| got.kind == Kind::Credit), "no session was cancelled: {told:?}");
}

/// A client sends its body, closes its side, and has to wait: the body and the answer get through.
#[tokio::test]
async fn a_body_behind_which_the_client_has_half_closed_arrives() {
    let edge = EdgeProcess::start(&["--buffer-size=4096"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut client = Client::connect(edge.address).await;
    client.send(post(STUCK_BODY_BYTES)).await;
    client.send(sequence(0..STUCK_BODY_BYTES)).await;
    client.half_close().await;
    handler.begin("upload", json!({"grant": 5_000})).await;
    assert_eq!(client.response().await.text(), STUCK_BODY_BYTES.to_string());
    assert_eq!(client.rest().await, "");
    assert_eq!(handler.peer.answer().await["bytes"], STUCK_BODY_BYTES);
}

/// What a client has sent before it closed its side has its turn, one answer after the other.
#[tokio::test]
async fn requests_behind_which_the_client_has_half_closed_are_answered() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    handler.begin("serve", json!({"until": "/end"})).await;
    let mut client = Client::connect(edge.address).await;
    let request = |path: &str| format!("{}0123456789", post(10).replace("/ ", path));
    client.send([request("/ "), request("/ "), request("/end ")].concat()).await;
    client.half_close().await;
    for _ in 0..3 {
        assert_eq!(client.response().await.text(), "0123456789");
    }
    assert_eq!(client.rest().await, "");
    assert_eq!(handler.peer.answer().await, json!({"served": 3, "cancelled": 0}));
}

/// A request that nobody has yet goes with its client.
#[tokio::test]
async fn a_request_whose_client_has_left_is_given_to_nobody() {
    let edge = EdgeProcess::start(&["--workers=1", "--handler-wait=60"]).await;
    let options = SocketOptions { resets: true, ..SocketOptions::default() };
    let mut gone = Client::connect_by(edge.address, options).await;
    gone.ask("/gone").await;
    drop(gone);
    let mut client = Client::get(edge.address, "/there").await;
    let mut handler = Handler::unasked(&edge.spec("zhttp"), "h").await;
    // The worker has looked at its sockets between the two.
    handler.settle(0).await;
    handler.settle(0).await;
    handler.take_requests(&edge.spec("zhttp")).await;
    let request = handler.request().await;
    assert!(request.uri.ends_with("/there"), "{}", request.uri);
    handler.answer(&request.id, "x").await;
    assert_eq!(client.response().await.text(), "x");
}

/// Without progress for `--stream-timeout` a client is given up, whatever its handler says.
#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let edge = EdgeProcess::start(&["--workers=1", "--stream-timeout=0.5"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let options = SocketOptions { receive_buffer_bytes: 4096, ..SocketOptions::default() };
    let mut client = Client::connect_by(edge.address, options).await;
    client.ask("/").await;
    let request = handler.request().await;
    let mut credits = request.credits;
    let (mut code, mut told) = (200, Kind::Credit);
    while told == Kind::Credit {
        handler.say(&request.id, (code, &vec![b'x'; credits]), true).await;
        let got = handler.next().await;
        (code, credits, told) = (0, got.credits, got.kind);
    }
    assert_eq!(told, Kind::Cancel);
}
