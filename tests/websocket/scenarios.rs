//! What `docs/channels.md`, "WebSocket", promises to a client, whoever made it.
//!
//! Each function is one promise, kept on channels of its own; all of them run against the same system, which has the usual
//! limit on the rate of a channel.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uuid::Uuid;

use super::peer::{Make, Opening};
use super::socket::{Attempt, Socket, delta_request};
use super::system::System;
use crate::support::eventually;
use crate::support::up::ORG;

/// Who runs a scenario: a make, and whether with compression.
pub type Client = (Make, bool);

/// One promise, and its name.
type Scenario = (&'static str, fn(&System, Client));

/// For how long the tokens of these tests are good, with the leeway.
const GOOD_S: u64 = 600 + 60;

const PERMANENT: &str = "permanent";

/// The largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The largest publish, in bytes, as it is sent.
const PUBLISH_BYTES_MAX: usize = 16 * 1024;

/// How many channels a socket may read.
const CHANNELS_MAX: usize = 128;

/// All of them.
pub const ALL: [Scenario; 17] = [
    ("a token comes in each way", a_token_comes_in_each_way),
    ("a token that is refused", a_token_that_is_refused),
    ("a reader begins where it says", a_reader_begins_where_it_says),
    ("who has missed something is told", who_has_missed_something_is_told),
    ("a socket reads so many channels", a_socket_reads_so_many_channels),
    ("much at once comes whole", much_at_once_comes_whole),
    ("what is published is answered", what_is_published_is_answered),
    ("what is wrong with a publish is said", what_is_wrong_with_a_publish_is_said),
    ("a channel has a rate", a_channel_has_a_rate),
    ("history and heads are those of HTTP", history_and_heads_are_those_of_http),
    ("nothing comes after an unsubscribe", nothing_comes_after_an_unsubscribe),
    ("a socket outlives the end of its channels", a_socket_outlives_the_end_of_its_channels),
    ("a token is refreshed", a_token_is_refreshed),
    ("what is no request is answered", what_is_no_request_is_answered),
    ("an id is repeated as it is", an_id_is_repeated_as_it_is),
    ("a message has a largest size", a_message_has_a_largest_size),
    ("closes and pings are answered", closes_and_pings_are_answered),
];

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `expires` is what a token says that was made between `before_s` and now.
#[track_caller]
fn expires_of_new(message: &Value, before_s: u64) {
    let expires_s = message["expires"].as_u64().unwrap_or_else(|| panic!("{message}"));
    assert!((before_s + GOOD_S..=now_s() + GOOD_S).contains(&expires_s), "{message}");
}

fn a_token_comes_in_each_way(system: &System, (make, compression): Client) {
    let channel = "ways";
    let id = system.delta(channel, "before");
    let (before_s, token) = (now_s(), system.reader(&[channel]));
    let opening = |url: String| Opening::new(url).compressed(compression);
    let url = system.url();
    let openings = [
        opening(url.clone()).header("Authorization", format!("Bearer {token}")),
        opening(format!("{url}?token={token}")),
        opening(url.clone()).protocol("forebay.v1").protocol(format!("forebay.token.{token}")),
    ];
    for opening in openings {
        let (mut socket, open) = Socket::open(make, &opening);
        expires_of_new(&open, before_s);
        let offers = !opening.command()["protocols"].as_array().unwrap().is_empty();
        assert_eq!(socket.opened["protocol"], json!(offers.then_some("forebay.v1")));
        assert_eq!(socket.opened["extensions"].is_string(), compression, "{}", socket.opened);
        assert_eq!(socket.subscribe(channel, None), "0-0");
        assert_eq!(socket.event_of(channel, &id)["payload"]["value"], "before");
    }
    let (mut socket, open) = Socket::open(make, &opening(url));
    assert_eq!(open, json!({"type": "open"}));
    let subscribe = json!({"type": "subscribe", "channel": channel});
    assert_eq!(socket.refused(subscribe.clone()).is(), ("unauthorized", PERMANENT));
    let mut with_token = subscribe.clone();
    with_token["token"] = token.into();
    socket.done(with_token);
    socket.event_of(channel, &id);
    // From then on it needs none.
    socket.done(subscribe);
    socket.event_of(channel, &id);
}

fn a_token_that_is_refused(system: &System, (make, compression): Client) {
    let expired = system.dir.token_aged(crate::auth::Role::Subscriber, ORG, &["a"], 2 * GOOD_S);
    let foreign = system.dir.token(crate::auth::Role::Subscriber, "other", &["a"]);
    let cases = [
        (expired, 401, "Token expired", "invalid_token", 3500),
        ("nonsense".to_owned(), 401, "Invalid token", "invalid_token", 3500),
        (foreign, 403, "The token does not cover this org", "forbidden", 3501),
    ];
    let url = system.url();
    let mut told = Vec::new();
    for (token, status, text, code, close) in cases {
        let opening = Opening::new(&url).compressed(compression);
        match Socket::attempt(make, &opening.header("Authorization", format!("Bearer {token}"))) {
            Attempt::Opened(_) => panic!("a socket with a token that is not good: {text}"),
            Attempt::Not(why) => {
                assert_eq!(why, json!({"refused": {"status": status, "body": text}}));
            }
        }
        let by_query = Opening::new(format!("{url}?token={token}"));
        let by_protocol = Opening::new(&url).protocol("forebay.v1");
        let by_protocol = by_protocol.protocol(format!("forebay.token.{token}"));
        for opening in [by_query, by_protocol] {
            let Attempt::Opened(mut socket) =
                Socket::attempt(make, &opening.compressed(compression))
            else {
                panic!("a page would not see why");
            };
            let error = json!({"type": "error", "code": code, "kind": PERMANENT, "message": text});
            assert_eq!(socket.message(), error);
            told.push((socket, close));
        }
    }
    for (mut socket, close) in told {
        assert_eq!(socket.closed(), close);
    }
}

fn a_reader_begins_where_it_says(system: &System, client: Client) {
    let channels = ["begin-oldest", "begin-cursor", "begin-now"];
    // Line breaks, quotes, a character of four bytes; and something to compress.
    let values =
        [json!("a\r\nb\"\\"), json!("\u{1f40c}é\u{2028}\u{0}"), json!("long ".repeat(900))];
    let mut ids: Vec<Vec<String>> = Vec::new();
    for channel in channels {
        ids.push(values.iter().map(|value| system.delta(channel, value.clone())).collect());
    }
    let mut socket = system.socket(client, "begin-");
    assert_eq!(socket.subscribe(channels[0], None), "0-0");
    for (id, value) in ids[0].iter().zip(&values) {
        assert_eq!(&socket.event_of(channels[0], id)["payload"]["value"], value);
    }
    assert_eq!(socket.subscribe(channels[1], Some(&ids[1][1])), ids[1][1]);
    assert_eq!(socket.event_of(channels[1], &ids[1][2])["payload"]["value"], values[2]);
    assert_eq!(socket.subscribe(channels[2], Some("$")), ids[2][2]);
    // Live, in the order of each channel; data is exactly what history has.
    for number in 0..5 {
        for channel in channels {
            let value = json!({"number": number, "nested": [null, true, {"é": "\t"}]});
            system.delta(channel, value);
        }
    }
    let mut live: Vec<Value> = (0..5 * channels.len()).map(|_| socket.event()).collect();
    for channel in channels {
        let came: Vec<(String, Value)> = live
            .iter_mut()
            .filter(|event| event["channel"] == channel)
            .map(|event| (event["cursor"].as_str().unwrap().to_owned(), event["data"].take()))
            .collect();
        assert_eq!(came, system.history(channel)[values.len()..], "{channel}");
    }
    // Anew from the beginning.
    assert_eq!(socket.subscribe(channels[2], Some("0-0")), "0-0");
    for (id, _) in system.history(channels[2]) {
        socket.event_of(channels[2], &id);
    }
    let refusal = socket.refused(json!({
        "type": "subscribe", "channel": channels[0], "cursor": "yesterday"
    }));
    assert_eq!(refusal.is(), ("bad_request", PERMANENT));
    socket.is_alive();
    socket.has_no_event();
}

fn who_has_missed_something_is_told(system: &System, client: Client) {
    let channel = "gap";
    let id = system.delta(channel, 1);
    let mut socket = system.socket(client, channel);
    assert_eq!(socket.subscribe(channel, Some("1-1")), "1-1");
    let gap = socket.event();
    assert_eq!((&gap["channel"], &gap["event"]), (&json!(channel), &json!("control")), "{gap}");
    let data = &gap["data"];
    assert_eq!(
        (&data["control_type"], &data["from"], &data["to"], &data["reason"]),
        (&json!("gap"), &json!("1-1"), &json!(id), &json!("recreated"))
    );
    socket.event_of(channel, &id);
    // Behind the gap nothing is missing.
    socket.subscribe(channel, gap["cursor"].as_str());
    socket.event_of(channel, &id);
    socket.has_no_event();
}

fn a_socket_reads_so_many_channels(system: &System, client: Client) {
    let name = |number: usize| format!("many-{number}");
    let mut socket = system.socket(client, "many-");
    // All at once, as a client does that comes back.
    for number in 0..=CHANNELS_MAX {
        socket.say(&json!({"type": "subscribe", "channel": name(number), "id": number}));
    }
    for number in 0..CHANNELS_MAX {
        let answer = socket.message();
        let result = json!({"channel": name(number), "cursor": "0-0"});
        assert_eq!(answer, json!({"type": "answer", "id": number, "result": result}));
    }
    let refused = socket.message();
    assert_eq!(
        (&refused["id"], &refused["code"]),
        (&json!(CHANNELS_MAX), &json!("too_many_channels"))
    );
    for number in [0, CHANNELS_MAX / 2, CHANNELS_MAX - 1] {
        let id = system.delta(&name(number), number);
        socket.event_of(&name(number), &id);
    }
    socket.done(json!({"type": "unsubscribe", "channel": name(0)}));
    socket.subscribe(&name(CHANNELS_MAX), None);
    let id = system.delta(&name(CHANNELS_MAX), 1);
    socket.event_of(&name(CHANNELS_MAX), &id);
    socket.has_no_event();
}

/// A text of so many characters that is not compressed to nearly nothing.
fn noise(len: usize, seed: u64) -> String {
    let mut state = seed;
    let mut letter = || {
        // An odd multiplier and addend have all numbers in a row (Knuth, MMIX).
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from(state >> 58).unwrap())
    };
    (0..len).map(|_| letter()).collect()
}

