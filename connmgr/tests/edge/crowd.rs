//! A crowd leaves in one moment. Condure loses most of what it should tell its handlers then.

use std::collections::BTreeSet;

use serde_json::json;
use zhttp::{IDS_MAX, Kind, Packet};

use crate::client::{Client, SocketOptions};
use crate::handler::Handler;
use crate::peers::unhex;
use crate::process::EdgeProcess;

const CLIENTS: usize = 1_000;

const WORKERS: usize = 2;

/// More than the queues of a handler that stands still take: 2 MiB, and those of the kernel.
const UPLOAD_BYTES: u64 = 4_000_000;

/// Far fewer than clients: 128 ids fit in one, but the workers see the clients go in some turns.
const PACKETS_MAX: usize = CLIENTS / 10;

/// Asks with many clients, every other one of which will end with a reset.
async fn crowd(edge: &EdgeProcess) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let options = SocketOptions { resets: number % 2 == 0, ..SocketOptions::default() };
        let mut client = Client::connect_by(edge.address, options).await;
        client.ask("/").await;
        clients.push(client);
    }
    clients
}

/// The ids of the next requests.
async fn requests(handler: &mut Handler, count: usize) -> Vec<String> {
    let receive = json!({"do": "recv", "name": "pull", "count": count});
    let answer = handler.peer.ask(receive).await;
    let messages = answer["messages"].as_array().unwrap();
    assert_eq!(messages.len(), count);
    let id = |message: &serde_json::Value| {
        let bytes = unhex(message[0].as_str().unwrap());
        let mut packet = Packet::parse(&bytes).unwrap();
        String::from_utf8(packet.ids.next().unwrap().id.to_vec()).unwrap()
    };
    messages.iter().map(id).collect()
}

/// Waits until each of these was told once, and says in how many packets that was.
async fn are_told(handler: &mut Handler, ids: Vec<String>) -> usize {
    let mut missing: BTreeSet<String> = ids.into_iter().collect();
    let mut packets = 0;
    while !missing.is_empty() {
        let cancel = handler.next_of(Kind::Cancel).await;
        assert!(cancel.ids.len() <= IDS_MAX);
        for id in &cancel.ids {
            assert!(missing.remove(id), "{id} is told twice, or is nobody's");
        }
        packets += 1;
    }
    for worker in 0..WORKERS {
        assert_eq!(handler.settle(worker).await.len(), 0, "none is told twice");
    }
    packets
}

/// Has the edge know whose sessions these are.
async fn are_at_work(handler: &mut Handler, ids: &[String]) {
    for some in ids.chunks(IDS_MAX) {
        let packet = handler.packet_about(some, Kind::KeepAlive, |_| {});
        handler.send_stream(&packet).await;
    }
    for worker in 0..WORKERS {
        handler.settle(worker).await;
    }
}

#[tokio::test]
async fn each_of_a_thousand_clients_that_leave_at_once_is_told() {
    let edge = EdgeProcess::start(&[&format!("--workers={WORKERS}")]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let clients = crowd(&edge).await;
    let ids = requests(&mut handler, CLIENTS).await;
    are_at_work(&mut handler, &ids).await;

    edge.signal("-STOP");
    drop(clients);
    edge.signal("-CONT");

    let packets = are_told(&mut handler, ids).await;
    assert!(packets <= PACKETS_MAX, "{packets} packets");
}

/// The same while the handler stands still with its queues full: what it is to be told is late, but
/// not lost.
#[tokio::test]
async fn they_are_told_also_if_the_handler_takes_nothing_for_a_while() {
    let edge = EdgeProcess::start(&[&format!("--workers={WORKERS}")]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut upload = Client::connect(edge.address).await;
    upload
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n"))
        .await;
    let uploads = requests(&mut handler, 1).await;
    let clients = crowd(&edge).await;
    let ids = requests(&mut handler, CLIENTS).await;
    are_at_work(&mut handler, &ids).await;
    let credit = handler
        .packet(&uploads[0], None, Kind::Credit, |fields| fields.int("credits", UPLOAD_BYTES));
    handler.send_stream(&credit).await;
    for worker in 0..WORKERS {
        handler.settle(worker).await;
    }

    handler.peer.signal("-STOP");
    upload.send(vec![b'x'; UPLOAD_BYTES as usize]).await;
    drop(clients);
    // Somebody else is told that all that has been seen: it has come as far as it could.
    let mut other = Handler::unasked(&edge.spec("zhttp"), "other").await;
    for worker in 0..WORKERS {
        other.settle(worker).await;
    }
    handler.peer.signal("-CONT");
    are_told(&mut handler, ids).await;
}
