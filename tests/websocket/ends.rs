//! Sockets that are over because of their tokens, requests that are none for a socket, and TLS.

use forebay_handlers::auth::Role;
use serde_json::json;

use super::peer::{Make, Opening};
use super::socket::{Attempt, Socket};
use super::system::System;
use crate::support::get;
use crate::support::up::{ORG, Up};

/// For how long tokens of these tests are good, with the leeway.
const GOOD_S: u64 = 600 + 60;

#[test]
fn a_socket_ends_with_its_token() {
    let up = Up::start();
    // A machine that is too slow for the first comes with one that is good for longer.
    for left_s in [2, 8, 32] {
        let token = up.dir.token_aged(Role::Subscriber, ORG, &["a"], GOOD_S - left_s);
        let url = format!("ws://{}/ws/{ORG}", up.address);
        let opening = Opening::new(url).header("Authorization", format!("Bearer {token}"));
        let Attempt::Opened(mut socket) = Socket::attempt(Make::Tungstenite, &opening) else {
            continue;
        };
        assert_eq!(socket.message()["type"], "open");
        assert_eq!(socket.closed(), 3000);
        return;
    }
    panic!("no token is good");
}

#[test]
fn a_socket_that_has_no_token_is_closed() {
    let up = Up::start();
    let opening = Opening::new(format!("ws://{}/ws/{ORG}", up.address));
    let (mut socket, _) = Socket::open(Make::Tungstenite, &opening);
    // Whatever it says.
    socket.is_alive();
    assert_eq!(socket.closed(), 3502);
}

#[test]
fn a_program_that_ends_says_goodbye() {
    let up = Up::start();
    let token = up.dir.token(Role::Subscriber, ORG, &["a"]);
    let opening = Opening::new(format!("ws://{}/ws/{ORG}?token={token}", up.address));
    let (mut socket, _) = Socket::open(Make::Tungstenite, &opening);
    socket.subscribe("a", None);
    let Up { process, .. } = up;
    process.signal("TERM");
    assert_eq!(socket.closed(), 1001);
    assert_eq!(process.wait().code(), 0);
}

#[test]
fn what_is_no_websocket_is_told() {
    let up = Up::start();
    let response = get(format!("/ws/{ORG}")).send(&up.address);
    assert_eq!(response.status(), 426);
    assert_eq!(response.header("Upgrade"), Some("websocket"));
}

#[test]
fn sockets_are_encrypted_by_either_version() {
    let system = System::start(&[]);
    let token = system.reader(&["tls"]);
    let url = format!("wss://{}/ws/{ORG}", system.tls_address);
    let certificate = system.dir.join("edge.crt");
    let makes = [Make::Websockets, Make::Ws];
    for make in makes.into_iter().filter(|make| make.is_installed()) {
        for version in ["1.2", "1.3"] {
            for compression in [false, true] {
                let opening = Opening::new(&url).compressed(compression).tls(version);
                let opening = opening.header("Authorization", format!("Bearer {token}"));
                // A certificate that it does not trust.
                let Attempt::Not(why) = Socket::attempt(make, &opening.clone()) else {
                    panic!("{make:?} looks at no certificate");
                };
                assert!(why["failed"].as_str().unwrap().contains("self"), "{why}");
                let opening = opening.trusting(Some(&certificate));
                let (mut socket, _) = Socket::open(make, &opening);
                assert_eq!(socket.opened["tls"], format!("TLSv{version}"), "{make:?}");
                assert_eq!(socket.opened["extensions"].is_string(), compression);
                socket.subscribe("tls", Some("$"));
                let id = system.delta("tls", "x".repeat(9000));
                socket.event_of("tls", &id);
                socket.is_alive();
                socket.peer.tell(&json!({"do": "close", "code": 1000, "reason": ""}));
                assert_eq!(socket.closed(), 1000);
            }
        }
    }
}