fn much_at_once_comes_whole(system: &System, client: Client) {
    // Together nearly what a page of history has at most.
    const EVENTS: u64 = 18;
    const VALUE_LEN: usize = 13_000;
    let channel = "much";
    let mut socket = system.socket(client, channel);
    let ids: Vec<String> =
        (0..EVENTS).map(|seed| socket.delta(channel, noise(VALUE_LEN, seed))).collect();
    socket.subscribe(channel, None);
    for (id, seed) in ids.iter().zip(0..) {
        assert_eq!(socket.event_of(channel, id)["payload"]["value"], noise(VALUE_LEN, seed));
    }
    let page = socket.done(json!({"type": "history", "channel": channel}));
    assert_eq!(page, system.channel(channel, "").json());
    assert_eq!(page["next"], json!(ids.last()));
    socket.has_no_event();
}

fn what_is_published_is_answered(system: &System, client: Client) {
    let channel = "answered";
    let mut socket = system.socket(client, channel);
    socket.subscribe(channel, None);
    let first = socket.delta(channel, 1);
    let message_id = Uuid::new_v4().to_string();
    let mut with_id = delta_request(channel, 2);
    with_id["message_id"] = message_id.as_str().into();
    let second = socket.done(with_id.clone());
    let repeated = socket.done(with_id);
    assert_eq!(repeated, json!({"id": second["id"], "duplicate": true}));
    let mut expecting = delta_request(channel, 3);
    expecting["expect"] = 2.into();
    let third = socket.done(expecting.clone());
    let refusal = socket.refused(expecting);
    assert_eq!(refusal.is(), ("conflict", PERMANENT));
    assert_eq!(refusal.data, json!({"head": third["id"]}));
    let mut accepted = delta_request(channel, 4);
    accepted["ack"] = "accepted".into();
    assert_eq!(socket.done(accepted), json!({}));
    let ids = [json!(first), second["id"].clone(), third["id"].clone()];
    let mut read = Vec::new();
    for value in 1..=4 {
        let event = socket.event();
        assert_eq!(event["data"]["payload"]["value"].as_f64(), Some(f64::from(value)), "{event}");
        read.push((event["cursor"].as_str().unwrap().to_owned(), event["data"].clone()));
    }
    assert_eq!(read[1].1["message_id"], message_id);
    assert!(read.iter().zip(&ids).all(|((cursor, _), id)| id == cursor), "{read:?} {ids:?}");
    assert_eq!(read, system.history(channel));
    // The same bytes of a publish by HTTP: the same event but for its ids.
    let message =
        json!({"message_id": Uuid::new_v4().to_string(), "phase": "PHASE_DELTA", "sequence": 9});
    let id = system.publish(channel, &message);
    assert_eq!(socket.event_of(channel, &id)["sequence"], 9);
    socket.has_no_event();
}

