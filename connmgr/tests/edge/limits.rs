//! What happens at the limits: descriptors, connections.

use crate::client::Client;
use crate::handler::Handler;
use crate::process::EdgeProcess;

#[tokio::test]
async fn without_descriptors_clients_wait() {
    let limit = ["prlimit", "--nofile=64:64"];
    let mut edge = EdgeProcess::start_by(&limit, &["--workers=1"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut crowd = Vec::new();
    for _ in 0..80 {
        crowd.push(Client::connect(edge.address).await);
    }
    let line = edge.line("accepting is paused").await;
    assert!(line.contains("[WARN]"), "{line}");
    let mut late = Client::get(edge.address, "/late").await;
    drop(crowd);
    let request = handler.request().await;
    handler.answer(&request.id, "in the end").await;
    assert_eq!(late.response().await.text(), "in the end");
}

#[tokio::test]
async fn past_the_most_connections_clients_wait() {
    // Whichever worker they come to: the limit is one for all.
    let edge = EdgeProcess::start(&["--workers=2", "--stream-maxconn=3"]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(edge.address).await;
        is_served(&mut client, &mut handler).await;
        crowd.push(client);
    }
    let mut late = Client::get(edge.address, "/late").await;
    // They came first, and so they are there.
    for client in &mut crowd {
        is_served(client, &mut handler).await;
    }
    drop(crowd.pop());
    let request = handler.request().await;
    assert!(request.uri.ends_with("/late"));
    handler.answer(&request.id, "late").await;
    assert_eq!(late.response().await.text(), "late");
}

async fn is_served(client: &mut Client, handler: &mut Handler) {
    client.ask("/first").await;
    let request = handler.request().await;
    assert!(request.uri.ends_with("/first"), "{}", request.uri);
    handler.answer(&request.id, "x").await;
    assert_eq!(client.response().await.text(), "x");
}
