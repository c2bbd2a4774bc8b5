//! Handshakes, and where tokens come.

use std::time::Duration;

use zhttp::hold::Format;

use super::*;

fn reader() -> String {
    token(Role::Subscriber, "acme", &["news"])
}

/// The first message.
fn first(response: &Response) -> Value {
    assert_eq!(response.code, 101);
    serde_json::from_str(answer(response).1).unwrap()
}

#[tokio::test]
async fn what_cannot_be_a_socket_is_answered_so() {
    let bench = Bench::new().await;
    for (path, code, text) in [
        ("/ws/", 404, "Not found"),
        ("/ws/acme/news", 404, "Not found"),
        ("/ws/a%2", 400, "Invalid path: malformed percent-encoding"),
        ("/ws/a.b", 400, "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -"),
        ("/ws/acme?token=%zz", 400, "Invalid query: Malformed percent-encoding"),
    ] {
        let response = bench.ask(path, &[]);
        assert_eq!((answer(&response), response.hold.is_none()), ((code, text), true), "{path}");
    }
    let ask = |method, can| bench.sockets.handshake(&head_of(method, "/ws/acme", &[]), can, NOW_MS);
    let response = ask("GET", (false, true));
    assert_eq!((response.code, header(&response, "Upgrade")), (426, Some("websocket")));
    assert_eq!(answer(&ask("GET", (true, false))), (501, "This edge does not hold connections"));
    for method in ["POST", "MESSAGE", "HEAD"] {
        let response = ask(method, (false, true));
        assert_eq!((response.code, header(&response, "Allow")), (405, Some("GET, OPTIONS")));
    }
    let response = ask("OPTIONS", (false, true));
    let allowed = header(&response, "Access-Control-Allow-Methods");
    assert_eq!((response.code, allowed), (204, Some("GET, OPTIONS")));
}

#[tokio::test]
async fn a_socket_is_held_as_it_should_be() {
    let bench = Bench::new().await;
    let response = bench.ask(&format!("/ws/acme?token={}", reader()), &[]);
    assert_eq!(first(&response), json!({"type": "open", "expires": NOW_S + 120}));
    assert_eq!(header(&response, "Sec-WebSocket-Protocol"), None);
    let hold = response.hold.unwrap();
    assert_eq!(hold.format, Format::Ws);
    assert_eq!((&*hold.messages, hold.persistent, hold.notify), ("/ws/", true, false));
    // A minute, and the leeway.
    assert_eq!((hold.expires, hold.expires_code), (Some(Duration::from_secs(120)), 3000));
    assert!(hold.channels.is_empty());
}

#[tokio::test]
async fn without_a_token_it_is_closed_soon() {
    let bench = Bench::new().await;
    let response = bench.ask("/ws/acme", &[]);
    assert_eq!(first(&response), json!({"type": "open"}));
    let hold = response.hold.unwrap();
    assert_eq!((hold.expires, hold.expires_code), (Some(Duration::from_secs(10)), 3502));
    // An empty one is none.
    assert_eq!(first(&bench.ask("/ws/acme?token=", &[])), json!({"type": "open"}));
}

#[tokio::test]
async fn a_token_comes_in_four_ways() {
    let bench = Bench::new().await;
    let token = reader();
    let (bearer, protocol) = (format!("Bearer {token}"), format!("forebay.token.{token}"));
    let protocols = format!("forebay.v1, {protocol}");
    let in_query = format!("/ws/acme?token={token}");
    let ways: [(&str, &[(&str, &str)]); 4] = [
        ("/ws/acme", &[("Authorization", &bearer)]),
        (&in_query, &[]),
        ("/ws/acme", &[("Sec-WebSocket-Protocol", &protocols)]),
        (
            "/ws/acme",
            &[("sec-websocket-protocol", &protocol), ("Sec-WebSocket-Protocol", "forebay.v1")],
        ),
    ];
    let subscribe = json!({"type": "subscribe", "channel": "news"});
    for (uri, headers) in ways {
        let response = bench.ask(uri, headers);
        assert_eq!(first(&response)["expires"], NOW_S + 120);
        let chosen = headers.iter().any(|(_, value)| value.contains("forebay.v1"));
        let expected = chosen.then_some("forebay.v1");
        assert_eq!(header(&response, "Sec-WebSocket-Protocol"), expected);
        let mut client = Client::new(&bench, &response);
        assert_eq!(client.ask(&subscribe).await["type"], "answer");
    }
    // In any message.
    let mut client = bench.client();
    assert_eq!(client.refused(&subscribe).await, permanent("unauthorized"));
    let request = json!({"type": "subscribe", "channel": "news", "token": token});
    assert_eq!(client.ask(&request).await["type"], "answer");
    assert_eq!(client.expires, Expires { after: Some(Duration::from_secs(120)), code: 3000 });
    assert_eq!(client.ask(&subscribe).await["type"], "answer");
}