fn what_is_wrong_with_a_publish_is_said(system: &System, (make, compression): Client) {
    let (channel, other) = ("wrong", "wrong-other");
    let url = format!("{}?token={}", system.url(), system.reader(&[channel, other]));
    let (mut socket, _) = Socket::open(make, &Opening::new(url).compressed(compression));
    let refusal = socket.refused(delta_request(channel, 1));
    assert_eq!(refusal.is(), ("unauthorized", PERMANENT));
    let mut with_token = delta_request(channel, 1);
    with_token["token"] = "nonsense".into();
    assert_eq!(socket.refused(with_token.clone()).is(), ("invalid_token", PERMANENT));
    with_token["token"] = system.publisher(&[channel]).into();
    socket.done(with_token);
    assert_eq!(socket.refused(delta_request(other, 1)).is(), ("forbidden", PERMANENT));
    let mut foreign = delta_request(channel, 1);
    foreign["token"] = system.dir.token(crate::auth::Role::Publisher, "other", &[channel]).into();
    assert_eq!(socket.refused(foreign).is(), ("forbidden", PERMANENT));
    let of_len = |len: usize| {
        let mut request = delta_request(channel, "");
        request["id"] = 1.into();
        request["payload"]["value"] = "x".repeat(len - request.to_string().len()).into();
        request
    };
    socket.say(&of_len(PUBLISH_BYTES_MAX));
    assert_eq!(socket.reply()["type"], "answer");
    socket.say(&of_len(PUBLISH_BYTES_MAX + 1));
    let refused = socket.reply();
    let expected = json!({
        "type": "error", "id": 1, "code": "too_large", "kind": PERMANENT,
        "message": "Message size 16385 exceeds maximum of 16384 bytes"
    });
    assert_eq!(refused, expected);
    for (member, value) in [
        ("message_id", json!("no uuid")),
        ("phase", json!("PHASE_OTHER")),
        ("payload", json!([])),
        ("expect", json!(-1)),
        ("ack", json!("maybe")),
        ("channel", json!("no name")),
        ("channel_id", json!(other)),
    ] {
        let mut request = delta_request(channel, 1);
        request[member] = value;
        assert_eq!(socket.refused(request).is(), ("bad_request", PERMANENT), "{member}");
    }
    assert_eq!(system.history(channel).len(), 2);
    socket.is_alive();
}

