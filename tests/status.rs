//! Every row of the status tables of `docs/channels.md`, produced by the running system: the exact body, and the headers
//! that go with it.
//!
//! The rows of a store that is away come from a Redis that is killed.

#![allow(clippy::unwrap_used)]

mod support;

use forebay_handlers::auth::Role;
use serde_json::{Value, json};
use support::process::{Process, forebay};
use support::up::{DataDir, NO_RATE, ORG};
use support::{Request, Response, Up, eventually, get, post};

/// The largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 16_384;

/// What says what a cursor is.
const CURSOR: &str = "a cursor is <epoch>-<offset>, two decimal numbers";

/// Checks an answer: its status, its whole body, and headers by their name and value.
#[track_caller]
fn check(up: &Up, request: &Request, status: u16, body: &str, headers: &[(&str, &str)]) {
    let response = up.send(request);
    assert_eq!(response.answer(), (status, body), "{request:?}");
    let cors = [("Access-Control-Allow-Origin", "*")];
    for (name, value) in headers.iter().chain(&cors) {
        assert_eq!(response.header(name), Some(*value), "{name} of {request:?}");
    }
}

/// Checks a 401: it has a challenge (RFC 9110 §15.5.2).
#[track_caller]
fn check_401(up: &Up, request: &Request, body: &str) {
    check(up, request, 401, body, &[("WWW-Authenticate", "Bearer")]);
}

/// A JSON message of so many bytes.
fn message_of(bytes: usize) -> String {
    let empty = json!({"payload": {"value": ""}}).to_string();
    json!({"payload": {"value": "x".repeat(bytes - empty.len())}}).to_string()
}

/// `POST` to a path, with a token for everything.
fn posting(up: &Up, path: &str) -> Request {
    let token = up.dir.token(Role::Publisher, ORG, &["*"]);
    post(path).bearer(&token).header("Content-Type", "application/json")
}

