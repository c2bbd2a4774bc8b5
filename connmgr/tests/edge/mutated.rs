//! Ten thousand packets and ten thousand requests, each a good one that was spoilt: the edge serves on,
//! and sessions that were not meant do not notice.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::good_packets::good_packets;
use crate::handler::{Got, Handler};
use crate::holds::hold;
use crate::mutator::Mutator;
use crate::peers::within;
use crate::process::EdgeProcess;

/// Packets on each socket, and requests.
const MUTATIONS: usize = 10_000;

/// Packets that are sent at once; sessions that they are about are made for each group anew.
const GROUP: usize = 500;

/// Sessions that the packets of a group are about.
const VICTIMS: usize = 6;

/// How much the memory of the edge may grow by all that, in KiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

const EVIL: &str = "evil";

/// A way for packets into the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To its SUB.
    Pub,
    /// To its ROUTER.
    Dealer,
}

/// A session that has to go on beside all that.
struct Witness {
    handler: Handler,
    client: Client,
    request: Got,
    pieces: usize,
}

impl Witness {
    /// `asked` gets the request, and `handler` answers it.
    async fn new(edge: &EdgeProcess, mut handler: Handler, asked: Option<&mut Handler>) -> Witness {
        let mut client = Client::get(edge.address, "/witness").await;
        let request = match asked {
            Some(asked) => asked.request().await,
            None => handler.request().await,
        };
        handler.say(&request.id, (200, b"begin"), true).await;
        client.until("begin\r\n").await;
        Witness { handler, client, request, pieces: 0 }
    }

    async fn goes_on(&mut self) {
        self.pieces += 1;
        let piece = format!("piece {}", self.pieces);
        self.handler.say(&self.request.id, (0, piece.as_bytes()), true).await;
        self.client.until(&format!("{piece}\r\n")).await;
    }

    async fn ends(mut self, edge: &EdgeProcess) {
        self.handler.say(&self.request.id, (0, b"end"), false).await;
        self.client.until("end\r\n0\r\n\r\n").await;
        // Also who comes now is served.
        let mut client = Client::get(edge.address, "/fresh").await;
        let request = self.handler.request().await;
        assert!(request.uri.ends_with("/fresh"));
        self.handler.answer(&request.id, "served").await;
        assert_eq!(client.response().await.text(), "served");
    }
}

/// Sessions of the witness's handler that stand in all stages.
async fn victims(edge: &EdgeProcess, witness: &mut Witness) -> (Vec<Client>, Vec<String>) {
    let (mut clients, mut ids) = (Vec::new(), Vec::new());
    for number in 0..VICTIMS {
        let mut client = Client::connect(edge.address).await;
        let length = if number % 2 == 0 { 0 } else { 10 };
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nbody"))
            .await;
        let request = witness.handler.request().await;
        match number % 3 {
            0 => witness.handler.say(&request.id, (200, b"x"), true).await,
            1 => hold(&mut witness.handler, &request).await,
            _ => {}
        }
        clients.push(client);
        ids.push(request.id);
    }
    (clients, ids)
}

/// Sends the packets by one of the sockets of a handler, group by group.
async fn send_mutated(way: Way) {
    let edge = EdgeProcess::start(&[]).await;
    let handler = Handler::plain(&edge, "good").await;
    let mut witness = Witness::new(&edge, handler, None).await;
    let mut evil = Handler::unasked(&edge.spec("zhttp"), EVIL).await;
    let mut mutator = Mutator::new(1);
    let before = edge.memory();
    for _ in 0..MUTATIONS / GROUP {
        let (clients, ids) = victims(&edge, &mut witness).await;
        let good = good_packets(EVIL, &ids);
        let mut messages = Vec::new();
        while messages.len() < GROUP {
            let one = mutator.one_of(&good).clone();
            let packet = mutator.packet(&one);
            // Whom it names it may end.
            let id = witness.request.id.as_bytes();
            if packet.windows(id.len()).any(|part| part == id) {
                continue;
            }
            messages.push(match way {
                Way::Pub => vec![[b"edge ", &packet[..]].concat()],
                Way::Dealer => vec![Vec::new(), packet],
            });
        }
        let socket = if way == Way::Pub { "pub" } else { "stream" };
        evil.send_all(socket, &messages).await;
        // Behind these all has been done.
        for worker in 0..2 {
            match way {
                Way::Pub => evil.settle_published(worker).await,
                Way::Dealer => evil.settle(worker).await,
            };
        }
        witness.goes_on().await;
        drop(clients);
    }
    evil.kill().await;
    witness.ends(&edge).await;
    let growth_kib = edge.memory().peak_kib.saturating_sub(before.resident_kib);
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
}

