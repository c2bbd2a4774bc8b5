//! Chunked uploads, cut anywhere (RFC 9112 §7.1). Pushpin's main corrupts one that is cut right behind a
//! chunk-size line.

use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::handler::Handler;
use crate::peers::within;
use crate::process::EdgeProcess;
use crate::unread::unread_bytes;

/// Chunks of one and of many digits, extensions of each form, trailers.
const BODY: &str = "5\r\nhello\r\n\
    1;a\r\n \r\n\
    00c;name=value\r\nchunked cont\r\n\
    1A;q=\"a\\\"b;c\"\r\nent, and some more of it..\r\n\
    0;last\r\nTrailer: of no use\r\nX-Another: too\r\n\r\n";

const CONTENT: &str = "hello chunked content, and some more of it..";

/// A client on a keep-alive connection that sees when the edge has taken what it sent.
struct Cutter {
    client: Client,
    edge: SocketAddr,
    own: SocketAddr,
}

impl Cutter {
    async fn connect(edge: SocketAddr) -> Cutter {
        let stream = within(TcpStream::connect(edge)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let own = stream.local_addr().unwrap();
        Cutter { client: Client::over(stream), edge, own }
    }

    /// Sends bytes, and waits until the edge has read them: what comes next comes by itself.
    async fn send(&mut self, bytes: &[u8]) {
        self.client.send(bytes).await;
        within(async {
            while unread_bytes(self.edge, self.own).expect("the edge has closed") > 0 {
                // The kernel does not tell when somebody else reads, so it is asked again and again.
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn is_answered(&mut self, what: &str) {
        let response = self.client.response().await;
        assert_eq!((response.status, response.text()), (200, CONTENT), "{what}");
    }
}

fn request(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{BODY}")
}

/// Sends the request cut at some places on one connection; says how often.
async fn send_cut(edge: SocketAddr, every: usize, offset: usize) -> usize {
    let request = request("/");
    let mut cutter = Cutter::connect(edge).await;
    let mut served = 0;
    for at in (1..request.len()).skip(offset).step_by(every) {
        let (first, second) = request.as_bytes().split_at(at);
        cutter.send(first).await;
        cutter.client.send(second).await;
        cutter.is_answered(&format!("cut at {at}: {:?}", &request[..at])).await;
        served += 1;
    }
    // And with a piece of three bytes in the middle.
    for at in (1..request.len() - 3).skip(offset).step_by(every) {
        let [first, second, third] =
            [0..at, at..at + 3, at + 3..request.len()].map(|part| &request.as_bytes()[part]);
        cutter.send(first).await;
        cutter.send(second).await;
        cutter.client.send(third).await;
        cutter.is_answered(&format!("cut at {at} and {}", at + 3)).await;
        served += 1;
    }
    served
}

#[tokio::test]
async fn a_chunked_body_arrives_wherever_it_is_cut() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    handler.begin("serve", json!({"until": "/end"})).await;
    let (one, two, three, four) = tokio::join!(
        send_cut(edge.address, 4, 0),
        send_cut(edge.address, 4, 1),
        send_cut(edge.address, 4, 2),
        send_cut(edge.address, 4, 3),
    );
    let mut cutter = Cutter::connect(edge.address).await;
    for byte in request("/").as_bytes() {
        cutter.send(&[*byte]).await;
    }
    cutter.is_answered("byte by byte").await;
    let mut last = Client::get(edge.address, "/end").await;
    assert_eq!(last.response().await.status, 200);
    let served = one + two + three + four + 2;
    assert!(served > 350);
    assert_eq!(handler.peer.answer().await, json!({"served": served, "cancelled": 0}));
}

#[tokio::test]
async fn chunked_bodies_may_be_pipelined() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    handler.begin("serve", json!({"until": "/end"})).await;
    let mut client = Client::connect(edge.address).await;
    let requests: String = (0..200).map(|_| request("/")).collect();
    client.send(requests + "GET /end HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for number in 0..200 {
        assert_eq!(client.response().await.text(), CONTENT, "{number}");
    }
    assert_eq!(client.response().await.text(), "");
    assert_eq!(handler.peer.answer().await, json!({"served": 201, "cancelled": 0}));
}