#[test]
fn a_publisher_is_told_what_is_wrong_with_its_message() {
    let up = Up::start();
    let json =
        |body: &str| up.publishing("c", "").header("Content-Type", "application/json").body(body);
    let bad = |request: &Request, body: &str| check(&up, request, 400, body, &[]);

    let protobuf = |body: &[u8]| up.publishing("c", "").body(body);
    bad(&protobuf(b"\x0a\xff"), "Invalid protobuf");
    bad(&protobuf(b"\x0a\x01x"), "channel_id differs from the path");
    bad(&protobuf(b""), "channel_id differs from the path");
    bad(&protobuf(b"\x0a\x01c\x12\x01x"), "message_id is not a UUID");
    bad(&json("{"), "Invalid JSON: EOF while parsing an object at line 1 column 1");
    bad(&json(r#"{"channel_id":"d"}"#), "channel_id differs from the path");
    bad(&json(r#"{"message_id":"12"}"#), "message_id is not a UUID");
    bad(&json("[{},"), "Invalid JSON: EOF while parsing a value at line 1 column 4");

    let channel = "Invalid path: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -";
    bad(&posting(&up, "/publish/1/a%20b").body("{}"), channel);
    bad(&posting(&up, &format!("/publish/1/{}", "c".repeat(129))).body("{}"), channel);
    let org = "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -";
    bad(&posting(&up, "/publish/a.b/c").body("{}"), org);
    bad(&posting(&up, "/publish/1/%zz").body("{}"), "Invalid path: malformed percent-encoding");
    let expect = "Invalid expect: an offset is a number from 0";
    bad(&posting(&up, "/publish/1/c?expect=-1").body("{}"), expect);
    bad(&posting(&up, "/publish/1/c?expect=").body("{}"), expect);
    bad(&posting(&up, "/publish/1/c?expect=1").body("[]"), "expect is not for batches");
    bad(&posting(&up, "/publish/1/c?ack=maybe").body("{}"), "Invalid ack: stored or accepted");
    assert!(up.all_events("c").is_empty());
}

#[test]
fn a_publisher_is_told_what_is_wrong_with_its_token() {
    let up = Up::start();
    let path = "/publish/1/c";
    let with = |header: &str| post(path).header("Authorization", header);
    let bearer = |token: &str| post(path).bearer(token);
    let token = |role, org: &str, channels: &[&str]| up.dir.token(role, org, channels);
    let good = token(Role::Publisher, ORG, &["c"]);

    check_401(&up, &post(path), "Missing authorization header");
    for header in ["Basic dTpw", "Bearer", &good] {
        check_401(&up, &with(header), "Invalid authorization format");
    }
    let expired = up.dir.token_aged(Role::Publisher, ORG, &["c"], 10_000);
    check_401(&up, &bearer(&expired), "Token expired");
    let failed = "Token validation failed";
    check_401(&up, &bearer("x"), failed);
    check_401(&up, &bearer(&good[..good.len() - 4]), failed);
    check_401(&up, &bearer(&token(Role::Subscriber, ORG, &["c"])), failed);
    // Keys of another server.
    check_401(&up, &bearer(&DataDir::new().token(Role::Publisher, ORG, &["c"])), failed);

    let scope = "Token not valid for this channel";
    for other in [token(Role::Publisher, "2", &["c"]), token(Role::Publisher, ORG, &["d"])] {
        check(&up, &bearer(&other), 403, scope, &[("Content-Type", "text/plain; charset=utf-8")]);
    }
    for covers in [&[][..], &["*"], &["d", "c*"]] {
        let token = token(Role::Publisher, ORG, covers);
        up.send(&bearer(&token).header("Content-Type", "application/json").body("{}")).good();
    }
}

#[test]
fn a_publisher_is_told_where_it_stands() {
    let up = Up::start();
    let text = ("Content-Type", "text/plain; charset=utf-8");
    let message = json!({"message_id": "97f58c19-ce38-4c6b-8a5b-47f3405691f0"});
    let stored = up.send(&up.publishing("c", "").json(&message));
    let id = stored.good();
    assert_eq!(stored.header("Content-Type"), Some(text.1));
    assert_eq!(stored.header("Forebay-Duplicate"), None);
    check(
        &up,
        &up.publishing("c", "").json(&message),
        200,
        id,
        &[("Forebay-Duplicate", "true"), text],
    );
    check(&up, &up.publishing("c", "?ack=accepted").json(&json!({})), 202, "", &[]);
    let conflict = format!(r#"{{"error":"conflict","head":"{id}"}}"#);
    let request = up.publishing("other", "?expect=5").json(&json!({}));
    check(&up, &request, 409, r#"{"error":"conflict","head":"0-0"}"#, &[]);
    eventually("the accepted message is stored", || (up.all_events("c").len() == 2).then_some(()));
    let head = up.all_events("c").pop().unwrap().0;
    let request = up.publishing("c", "?expect=1").json(&json!({}));
    check(
        &up,
        &request,
        409,
        &conflict.replace(id, &head),
        &[("Content-Type", "application/json")],
    );

    let slash = "Not found";
    for path in ["/publish/1", "/publish/1/", "/publish/1/c/d", "/publish/"] {
        check(&up, &posting(&up, path).body("{}"), 404, slash, &[]);
    }
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let request = Request::new(method, "/publish/1/c");
        check(&up, &request, 405, "Method not allowed", &[("Allow", "POST, OPTIONS")]);
    }
    let preflight = Request::new("OPTIONS", "/publish/1/c").header("Origin", "http://example.org");
    let allowed = [
        ("Access-Control-Allow-Methods", "POST, OPTIONS"),
        ("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"),
    ];
    check(&up, &preflight, 204, "", &allowed);
}

#[test]
fn a_message_that_is_too_large_is_refused() {
    let up = Up::start();
    let json =
        |body: String| up.publishing("c", "").header("Content-Type", "application/json").body(body);
    up.send(&json(message_of(MESSAGE_BYTES_MAX))).good();
    let too_large = "Message size 16385 exceeds maximum of 16384 bytes";
    check(&up, &json(message_of(MESSAGE_BYTES_MAX + 1)), 413, too_large, &[]);

    // By what the head says, before any of the body is there.
    let declared = up.publishing("c", "").header("Content-Length", "16385");
    check(&up, &declared, 413, too_large, &[]);
    let declared = json(String::new()).header("Content-Length", "1048577");
    check(&up, &declared, 413, "Batch size 1048577 exceeds maximum of 1048576 bytes", &[]);
    // Without a word of it in the head: as soon as it is seen.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let chunked = up.publishing("c", "").header("Transfer-Encoding", "chunked").body(chunk);
    let refused = up.send(&chunked);
    let body = refused.text();
    assert!(refused.status() == 413 && body.starts_with("Message size "), "{refused:?}");
    assert!(body.ends_with(" exceeds maximum of 16384 bytes"), "{body}");

    // In a batch each for itself; and a batch has its own limits.
    let large: Value = serde_json::from_str(&message_of(MESSAGE_BYTES_MAX + 1)).unwrap();
    let items = up.send(&up.publishing("c", "").json(&json!([large, {}]))).json();
    assert_eq!(items[0], json!({"status": 413, "error": too_large}));
    assert_eq!(items[1]["status"], 200);
    let many = json(format!("[{}]", vec!["{}"; 1001].join(",")));
    check(&up, &many, 413, "Batch exceeds maximum of 1000 messages", &[]);

    let other = |kind: &str| up.publishing("c", "").header("Content-Type", kind).body("{}");
    let text = "Unsupported content type text/plain";
    check(&up, &other("text/plain; charset=utf-8"), 415, text, &[]);
    let form = "Unsupported content type application/x-www-form-urlencoded";
    check(&up, &other("application/x-www-form-urlencoded"), 415, form, &[]);
}

#[test]
fn a_publisher_that_is_too_fast_is_told_when_to_come_again() {
    let up = Up::start_with(&[]);
    let limited = "Rate limit exceeded: maximum 20 requests per 1 second(s) per channel";
    let batch = Value::Array(vec![json!({}); 100]);
    // Whatever the machine, some window takes more than it may.
    let (one, item) = eventually("a message is refused", || {
        let items = up.send(&up.publishing("c", "").json(&batch)).json();
        let items = items.as_array().unwrap();
        assert!(
            items.iter().all(|item| item["status"] == 200 || item["status"] == 429),
            "{items:?}"
        );
        let item = items.iter().find(|item| item["status"] == 429)?.clone();
        let one = up.send(&up.publishing("c", "").json(&json!({})));
        (one.status() == 429).then_some((one, item))
    });
    assert_eq!(one.text(), limited);
    assert_eq!(one.header("Retry-After"), Some("1"));
    assert_eq!(one.header("Forebay-Limit"), Some("channel-rate"));
    assert_eq!(item, json!({"status": 429, "error": limited, "retry_after": 1}));
    // Another channel has its own.
    up.delta("d", 1);
}

#[test]
fn a_reader_is_told_what_is_wrong() {
    let up = Up::start();
    up.delta("c", 1);
    let token = |org: &str, channels: &[&str]| up.dir.token(Role::Subscriber, org, channels);
    let good = token(ORG, &["*"]);
    let events = |query: &str| get(format!("/events/1?{query}&token={good}"));
    let bad = |request: &Request, body: &str| check(&up, request, 400, body, &[]);

    bad(&get(format!("/events/1?token={good}")), "Missing channel_id");
    bad(&events("channel_id="), "Missing channel_id");
    let channel = "Invalid channel_id: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -";
    bad(&events("channel_id=a/b"), channel);
    bad(&events("channel_id=%zz"), "Invalid query: Malformed percent-encoding");
    let many: String = (0..101).map(|number| format!("channel_id={number}&")).collect();
    bad(&events(&many), "Too many channels: at most 100");
    let cursor = format!("Invalid last_event_id: {CURSOR}");
    for id in ["x", "1", "1-", "-1", "1-1-1", "99999999999999999999-1", "01-1"] {
        bad(&events(&format!("channel_id=c&last_event_id={id}")), &cursor);
        bad(&events("channel_id=c").header("Last-Event-ID", id), &cursor);
    }
    let several = "Invalid last_event_id: several channels need the id of an event of all of them";
    bad(&events("channel_id=c&channel_id=d&last_event_id=5-1"), several);
    bad(&get("/events/a.b?channel_id=c"), "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -");

    let read = |token: &str| get(format!("/events/1?channel_id=c&token={token}"));
    check_401(&up, &read(""), "Invalid token");
    check_401(&up, &read("x.y.z"), "Invalid token");
    check_401(
        &up,
        &get("/events/1?channel_id=c").header("Authorization", "Basic x"),
        "Invalid token",
    );
    check_401(&up, &read(&up.dir.token(Role::Publisher, ORG, &["c"])), "Invalid token");
    let expired = up.dir.token_aged(Role::Subscriber, ORG, &["c"], 10_000);
    check_401(&up, &read(&expired), "Token expired");
    for other in [token("2", &["c"]), token(ORG, &["d", "cc*"])] {
        check(&up, &read(&other), 403, "Invalid token claims", &[]);
    }
    let both = format!("/events/1?channel_id=c&channel_id=d&token={}", token(ORG, &["c"]));
    check(&up, &get(both), 403, "Invalid token claims", &[]);

    for path in ["/events/", "/events/1/c"] {
        check(&up, &get(path), 404, "Not found", &[]);
    }
    for method in ["POST", "PUT", "DELETE"] {
        let request = Request::new(method, "/events/1?channel_id=c");
        check(&up, &request, 405, "Method not allowed", &[("Allow", "GET, OPTIONS")]);
    }
}

#[test]
fn a_reader_of_history_is_told_what_is_wrong() {
    let up = Up::start();
    up.delta("c", 1);
    let bad = |query: &str, body: &str| check(&up, &up.history("c", query), 400, body, &[]);
    bad("?after=x", &format!("Invalid after: {CURSOR}"));
    for limit in ["0", "1001", "x", "-1"] {
        bad(&format!("?limit={limit}"), "Invalid limit: 1 to 1000 events");
    }
    for wait in ["31", "x", "-1", "1.5"] {
        bad(&format!("?wait={wait}"), "Invalid wait: 0 to 30 seconds");
    }
    let channel = "Invalid path: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -";
    check(&up, &up.history("a%20b", ""), 400, channel, &[]);
    for path in ["/channels/1/c", "/channels/1/c/head"] {
        check_401(&up, &get(path), "Invalid token");
        let expired = up.dir.token_aged(Role::Subscriber, ORG, &["c"], 10_000);
        check_401(&up, &get(path).bearer(&expired), "Token expired");
        let other = up.dir.token(Role::Subscriber, ORG, &["d"]);
        check(&up, &get(path).bearer(&other), 403, "Invalid token claims", &[]);
    }

    let delete = |channel: &str| Request::new("DELETE", format!("/channels/1/{channel}"));
    check_401(&up, &delete("c"), "Missing authorization header");
    let reader = up.dir.token(Role::Subscriber, ORG, &["c"]);
    check_401(&up, &delete("c").bearer(&reader), "Token validation failed");
    let token = up.dir.token(Role::Publisher, ORG, &["none", "c"]);
    check(&up, &delete("none").bearer(&token), 404, "Unknown channel", &[]);
    let other = up.dir.token(Role::Publisher, ORG, &["d"]);
    check(&up, &delete("c").bearer(&other), 403, "Token not valid for this channel", &[]);
    assert_eq!(up.all_events("c").len(), 1);
}

/// What makes a Redis keep everything in a file.
const KEEPING: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

#[test]
fn while_the_store_is_away_nobody_is_sent_away_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Process::redis(directory.path(), KEEPING);
    let url = format!("redis+unix://{}", directory.path().join("redis.sock").display());
    let up = Up::start_with(&["--redis", &url, NO_RATE]);
    let first = up.delta("c", "first");
    let mut connected = up.read(&up.reading(&["c"]));
    assert_eq!(connected.event().id, first);
    redis.kill();

    let message = json!({"message_id": "97f58c19-ce38-4c6b-8a5b-47f3405691f0", "payload": {"value": "second"}});
    let publish = || up.send(&up.publishing("c", "").json(&message));
    let away = |response: &Response| {
        assert_eq!(response.answer(), (503, "Store unavailable"));
        assert_eq!(response.header("Retry-After"), Some("1"));
    };
    away(&publish());
    let items = up.send(&up.publishing("c", "").json(&json!([{}, {"message_id": 1}]))).json();
    assert_eq!(items[0], json!({"status": 503, "error": "Store unavailable", "retry_after": 1}));
    assert_eq!(items[1]["status"], 400);
    away(&up.send(&up.history("c", "")));
    away(&up.send(&up.history("c", "/head")));
    let token = up.dir.token(Role::Subscriber, ORG, &["c"]);
    away(&up.send(&get("/events/1?channel_id=c").bearer(&token)));
    // An EventSource would not come again, so it is taken, and waits.
    let mut waiting = up.read(&up.reading(&["c"]).after(&first));
    let not_ready = eventually("it is not ready", || {
        let response = up.send(&get("/readyz"));
        (response.status() == 503).then(|| response.json())
    });
    assert_eq!(not_ready["status"], "not ready");
    assert_eq!(up.send(&get("/healthz")).status(), 200);

    let _redis = Process::redis(directory.path(), KEEPING);
    let second = eventually("the message is stored", || {
        let response = publish();
        if response.status() == 503 {
            away(&response);
            return None;
        }
        Some(response.good().to_owned())
    });
    for stream in [&mut connected, &mut waiting] {
        let event = stream.event();
        assert_eq!((event.id.as_str(), event.value()), (&*second, json!("second")));
    }
    let stored: Vec<_> = up.all_events("c").into_iter().map(|(id, _)| id).collect();
    assert_eq!(stored, [first, second]);
}

#[test]
fn what_no_handler_serves_is_not_found() {
    let dir = DataDir::new();
    let mut command = forebay();
    command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    // So long handlers have to come before it is known what none of them serves.
    let process = Process::spawn(command.env("FOREBAY_HANDLER_WAIT", "0.1"));
    let address = process.line_with("ready http://");
    eventually("the edge knows its handlers", || {
        (get("/").send(&address).status() == 404).then_some(())
    });
    let response = get("/nothing").send(&address);
    assert_eq!((response.status(), response.text()), (404, "No handler serves this"));
}
