//! The web server behind Pushpin, reached by zurl: one request a connection.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::client::Client;

/// Serves until the test ends.
///
/// * `GET /backend/BYTES`: so many bytes of [`pattern`]
/// * `POST /backend/echo`: what was sent
pub async fn start() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(stream: TcpStream) {
    // What reads responses reads requests.
    let mut connection = Client::over(stream);
    let head = connection.until("\r\n\r\n").await;
    let path = head.split(' ').nth(1).unwrap();
    let body = match path.strip_prefix("/backend/").unwrap().parse() {
        Ok(bytes) => pattern(bytes),
        Err(_) => receive(&mut connection, &head).await,
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    connection.send([head.as_bytes(), &body].concat()).await;
}

/// Reads a body with a length or in chunks.
async fn receive(connection: &mut Client, head: &str) -> Vec<u8> {
    let head = head.to_ascii_lowercase();
    if head.contains("\r\nexpect: 100-continue\r\n") {
        connection.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    if let Some(length) = length {
        return connection.exactly(length.parse().unwrap()).await;
    }
    let mut body = Vec::new();
    loop {
        let chunk = crate::chunk(connection).await;
        if chunk.is_empty() {
            return body;
        }
        body.extend(chunk);
    }
}

/// Bytes in which every lost, doubled or moved part shows.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 251 + at) as u8).collect()
}
