//! The edge as a process: the real binary, real sockets, and handlers on libzmq.
//!
//! `edge/process.rs` starts the binary on a free port and reads its log, `edge/client.rs` is an HTTP
//! client that sees every byte, `edge/handler.rs` speaks ZHTTP through `peers/peer.py`, so that a
//! handler can be killed. Nothing here waits for time to pass.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[path = "edge/client.rs"]
mod client;
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
#[path = "edge/plain.rs"]
mod plain;
#[path = "edge/process.rs"]
mod process;
