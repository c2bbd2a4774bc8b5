//! One cursor for all: whoever tells it, it resumes every way of reading at exactly the same place.

use std::io::BufRead;
use std::thread;

use forebay_handlers::auth::Role;
use serde_json::{Value, json};

use super::peer::{Make, Opening};
use super::socket::{Socket, delta_request};
use crate::support::http::{Response, read_chunk};
use crate::support::up::ORG;
use crate::support::{Event, EventStream, Up, get};

/// An event: its id and its data.
type Stored = (String, Value);

/// What remains to be seen of a reader: that it gets exactly these events.
type Check = Box<dyn FnOnce(&[Stored])>;

/// A way of reading a channel from a cursor on, called with the channel and the cursor.
type Sink = fn(&Up, &str, &str) -> Check;

const SINKS: [(&str, Sink); 6] = [
    ("event stream, by the header", by_event_stream),
    ("event stream, by the query", by_event_stream_with_query),
    ("WebSocket", by_websocket),
    ("long-poll", by_long_poll),
    ("history", by_history),
    ("history by a WebSocket", by_history_on_websocket),
];

/// A socket that may read and publish on some channels.
fn socket(up: &Up, channels: &[&str]) -> Socket {
    let token = up.dir.token(Role::Subscriber, ORG, channels);
    let url = format!("ws://{}/ws/{ORG}?token={token}", up.address);
    let (mut socket, _) = Socket::open(Make::Tungstenite, &Opening::new(url));
    let token = up.dir.token(Role::Publisher, ORG, channels);
    socket.done(json!({"type": "refresh", "token": token}));
    socket
}

fn stored(event: &Event) -> Stored {
    (event.id.clone(), event.json())
}