fn a_channel_has_a_rate(system: &System, client: Client) {
    // At once it is far more than what a second allows.
    const AT_ONCE: u64 = 200;
    let channel = "rate";
    let mut socket = system.socket(client, channel);
    let limited = eventually("there is too much", || {
        for id in 0..AT_ONCE {
            let mut request = delta_request(channel, id);
            request["id"] = id.into();
            socket.say(&request);
        }
        let replies: Vec<Value> = (0..AT_ONCE).map(|_| socket.reply()).collect();
        assert!(
            replies
                .iter()
                .map(|reply| &reply["id"])
                .eq((0..AT_ONCE).map(Value::from).collect::<Vec<_>>().iter())
        );
        replies.into_iter().find(|reply| reply["type"] == "error")
    });
    assert_eq!(limited["code"], "rate_limited", "{limited}");
    assert_eq!(limited["kind"], "transient", "{limited}");
    assert_eq!(limited["data"], json!({"limit": "channel-rate", "retry_after": 1}));
    assert_eq!(
        limited["message"],
        "Rate limit exceeded: maximum 20 requests per 1 second(s) per channel"
    );
    socket.is_alive();
}

fn history_and_heads_are_those_of_http(system: &System, client: Client) {
    let channel = "history";
    let mut socket = system.socket(client, channel);
    let ids: Vec<String> = (0..6).map(|value| socket.delta(channel, value)).collect();
    let page = |socket: &mut Socket, more: Value| {
        let mut request = json!({"type": "history", "channel": channel});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        socket.done(request)
    };
    for (more, rest) in [
        (json!({}), String::new()),
        (json!({"limit": 2}), "?limit=2".to_owned()),
        (json!({"after": ids[1], "limit": 3}), format!("?after={}&limit=3", ids[1])),
        (json!({"after": "$"}), "?after=$".to_owned()),
        (json!({"after": "1-1"}), "?after=1-1".to_owned()),
    ] {
        assert_eq!(page(&mut socket, more), system.channel(channel, &rest).json(), "{rest}");
    }
    assert_eq!(page(&mut socket, json!({}))["events"][5]["id"], json!(ids[5]));
    let refusal = socket.refused(json!({"type": "history", "channel": channel, "limit": 1001}));
    assert_eq!(refusal.is(), ("bad_request", PERMANENT));
    let head = socket.done(json!({"type": "head", "channel": channel}));
    assert_eq!(head, json!({"head": ids[5], "ended": false}));
    let expected = system.channel(channel, "/head").json();
    assert_eq!((&head["head"], &head["ended"]), (&expected["head"], &expected["ended"]));
    let none = socket.done(json!({"type": "head", "channel": "history-none"}));
    assert_eq!(none, json!({"head": "0-0", "ended": false}));
    socket.is_alive();
    socket.has_no_event();
}

