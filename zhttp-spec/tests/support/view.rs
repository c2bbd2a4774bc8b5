//! A packet as JSON, in the form of the `fields` of the vectors: what a reader of this crate sees in
//! it, under the names of the wire, without what is empty, zero or false.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use zhttp::fuzzing::Body;
use zhttp::hold::{Change, Event, Events, Gap, Hello, HoldChannel, HoldParams, Message, Range};
use zhttp::tnetstring::Value;
use zhttp::{Cursor, Packet, PacketError, Payload};

type Fields = Map<String, Json>;

/// Reads a packet as its kind has it.
pub(crate) fn packet(bytes: &[u8]) -> Result<Json, PacketError> {
    let packet = Packet::parse(bytes)?;
    let body = Body::read(&packet, packet.kind)?;
    let mut fields = Fields::new();
    put(&mut fields, "from", self::bytes(packet.from));
    let id = |id: zhttp::Id<'_>| match id.seq {
        Some(seq) => json!({"id": self::bytes(id.id), "seq": seq}),
        None => json!({"id": self::bytes(id.id)}),
    };
    put_list(&mut fields, "ids", packet.ids.map(id));
    let name = packet.kind.name();
    put(&mut fields, "type", json!(if name.is_empty() { "data" } else { name }));
    let mut ext = Fields::new();
    put(&mut ext, "multi", json!(packet.ext.multi));
    put(&mut ext, "ping", json!(packet.ext.ping));
    match (packet.ext.hold, body) {
        (Some(Value::Int(version)), _) => put(&mut ext, "hold", json!(version)),
        (_, Body::Plain(_, Some(hold))) => put(&mut ext, "hold", hold_params(hold)),
        _ => {}
    }
    if !ext.is_empty() {
        fields.insert("ext".into(), Json::Object(ext));
    }
    put_body(&mut fields, &body);
    Ok(Json::Object(fields))
}

fn put_body(fields: &mut Fields, body: &Body<'_>) {
    let names = |names: &mut dyn Iterator<Item = &str>| names.map(|name| json!(name)).collect();
    match *body {
        Body::Plain(payload, _) => put_payload(fields, &payload),
        Body::Hello(hello) => put_hello(fields, hello),
        Body::Bye => {}
        Body::Feed(feed) => {
            let entry = |(name, head): (&str, Option<Cursor>)| {
                json!([name, head.map(|head| head.to_string()).unwrap_or_default()])
            };
            fields.insert("channels".into(), feed.map(entry).collect());
        }
        Body::Unfeed(mut list) => {
            fields.insert("channels".into(), names(&mut list));
        }
        Body::Range(range) => put_range(fields, range),
        Body::Events(events) => put_events(fields, events),
        Body::Gap(gap) => put_gap(fields, gap),
        Body::Heads(heads) => {
            fields.insert("heads".into(), channels(heads));
        }
        Body::Hold(change) => put_change(fields, change),
        Body::Send(send) => {
            put(fields, "event", json!(send.kind_or_default()));
            put(fields, "body", bytes(send.body));
        }
        Body::Message(message) => put_message(fields, message),
        Body::Closed(closed) => put(fields, "context", bytes(closed.context)),
        _ => unreachable!("every body that there is"),
    }
}

fn put_payload(fields: &mut Fields, payload: &Payload<'_>) {
    put(fields, "method", json!(payload.method));
    put(fields, "uri", json!(payload.uri));
    put(fields, "code", json!(payload.code));
    put(fields, "reason", bytes(payload.reason));
    put(fields, "condition", json!(payload.condition));
    put_list(fields, "headers", payload.headers.map(|(n, v)| json!([bytes(n), bytes(v)])));
    put(fields, "content-type", bytes(payload.content_type));
    put(fields, "body", bytes(payload.body));
    put(fields, "credits", json!(payload.credits));
    put(fields, "more", json!(payload.more));
    put(fields, "stream", json!(payload.stream));
    put(fields, "router-resp", json!(payload.router_resp));
    put(fields, "peer-address", json!(payload.peer_address));
    put(fields, "peer-port", json!(payload.peer_port));
}

