//! A WebSocket client of another make: tungstenite.

#![allow(clippy::unwrap_used)]

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::peers::within;

/// What [`connect`] makes.
pub type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Becomes a WebSocket at that URL.
pub async fn connect(url: &str) -> WebSocket {
    let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let (socket, _) = within(connect_async_with_config(url, Some(limits), true)).await.unwrap();
    socket
}
