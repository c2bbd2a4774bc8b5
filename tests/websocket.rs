//! The public WebSocket, end to end, with clients that others made: Python's `websockets`, npm's `ws` and
//! tokio-tungstenite (`docs/channels.md`, "WebSocket").
//!
//! | file | what is tested |
//! | --- | --- |
//! | `scenarios` | what each client may rely on, with compression and without |
//! | `cursors` | a cursor is good wherever events are read |
//! | `deaths` | handlers and edges end while something is under way |
//! | `ends` | sockets whose time is over; TLS |
//!
//! `peer` drives the clients, `tungstenite` is one of them, and `peers/` has the others; `socket` is a client as tests use
//! it, `system` what it connects to. Where `ws` is not installed (`scripts/npm`), its tests pass and say so.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod support;

#[path = "websocket/cursors.rs"]
mod cursors;
#[path = "websocket/deaths.rs"]
mod deaths;
#[path = "websocket/ends.rs"]
mod ends;
#[path = "websocket/peer.rs"]
mod peer;
#[path = "websocket/scenarios.rs"]
mod scenarios;
#[path = "websocket/socket.rs"]
mod socket;
#[path = "websocket/system.rs"]
mod system;
#[path = "websocket/tungstenite.rs"]
mod tungstenite;

use forebay_handlers::auth;
use peer::Make;
use scenarios::Client;
use system::System;

/// Runs all scenarios with a client.
fn run_scenarios(client: Client) {
    if !client.0.is_installed() {
        eprintln!("a test with the npm package ws is passed over: scripts/npm installs it");
        return;
    }
    let system = System::start(&[]);
    for (name, scenario) in scenarios::ALL {
        // Shown if it fails.
        println!("scenario: {name}");
        scenario(&system, client);
    }
}

#[test]
fn websockets_of_python_plain() {
    run_scenarios((Make::Websockets, false));
}

#[test]
fn websockets_of_python_compressed() {
    run_scenarios((Make::Websockets, true));
}

#[test]
fn ws_of_npm_plain() {
    run_scenarios((Make::Ws, false));
}

#[test]
fn ws_of_npm_compressed() {
    run_scenarios((Make::Ws, true));
}

#[test]
fn tungstenite() {
    run_scenarios((Make::Tungstenite, false));
}