fn nothing_comes_after_an_unsubscribe(system: &System, client: Client) {
    let (channel, other) = ("leave-it", "leave-other");
    let mut socket = system.socket(client, "leave-");
    socket.subscribe(channel, Some("$"));
    socket.subscribe(other, Some("$"));
    let first = system.delta(channel, 1);
    socket.event_of(channel, &first);
    let left = socket.done(json!({"type": "unsubscribe", "channel": channel}));
    assert_eq!(left, json!({"channel": channel}));
    let second = system.delta(channel, 2);
    let marker = system.delta(other, 0);
    socket.event_of(other, &marker);
    socket.is_alive();
    socket.has_no_event();
    // It was there all the same; and whoever comes back begins where it says.
    assert_eq!(socket.subscribe(channel, Some(&second)), second);
    let third = system.delta(channel, 3);
    socket.event_of(channel, &third);
    // It is nothing to unsubscribe from what is not read.
    socket.done(json!({"type": "unsubscribe", "channel": "leave-none"}));
    socket.has_no_event();
}

fn a_socket_outlives_the_end_of_its_channels(system: &System, client: Client) {
    let channel = "ends";
    let mut socket = system.socket(client, channel);
    socket.subscribe(channel, None);
    let first = socket.delta(channel, 1);
    let end = json!({"type": "publish", "channel": channel, "phase": "PHASE_END"});
    let end = socket.done(end)["id"].as_str().unwrap().to_owned();
    socket.event_of(channel, &first);
    assert_eq!(socket.event_of(channel, &end)["phase"], "PHASE_END");
    let head = socket.done(json!({"type": "head", "channel": channel}));
    assert_eq!(head, json!({"head": end, "ended": true}));
    // What follows it begins a new epoch, and comes without a gap.
    let next = system.delta(channel, 2);
    assert!(next.ends_with("-1") && next != first, "{next}");
    socket.event_of(channel, &next);
    // A reader that comes with the cursor of the END gets the same.
    let mut other = system.socket(client, channel);
    assert_eq!(other.subscribe(channel, Some(&end)), end);
    other.event_of(channel, &next);
}