#[track_caller]
fn events_of_page(page: &Value) -> Vec<Stored> {
    assert!(page["gap"].is_null(), "{page}");
    let stored = |event: &Value| (event["id"].as_str().unwrap().to_owned(), event["data"].clone());
    page["events"].as_array().unwrap().iter().map(stored).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn check_stream(mut stream: EventStream) -> Check {
    Box::new(move |events| {
        let came: Vec<_> = stream.events(events.len()).iter().map(stored).collect();
        assert_eq!(came, events);
    })
}

fn by_event_stream(up: &Up, channel: &str, cursor: &str) -> Check {
    check_stream(up.read(&up.reading(&[channel]).after(cursor)))
}

fn by_event_stream_with_query(up: &Up, channel: &str, cursor: &str) -> Check {
    check_stream(up.read(&up.reading(&[channel]).with(&format!("last_event_id={cursor}"))))
}

fn by_websocket(up: &Up, channel: &str, cursor: &str) -> Check {
    let mut socket = socket(up, &[channel]);
    socket.subscribe(channel, Some(cursor));
    let channel = channel.to_owned();
    Box::new(move |events| {
        for (id, data) in events {
            assert_eq!(&socket.event_of(&channel, id), data);
        }
        socket.is_alive();
        socket.has_no_event();
    })
}

/// Asks until it has all: an answer may come with the first of what is published.
fn by_long_poll(up: &Up, channel: &str, cursor: &str) -> Check {
    let token = up.dir.token(Role::Subscriber, ORG, &[channel]);
    let (channel, address) = (channel.to_owned(), up.address.clone());
    let ask = move |after: &str| {
        let request = get(format!("/channels/{ORG}/{channel}?after={after}&wait=30"));
        request.bearer(&token).send(&address)
    };
    let (first, cursor) = (ask.clone(), cursor.to_owned());
    let waiting = thread::spawn(move || first(&cursor));
    Box::new(move |events| {
        let page = |response: &Response| serde_json::from_str::<Value>(response.good()).unwrap();
        let mut answer = page(&waiting.join().unwrap());
        let mut came = events_of_page(&answer);
        while came.len() < events.len() {
            assert!(answer["events"][0].is_object(), "nothing came: {answer}");
            answer = page(&ask(&text(&answer["next"])));
            came.extend(events_of_page(&answer));
        }
        assert_eq!(came, events);
    })
}

fn by_history(up: &Up, channel: &str, cursor: &str) -> Check {
    let (request, address) = (up.history(channel, &format!("?after={cursor}")), up.address.clone());
    Box::new(move |events| assert_eq!(events_of_page(&request.send(&address).json()), events))
}

fn by_history_on_websocket(up: &Up, channel: &str, cursor: &str) -> Check {
    let mut socket = socket(up, &[channel]);
    let request = json!({"type": "history", "channel": channel, "after": cursor});
    Box::new(move |events| assert_eq!(events_of_page(&socket.done(request)), events))
}

/// The cursor behind the last of the events of a channel, as everybody tells it. One more event is published.
fn sources(up: &Up, channel: &str) -> Vec<(&'static str, String)> {
    let mut writer = socket(up, &[channel]);
    let answer = writer.delta(channel, "the last");
    let mut repeated = delta_request(channel, "the last");
    repeated["message_id"] = up.all_events(channel).last().unwrap().1["message_id"].clone();
    let repeated = text(&writer.done(repeated)["id"]);
    let count = up.all_events(channel).len();
    let event_stream = up.read(&up.reading(&[channel])).events(count).pop().unwrap().id;
    let mut reader = socket(up, &[channel]);
    reader.subscribe(channel, None);
    let websocket = (0..count).map(|_| reader.event()).last().unwrap();
    let page = up.send(&up.history(channel, "")).json();
    let page_by_socket = reader.done(json!({"type": "history", "channel": channel}));
    let head = up.send(&up.history(channel, "/head")).json();
    let head_by_socket = reader.done(json!({"type": "head", "channel": channel}));
    vec![
        ("answer to a publish", answer),
        ("answer to a publish that was one before", repeated),
        ("id of an event stream", event_stream),
        ("cursor of a WebSocket", text(&websocket["cursor"])),
        ("next of history", text(&page["next"])),
        ("id in history", text(&page["events"][count - 1]["id"])),
        ("next of history by a WebSocket", text(&page_by_socket["next"])),
        ("head", text(&head["head"])),
        ("head by a WebSocket", text(&head_by_socket["head"])),
        ("where $ begins on a WebSocket", reader.subscribe(channel, Some("$"))),
        ("where $ begins on an event stream", id_alone(up, channel)),
    ]
}

/// The id that a reader is told that begins with `$`.
fn id_alone(up: &Up, channel: &str) -> String {
    let request = up.reading(&[channel]).after("$").request();
    let (_, mut reader) = request.try_open(&up.address).unwrap();
    let mut came = Vec::new();
    loop {
        came.extend(read_chunk(&mut reader).unwrap().expect("no id came"));
        let mut lines = came.lines().map(Result::unwrap);
        if let Some(id) = lines.find_map(|line| line.strip_prefix("id: ").map(str::to_owned)) {
            return id;
        }
    }
}

#[test]
fn a_cursor_from_anywhere_is_good_everywhere() {
    let (up, channel) = (Up::start(), "cursors");
    for value in 0..3 {
        up.delta(channel, value);
    }
    let sources = sources(&up, channel);
    for (source, cursor) in &sources {
        assert_eq!(cursor, &sources[0].1, "{source}");
    }
    let known = up.all_events(channel).len();
    let open = || {
        let each = sources.iter().flat_map(|source| SINKS.iter().map(move |sink| (source, sink)));
        each.map(|((source, cursor), (sink, open))| {
            (format!("{source} to {sink}"), open(&up, channel, cursor))
        })
        .collect::<Vec<_>>()
    };
    // Readers that wait when the events are published, and others that come later.
    let live = open();
    for value in 0..3 {
        up.delta(channel, value);
    }
    let events = up.all_events(channel).split_off(known);
    for (name, check) in live.into_iter().chain(open()) {
        // Shown if it fails.
        println!("{name}");
        check(&events);
    }
}

#[test]
fn each_place_in_a_log_has_one_name() {
    let (up, channel) = (Up::start(), "places");
    let mut reader = socket(&up, &[channel]);
    reader.subscribe(channel, Some("$"));
    let ids: Vec<String> =
        (0..6)
            .map(|value| {
                if value % 2 == 0 { up.delta(channel, value) } else { reader.delta(channel, value) }
            })
            .collect();
    let cursors: Vec<String> = ids.iter().map(|_| text(&reader.event()["cursor"])).collect();
    let stream = up.read(&up.reading(&[channel])).events(ids.len());
    let history = up.all_events(channel);
    assert_eq!(cursors, ids);
    assert!(stream.iter().map(|event| &event.id).eq(&ids));
    assert!(history.iter().map(|(id, _)| id).eq(&ids));
    for (at, id) in ids.iter().enumerate().take(ids.len() - 1) {
        for (name, open) in SINKS {
            println!("{name} at {at}");
            open(&up, channel, id)(&history[at + 1..]);
        }
    }
}

#[test]
fn a_composite_cursor_resumes_each_of_its_channels() {
    let (up, channels) = (Up::start(), ["composite-a", "composite-b"]);
    let mut stream = up.read(&up.reading(&channels).after("$"));
    // One after the other, so that the order is known.
    let order = [0, 1, 1, 0, 1, 0];
    let mut composites = Vec::new();
    for (number, &channel) in order.iter().enumerate() {
        up.delta(channels[channel], number);
        composites.push(stream.event().id);
    }
    let histories = channels.map(|channel| up.all_events(channel));
    for (number, composite) in composites.iter().enumerate() {
        let mut all = Vec::new();
        for (index, channel) in channels.into_iter().enumerate() {
            let seen = order[..=number].iter().filter(|&&channel| channel == index).count();
            let rest = &histories[index][seen..];
            all.extend(rest.iter().map(|(_, data)| data.clone()));
            for (name, open) in SINKS {
                // Nothing to wait for.
                if !rest.is_empty() || name != "long-poll" {
                    println!("{name} of {channel} at {number}: {composite}");
                    open(&up, channel, composite)(rest);
                }
            }
        }
        let mut resumed = up.read(&up.reading(&channels).after(composite));
        let mut came: Vec<Value> = resumed.events(all.len()).iter().map(Event::json).collect();
        let key = |data: &Value| data["payload"]["value"].as_f64().unwrap() as u64;
        came.sort_by_key(key);
        all.sort_by_key(key);
        assert_eq!(came, all, "{composite}");
    }
}

#[test]
fn the_cursor_behind_a_gap_is_good_everywhere() {
    let (up, channel) = (Up::start(), "gaps");
    for value in 0..2 {
        up.delta(channel, value);
    }
    let events = up.all_events(channel);
    let before = "1-1";
    let mut reader = socket(&up, &[channel]);
    reader.subscribe(channel, Some(before));
    let by_socket = reader.event();
    let by_stream = up.read(&up.reading(&[channel]).after(before)).event();
    assert_eq!((&by_socket["event"], &*by_stream.kind), (&json!("control"), "control"));
    // Two readers of one gap are told the same, and stand at the same place behind it.
    assert_eq!(by_socket["data"], by_stream.json());
    assert_eq!(by_socket["cursor"], by_stream.id);
    for (name, open) in SINKS {
        println!("{name}");
        open(&up, channel, &by_stream.id)(&events);
    }
}
