//! The edge as a process: the real binary, real sockets, and handlers on libzmq.
//!
//! `edge/process.rs` starts the binary on a free port and reads its log, `edge/client.rs` is an HTTP
//! client that sees every byte, `edge/handler.rs` speaks ZHTTP through `peers/peer.py`, so that a
//! handler can be killed; `peers/zhttp.py` are handlers that need not ask the test. `edge/mutator.rs` spoils
//! input, `edge/unread.rs` sees when the edge has read what was sent, `edge/tls_client.rs` makes certificates. Nothing
//! here waits for time to pass, but where a timeout of the edge is what is tested.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[path = "edge/chunked.rs"]
mod chunked;
#[path = "edge/client.rs"]
mod client;
#[path = "edge/crowd.rs"]
mod crowd;
#[path = "edge/disconnects.rs"]
mod disconnects;
#[path = "edge/faults.rs"]
mod faults;
#[path = "edge/flow.rs"]
mod flow;
#[path = "edge/good_packets.rs"]
mod good_packets;
#[path = "edge/handler.rs"]
mod handler;
#[path = "edge/holds.rs"]
mod holds;
#[path = "edge/hostile.rs"]
mod hostile;
#[path = "edge/lifecycle.rs"]
mod lifecycle;
#[path = "edge/limits.rs"]
mod limits;
#[path = "edge/mutated.rs"]
mod mutated;
#[path = "edge/mutator.rs"]
mod mutator;
#[path = "edge/plain.rs"]
mod plain;
#[path = "edge/process.rs"]
mod process;
#[path = "edge/reach.rs"]
mod reach;
#[path = "edge/req.rs"]
mod req;
#[path = "edge/sessions.rs"]
mod sessions;
#[path = "edge/tls.rs"]
mod tls;
#[path = "edge/tls_chromium.rs"]
mod tls_chromium;
#[path = "edge/tls_client.rs"]
mod tls_client;
#[path = "edge/tls_programs.rs"]
mod tls_programs;
#[path = "edge/tls_reload.rs"]
mod tls_reload;
#[path = "edge/tls_traffic.rs"]
mod tls_traffic;
#[path = "edge/unread.rs"]
mod unread;
#[path = "peers/websocket.rs"]
mod websocket;