fn a_token_is_refreshed(system: &System, (make, compression): Client) {
    let (channel, other) = ("refresh-a", "refresh-b");
    let role = crate::auth::Role::Subscriber;
    let before_s = now_s();
    let old = system.dir.token_aged(role, ORG, &[channel], 300);
    let opening = Opening::new(format!("{}?token={old}", system.url()));
    let (mut socket, open) = Socket::open(make, &opening.compressed(compression));
    let expires_s = open["expires"].as_u64().unwrap();
    assert!((before_s + GOOD_S - 300..=now_s() + GOOD_S - 300).contains(&expires_s), "{open}");
    socket.subscribe(channel, None);
    let subscribe_other = json!({"type": "subscribe", "channel": other});
    assert_eq!(socket.refused(subscribe_other.clone()).is(), ("forbidden", PERMANENT));
    let before_s = now_s();
    let refresh = |token: &str| json!({"type": "refresh", "token": token});
    expires_of_new(&socket.done(refresh(&system.reader(&[channel, other]))), before_s);
    socket.done(subscribe_other);
    let refusal = socket.refused(refresh(&system.reader(&[channel])));
    assert_eq!(refusal.is(), ("invalid_token", PERMANENT), "{refusal:?}");
    let expired = system.dir.token_aged(role, ORG, &[channel, other], 2 * GOOD_S);
    let refusal = socket.refused(refresh(&expired));
    assert_eq!((refusal.is(), &*refusal.message), (("invalid_token", PERMANENT), "Token expired"));
    assert_eq!(socket.refused(json!({"type": "refresh"})).is(), ("bad_request", PERMANENT));
    // What was subscribed to with the first token comes, and the second counts still.
    for name in [channel, other] {
        let id = system.delta(name, 1);
        socket.event_of(name, &id);
    }
}

