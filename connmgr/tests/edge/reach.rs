//! Where an edge can be reached: by clients on listeners of each kind, by handlers on specs of each kind,
//! several at once, bound or connected.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use tokio::net::UnixStream;
use zhttp::{Kind, Packet};

use crate::client::Client;
use crate::handler::{Got, Handler};
use crate::peers::within;
use crate::process::EdgeProcess;

/// A base spec on three ports in a row that are free now.
fn free_tcp_spec() -> String {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < u16::MAX - 2 && is_free(port + 1) && is_free(port + 2) {
            return format!("tcp://127.0.0.1:{port}");
        }
    }
}

/// Answers by both ways that lead to the edge: its name, and what is the same for all.
async fn answer_by_both(handler: &mut Handler, request: &Got) {
    let name = handler.name().to_owned();
    handler.say(&request.id, (200, name.as_bytes()), true).await;
    // What went by DEALER is known to have come when its credits are there.
    handler.next_of(Kind::Credit).await;
    let rest = handler.packet(&request.id, None, Kind::Data, |fields| {
        fields.bytes("body", b", and the rest by PUB");
    });
    handler.publish(&rest).await;
}

async fn serve(mut handler: Handler) {
    loop {
        let request = handler.request().await;
        answer_by_both(&mut handler, &request).await;
    }
}

#[tokio::test]
async fn handlers_on_several_specs_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let second = format!("ipc://{}/second", dir.path().display());
    // Somebody else may take the ports before the edge does.
    let (edge, tcp) = loop {
        let tcp = free_tcp_spec();
        let options = ["--zclient-stream", &second, "--zclient-stream", &tcp];
        if let Some(edge) = EdgeProcess::try_start(&[], &options).await {
            break (edge, tcp);
        }
    };
    for (spec, name) in [(edge.spec("zhttp"), "one"), (second, "two"), (tcp, "three")] {
        tokio::spawn(serve(Handler::plain_at(&spec, name).await));
    }
    let mut client = Client::connect(edge.address).await;
    let mut missing = BTreeSet::from(["one", "two", "three"]);
    while !missing.is_empty() {
        client.ask("/").await;
        let response = client.response().await;
        let (name, rest) = response.text().split_once(", ").unwrap();
        assert_eq!(rest, "and the rest by PUB");
        missing.remove(name);
    }
}

#[tokio::test]
async fn an_edge_that_connects_finds_its_handler_again() {
    let edge = EdgeProcess::start(&["--zclient-connect"]).await;
    let mut client = Client::connect(edge.address).await;
    for round in 0..3 {
        // It may be asked before it is there. What is sent while it is being killed is lost with it.
        if round == 0 {
            client.ask("/").await;
        }
        let mut handler = Handler::bound(&edge.spec("zhttp"), "h").await;
        if round > 0 {
            client.ask("/").await;
        }
        let request = handler.request().await;
        answer_by_both(&mut handler, &request).await;
        assert_eq!(client.response().await.text(), "h, and the rest by PUB");
        handler.kill().await;
    }
}

#[tokio::test]
async fn ipc_files_have_the_mode_that_was_asked_for() {
    let edge = EdgeProcess::start(&["--ipc-file-mode=620"]).await;
    for file in ["zhttp-out", "zhttp-out-stream", "zhttp-in"] {
        let mode = edge.dir.path().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o620, "{file}");
    }
}

/// What the handler is told of a client.
async fn peer_of(client: &mut Client, handler: &mut Handler) -> (Option<String>, Option<u16>) {
    client.ask("/").await;
    let request = handler.request().await;
    let payload = Packet::parse(&request.bytes).unwrap().payload().unwrap();
    handler.answer(&request.id, "x").await;
    assert_eq!(client.response().await.text(), "x");
    (payload.peer_address.map(str::to_owned), payload.peer_port)
}

#[tokio::test]
async fn clients_on_listeners_of_each_kind() {
    let listen = ["--listen=127.0.0.1:0", "--listen=[::1]:0", "--listen=[::]:0"];
    let edge = EdgeProcess::start(&[&listen[..], &["--listen=s,local"]].concat()).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let [v4, v6, both] = edge.addresses[..] else { panic!("{:?}", edge.addresses) };
    assert!(v4.is_ipv4() && v6.is_ipv6() && both.is_ipv6());
    let port = both.port();
    let (both_by_v4, both_by_v6) =
        (SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::new(v6.ip(), port));
    // Condure tells the last one in this form, too: it is what such a socket says.
    let mapped = "::ffff:127.0.0.1";
    for (address, expected) in
        [(v4, "127.0.0.1"), (v6, "::1"), (both_by_v6, "::1"), (both_by_v4, mapped)]
    {
        let (peer, port) = peer_of(&mut Client::connect(address).await, &mut handler).await;
        assert_eq!(peer.as_deref(), Some(expected), "by {address}");
        assert!(port.is_some_and(|port| port != 0));
    }
    let stream = within(UnixStream::connect(edge.dir.path().join("s"))).await.unwrap();
    assert_eq!(peer_of(&mut Client::over(stream), &mut handler).await, (None, None));
}