fn hold_params(hold: HoldParams<'_>) -> Json {
    let mut fields = Fields::new();
    put(&mut fields, "format", json!(hold.format.name()));
    fields.insert("channels".into(), hold.channels.map(hold_channel).collect());
    put(&mut fields, "keep-alive", json!(hold.keep_alive_ms));
    put(&mut fields, "expires", json!(hold.expires_s));
    put(&mut fields, "expires-code", json!(hold.expires_code));
    put(&mut fields, "context", bytes(hold.context));
    put(&mut fields, "notify", json!(hold.notify));
    put(&mut fields, "persistent", json!(hold.persistent));
    put(&mut fields, "messages", json!(hold.messages));
    Json::Object(fields)
}

fn put_hello(fields: &mut Fields, hello: Hello<'_>) {
    put(fields, "ttl", json!(hello.ttl_ms));
    put(fields, "incarnation", json!(hello.incarnation));
    put(fields, "feeds", json!(hello.feeds));
    put_list(fields, "serves", hello.serves.map(|(method, prefix)| json!([method, prefix])));
    put(fields, "requests-max", json!(hello.requests_max));
}

fn put_range(fields: &mut Fields, range: Range<'_>) {
    put(fields, "channel", json!(range.channel));
    put(fields, "after", json!(range.after.to_string()));
    put(fields, "bytes", json!(range.bytes));
}

fn put_events(fields: &mut Fields, events: Events<'_>) {
    put(fields, "channel", json!(events.channel));
    put(fields, "epoch", json!(events.epoch));
    put(fields, "after", json!(events.after));
    put(fields, "prev", json!(events.prev.map(|prev| prev.to_string())));
    let event = |event: Event<'_>| {
        let mut fields = Fields::new();
        fields.insert("data".into(), bytes(event.data));
        fields.insert("type".into(), json!(event.kind));
        put(&mut fields, "end", json!(event.end));
        Json::Object(fields)
    };
    fields.insert("events".into(), events.events.map(event).collect());
}

fn put_gap(fields: &mut Fields, gap: Gap<'_>) {
    put(fields, "channel", json!(gap.channel));
    put(fields, "after", json!(gap.after.to_string()));
    put(fields, "first", json!(gap.first.to_string()));
    put(fields, "reason", json!(gap.reason.name()));
}

fn put_change(fields: &mut Fields, change: Change<'_>) {
    put_list(fields, "add", change.add.map(hold_channel));
    put_list(fields, "remove", change.remove.map(|name| json!(name)));
    // Here empty and 0 are not the same as absent.
    if let Some(context) = change.context {
        fields.insert("context".into(), bytes(context));
    }
    if let Some(expires_s) = change.expires_s {
        fields.insert("expires".into(), json!(expires_s));
    }
    if let Some(code) = change.expires_code {
        fields.insert("expires-code".into(), json!(code));
    }
    put_list(fields, "bodies", change.bodies.map(|body| json!(body)));
    put(fields, "answers", json!(change.answers));
}

fn put_message(fields: &mut Fields, message: Message<'_>) {
    put(fields, "path", json!(message.path));
    put(fields, "number", json!(message.number));
    put(fields, "context", bytes(message.context));
    put(fields, "channels", json!(message.channels));
    let said = |(body, binary): (&[u8], bool)| {
        if binary { json!([bytes(body), {"binary": true}]) } else { json!([bytes(body)]) }
    };
    fields.insert("bodies".into(), message.bodies.map(said).collect());
}

fn channels<'a>(channels: impl Iterator<Item = (&'a str, Cursor)>) -> Json {
    channels.map(channel).collect()
}

fn channel((name, cursor): (&str, Cursor)) -> Json {
    json!([name, cursor.to_string()])
}

fn hold_channel(channel: HoldChannel<'_>) -> Json {
    let HoldChannel { name, cursor, ended } = channel;
    if ended { json!([name, cursor.to_string(), true]) } else { json!([name, cursor.to_string()]) }
}

/// Bytes as the vectors have them: text if they are UTF-8.
pub(crate) fn bytes(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => json!(text),
        Ok(_) | Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// A cursor in its text form.
pub(crate) fn cursor(text: &Json) -> Cursor {
    text.as_str().expect("text").parse().expect("a cursor")
}

/// Puts a field, unless it is empty, zero, false or absent.
fn put(fields: &mut Fields, key: &str, value: Json) {
    if ![json!(""), json!(0), json!(false), Json::Null].contains(&value) {
        fields.insert(key.into(), value);
    }
}

fn put_list(fields: &mut Fields, key: &str, values: impl Iterator<Item = Json>) {
    let values: Vec<Json> = values.collect();
    if !values.is_empty() {
        fields.insert(key.into(), Json::Array(values));
    }
}