#[tokio::test]
async fn what_a_page_sends_counts_before_a_header() {
    let bench = Bench::new().await;
    let (good, bad) = (reader(), "Bearer x".to_owned());
    let protocol = format!("forebay.token.{good}");
    let in_query = format!("/ws/acme?token={good}");
    let by_query = bench.ask(&in_query, &[("Authorization", &bad)]);
    assert_eq!(first(&by_query)["type"], "open");
    let headers = [("Authorization", &*bad), ("Sec-WebSocket-Protocol", &*protocol)];
    assert_eq!(first(&bench.ask("/ws/acme", &headers))["type"], "open");
    let by_query = bench.ask("/ws/acme?token=x", &headers);
    assert_eq!(first(&by_query)["type"], "error");
}

#[tokio::test]
async fn a_token_that_is_refused_is_a_status_or_a_close() {
    let bench = Bench::new().await;
    let long: Vec<String> = (0..8).map(|n| format!("{n}{}", "c".repeat(127))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let too_long = "What the tokens cover does not fit the 1024 bytes that a socket may have";
    let refused = [
        ("x".to_owned(), 401, 3500, "invalid_token", "Invalid token"),
        (
            token_at(Role::Subscriber, "acme", &["a"], NOW_S - 121),
            401,
            3500,
            "invalid_token",
            "Token expired",
        ),
        (
            token_at(Role::Publisher, "acme", &["a"], NOW_S - 121),
            401,
            3500,
            "invalid_token",
            "Token expired",
        ),
        (
            token(Role::Subscriber, "other", &["a"]),
            403,
            3501,
            "forbidden",
            "The token does not cover this org",
        ),
        (token(Role::Subscriber, "acme", &long), 401, 3500, "invalid_token", too_long),
    ];
    for (token, status, close, code, text) in refused {
        let bearer = format!("Bearer {token}");
        let response = bench.ask("/ws/acme", &[("Authorization", &bearer)]);
        assert_eq!((answer(&response), response.hold.is_none()), ((status, text), true));
        let protocols = format!("forebay.token.{token}, forebay.v1");
        for (uri, headers) in [
            (format!("/ws/acme?token={token}"), vec![]),
            ("/ws/acme".to_owned(), vec![("Sec-WebSocket-Protocol", &*protocols)]),
        ] {
            let response = bench.ask(&uri, &headers);
            let kind = "permanent";
            let expected = json!({"type": "error", "code": code, "kind": kind, "message": text});
            assert_eq!(first(&response), expected);
            let client = Client::new(&bench, &response);
            let soon = Expires { after: Some(Duration::from_secs(1)), code: close };
            assert_eq!(client.expires, soon);
            // It may say something before that.
            let said = client.said(&[r#"{"type":"ping"}"#.to_owned()]);
            let answer = bench.sockets.message(&said, NOW_MS).await;
            assert_eq!(answer, Answer::close(close, ""));
        }
    }
    let response = bench.ask("/ws/acme", &[("Authorization", "Basic x")]);
    assert_eq!(answer(&response), (401, "Invalid authorization format"));
    assert_eq!(header(&response, "WWW-Authenticate"), Some("Bearer"));
}