#[tokio::test]
async fn mutated_packets_by_pub() {
    send_mutated(Way::Pub).await;
}

#[tokio::test]
async fn mutated_packets_by_dealer() {
    send_mutated(Way::Dealer).await;
}

const REQUESTS: [&str; 16] = [
    "GET / HTTP/1.1\r\nHost: a.com\r\n\r\n",
    "GET /path?query=1 HTTP/1.1\r\nHost: a.com:8080\r\nAccept: */*\r\nUser-Agent: x\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b.com/x HTTP/1.1\r\nHost: b.com\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=b; c=d\r\nCookie: e=f\r\n\r\n",
    "CONNECT a.com:443 HTTP/1.1\r\nHost: a.com:443\r\n\r\n",
];

/// What the edge may say to them, besides what a handler answers.
const REFUSALS: [u16; 11] = [400, 405, 408, 411, 413, 414, 417, 426, 431, 501, 505];

/// Sends some requests of which one is spoilt, and nothing more; checks what comes back.
async fn send_requests(edge: std::net::SocketAddr, mut mutator: Mutator, count: usize) {
    for _ in 0..count {
        let mut bytes = Vec::new();
        for _ in 0..mutator.below(3) {
            bytes.extend_from_slice(mutator.one_of(&REQUESTS).as_bytes());
        }
        let good = *mutator.one_of(&REQUESTS);
        bytes.extend(mutator.bytes(good.as_bytes()));
        bytes.extend_from_slice(mutator.one_of(&REQUESTS).as_bytes());
        let cut = if mutator.below(4) == 0 { mutator.below(bytes.len()) } else { bytes.len() };

        let mut stream = within(TcpStream::connect(edge)).await.unwrap();
        let mut answer = Vec::new();
        let exchange = async {
            stream.write_all(&bytes[..cut]).await?;
            tokio::task::yield_now().await;
            stream.write_all(&bytes[cut..]).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut answer).await
        };
        // A reset is an answer as well, if it comes behind one.
        let _ = within(exchange).await;
        check_answer(&answer, &bytes);
    }
}

fn check_answer(answer: &[u8], request: &[u8]) {
    let (answer, request) = (String::from_utf8_lossy(answer), String::from_utf8_lossy(request));
    if answer.is_empty() {
        return;
    }
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok());
    let is_expected = status
        .is_some_and(|status: u16| status == 100 || status == 200 || REFUSALS.contains(&status));
    assert!(is_expected, "{answer:?} to {request:?}");
}

#[tokio::test]
async fn mutated_requests() {
    const TASKS: usize = 16;
    let edge = EdgeProcess::start(&[]).await;
    let mut server = Handler::plain(&edge, "server").await;
    let handler = Handler::unasked(&edge.spec("zhttp"), "good").await;
    let mut witness = Witness::new(&edge, handler, Some(&mut server)).await;
    server.begin("serve", json!({"until": "/the-very-end"})).await;
    let before = edge.memory();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let mutator = Mutator::new(task as u64);
        tasks.spawn(send_requests(edge.address, mutator, MUTATIONS / TASKS));
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
        witness.goes_on().await;
    }
    let mut client = Client::get(edge.address, "/the-very-end").await;
    assert_eq!(client.response().await.status, 200);
    let served = server.peer.answer().await["served"].as_u64().unwrap();
    assert!(served > MUTATIONS as u64 * 9 / 10, "good ones are among them: {served}");
    witness.goes_on().await;
    let growth_kib = edge.memory().peak_kib.saturating_sub(before.resident_kib);
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
}