fn what_is_no_request_is_answered(system: &System, client: Client) {
    let mut socket = system.socket(client, "malformed");
    let binary = json!({"do": "binary", "hex": "7b7d"});
    let text = |text: &str| json!({"do": "text", "text": text});
    for (command, id) in [
        (text("no JSON"), Value::Null),
        (text(""), Value::Null),
        (text("[]"), Value::Null),
        (text("\"ping\""), Value::Null),
        (binary, Value::Null),
        (text(r#"{"id":1"#), Value::Null),
        (text("{}"), Value::Null),
        (text(r#"{"id":1}"#), json!(1)),
        (text(r#"{"id":2,"type":7}"#), json!(2)),
        (text(r#"{"id":"3","type":"dance"}"#), json!("3")),
        (text(r#"{"id":4,"type":"subscribe"}"#), json!(4)),
        (text(r#"{"id":5,"type":"head","channel":["a"]}"#), json!(5)),
        (text(r#"{"id":6,"type":"ping","token":6}"#), json!(6)),
        (text(r#"{"id":true,"type":"ping"}"#), Value::Null),
    ] {
        socket.peer.tell(&command);
        let reply = socket.reply();
        assert_eq!(
            (&reply["type"], &reply["id"], &reply["code"], &reply["kind"]),
            (&json!("error"), &id, &json!("bad_request"), &json!(PERMANENT)),
            "{command}: {reply}"
        );
        assert!(!reply["message"].as_str().unwrap().is_empty());
        assert_eq!(reply.as_object().unwrap().contains_key("id"), !id.is_null(), "{reply}");
    }
    socket.is_alive();
}

fn an_id_is_repeated_as_it_is(system: &System, client: Client) {
    let mut socket = system.socket(client, "ids");
    let longest = format!("\"{}\"", "é".repeat(32));
    let digits = "1".repeat(64);
    let good = [
        "0",
        "-1",
        "1.50",
        "1e3",
        "18446744073709551616",
        "\"\"",
        "\"a b\"",
        r#""\u00e9\n\"""#,
        r#""\/""#,
        "\"\u{1f40c}\"",
        &longest,
        &digits,
    ];
    // At once, so that the order of the answers is seen as well.
    for id in good {
        socket.say_text(&format!(r#"{{"type":"ping","id":{id}}}"#));
    }
    for id in good {
        assert_eq!(socket.text(), format!(r#"{{"type":"answer","id":{id},"result":{{}}}}"#));
    }
    for id in ["null", ""] {
        let member = if id.is_empty() { String::new() } else { format!(r#","id":{id}"#) };
        socket.say_text(&format!(r#"{{"type":"ping"{member}}}"#));
        assert_eq!(socket.text(), r#"{"type":"answer","result":{}}"#);
    }
    let (too_long, too_many) = (format!("\"{}\"", "a".repeat(65)), "1".repeat(65));
    for id in ["[]", "{}", "false", &too_long, &too_many] {
        socket.say_text(&format!(r#"{{"type":"ping","id":{id}}}"#));
        let reply = socket.message();
        assert_eq!((&reply["code"], reply.get("id")), (&json!("bad_request"), None), "{reply}");
    }
    socket.is_alive();
}

/// A ping of so many bytes.
fn long_ping(len: usize) -> String {
    let empty = r#"{"type":"ping","id":1,"more":""}"#;
    empty.replace(r#""""#, &format!(r#""{}""#, "x".repeat(len - empty.len())))
}

fn a_message_has_a_largest_size(system: &System, client: Client) {
    let mut socket = system.socket(client, "size");
    let longest = long_ping(MESSAGE_BYTES_MAX);
    assert_eq!(longest.len(), MESSAGE_BYTES_MAX);
    socket.say_text(&longest);
    assert_eq!(socket.text(), r#"{"type":"answer","id":1,"result":{}}"#);
    socket.say_text(&long_ping(MESSAGE_BYTES_MAX + 1));
    assert_eq!(socket.closed(), 1009);
}

fn closes_and_pings_are_answered(system: &System, client: Client) {
    for (code, reason) in [(1000, ""), (1001, "the page is left"), (4001, "by café")] {
        let mut socket = system.socket(client, "closes");
        for hex in ["", "00ff", &"61".repeat(125)] {
            socket.peer.tell(&json!({"do": "ping", "hex": hex}));
            assert_eq!(socket.peer.hear(), json!({"pong": hex}));
        }
        socket.is_alive();
        socket.peer.tell(&json!({"do": "close", "code": code, "reason": reason}));
        assert_eq!(socket.closed(), code);
    }
}
