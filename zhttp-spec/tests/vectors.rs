//! Runs every vector in `vectors/` (its README.md says how they are written): what is good reads as
//! expected and, if it is in the canonical form, is written again byte for byte; what is bad is
//! refused with the expected words. Each is also cut at every byte and followed by more.
//!
//! The vectors are also the seeds of the fuzz targets. With `UPDATE_SEEDS=1` in its environment the
//! last test here writes them anew instead of comparing them.

#![allow(clippy::unwrap_used)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use support::{root, vectors, view};
use zhttp::composite::{self, Composite};
use zhttp::hold::{GapReason, gap_event};
use zhttp::tnetstring::{self, TnetError, Value, Writer};
use zhttp::{Cursor, fuzzing};

/// Every part from the start of `input` that is not all of it.
fn cuts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..input.len()).map(|cut| &input[..cut])
}

#[test]
fn packets() {
    for file in ["packets", "hold", "malformed"] {
        for (name, packet, vector) in vectors(file, "packet") {
            let result = view::packet(&packet).map_err(|error| error.to_string());
            if let Some(error) = vector["error"].as_str() {
                assert_eq!(result, Err(error.to_owned()), "{name}");
                assert_eq!(salvaged(&packet), vector["salvage"], "{name}");
                cuts(&packet).for_each(fuzzing::packet);
                continue;
            }
            assert_eq!(result.as_ref(), Ok(&vector["fields"]), "{name}");
            let written = fuzzing::rewrite(&packet).unwrap();
            let canonical = vector["canonical"].as_bool().unwrap();
            assert_eq!(written == packet, canonical, "{name}: {}", written.escape_ascii());
            assert_eq!(view::packet(&written).as_ref(), Ok(&vector["fields"]), "{name}");
            assert!(cuts(&packet).all(|cut| view::packet(cut).is_err()), "{name}");
            for more in [&b"\n"[..], b"0:~", &packet] {
                let longer = [&packet, more].concat();
                assert_eq!(view::packet(&longer), Err(zhttp::PacketError::Format), "{name}");
            }
        }
    }
}

/// What is left of a malformed packet: who sent it and the sessions that it was about; null if it does not tell.
fn salvaged(packet: &[u8]) -> Json {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    zhttp::Packet::salvage(packet).map_or(Json::Null, |salvage| {
        let ids: Vec<_> = salvage.ids.map(|id| text(id.id)).collect();
        json!({"from": text(salvage.from), "ids": ids})
    })
}

fn tree(value: Value<'_>) -> Result<Json, TnetError> {
    Ok(match value {
        Value::Bytes(data) => view::bytes(data),
        Value::Int(value) => json!(value),
        Value::Float(text) => json!({"float": view::bytes(text)}),
        Value::Bool(value) => json!(value),
        Value::Null => Json::Null,
        Value::List(list) => {
            Json::Array(list.map(|item| tree(item?)).collect::<Result<Vec<_>, _>>()?)
        }
        Value::Map(map) => {
            let entry = |(key, value)| Ok(json!([view::bytes(key), tree(value)?]));
            json!({"map": map.map(|item| item.and_then(entry)).collect::<Result<Vec<_>, _>>()?})
        }
    })
}

fn write_tree(tree: &Json, writer: &mut Writer<'_>) {
    match tree {
        Json::String(text) => writer.bytes(text.as_bytes()),
        Json::Number(value) => writer.int(value.as_i64().unwrap()),
        Json::Bool(value) => writer.bool(*value),
        Json::Array(items) => writer.list(|w| items.iter().for_each(|item| write_tree(item, w))),
        Json::Object(object) if object.contains_key("map") => writer.map(|writer| {
            let entries = object["map"].as_array().unwrap();
            entries.iter().flat_map(|e| e.as_array().unwrap()).for_each(|v| write_tree(v, writer));
        }),
        Json::Object(object) => {
            writer.bytes(&STANDARD.decode(object["base64"].as_str().unwrap()).unwrap());
        }
        Json::Null => panic!("nulls are never written"),
    }
}

#[test]
fn tnetstrings() {
    for (name, input, vector) in vectors("tnetstrings", "input") {
        let result = tnetstring::read(&input).and_then(|(value, rest)| Ok((tree(value)?, rest)));
        cuts(&input).for_each(fuzzing::tnetstring);
        if let Some(error) = vector["error"].as_str() {
            assert_eq!(result.map_err(|error| error.to_string()), Err(error.to_owned()), "{name}");
            continue;
        }
        let rest = vector["rest"].as_str().unwrap_or_default().as_bytes();
        let value = &vector["value"];
        assert_eq!(result, Ok((value.clone(), rest)), "{name}");
        let input = &input[..input.len() - rest.len()];
        assert!(cuts(input).all(|cut| tnetstring::read(cut).is_err()), "{name}");
        let longer = [input, b"0:,"].concat();
        assert_eq!(tnetstring::read(&longer).unwrap().1, b"0:,", "{name}");
        if vector["canonical"].as_bool().unwrap() {
            let mut out = Vec::new();
            write_tree(value, &mut Writer::new(&mut out));
            assert_eq!(out, input, "{name}");
        }
    }
}

#[test]
fn cursors() {
    for (name, text, vector) in vectors("cursors", "text") {
        let result = Cursor::from_bytes(&text).map_err(|error| error.to_string());
        if let Some(error) = vector["error"].as_str() {
            assert_eq!(result, Err(error.to_owned()), "{name}");
            continue;
        }
        let number = |key: &str| vector[key].as_str().unwrap().parse().unwrap();
        assert_eq!(result, Ok(Cursor::new(number("epoch"), number("offset"))), "{name}");
        assert_eq!(result.unwrap().to_string().as_bytes(), text, "{name}");
        assert!(Cursor::from_bytes(&[&text[..], b"\n"].concat()).is_err(), "{name}");
    }
}

#[test]
fn composites() {
    for (name, text, vector) in vectors("composites", "text") {
        let text = std::str::from_utf8(&text).unwrap();
        let result = composite::decode(text);
        if let Some(error) = vector["error"].as_str() {
            let result = result.map_err(|error| error.to_string());
            assert_eq!(result, Err(error.to_owned()), "{name}");
            continue;
        }
        let composite = result.unwrap();
        let channel = |pair: &Json| (pair[0].as_str().unwrap().to_owned(), view::cursor(&pair[1]));
        let channels: Vec<_> = vector["channels"].as_array().unwrap().iter().map(channel).collect();
        assert_finds(&composite, &channels, &name);
        for absent in vector["absent"].as_array().unwrap() {
            assert_eq!(composite.cursor_of(absent.as_str().unwrap()), None, "{name}");
        }
        let mut out = Vec::new();
        composite::encode(channels.iter().map(|(name, at)| (&name[..], *at)), &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out).unwrap(), text, "{name}");
        assert!((0..text.len()).all(|cut| composite::decode(&text[..cut]).is_err()), "{name}");
        for more in ["A", "AA", "AAAA", "=", "\n", text] {
            assert!(composite::decode(&format!("{text}{more}")).is_err(), "{name}");
        }
    }
}

fn assert_finds(composite: &Composite, channels: &[(String, Cursor)], name: &str) {
    assert_eq!(composite.channels(), channels.len(), "{name}");
    for (channel, cursor) in channels {
        assert_eq!(composite.cursor_of(channel), Some(*cursor), "{name}: {channel}");
    }
}

#[test]
fn gap_events() {
    for (name, channel, vector) in vectors("gap-events", "channel") {
        let cursor = |key: &str| vector[key].as_str().unwrap().parse::<Cursor>().unwrap();
        let named = |reason: &GapReason| vector["reason"] == reason.name();
        let reason = [GapReason::Trimmed, GapReason::Recreated].into_iter().find(named).unwrap();
        let channel = std::str::from_utf8(&channel).unwrap();
        let data = gap_event(channel, cursor("from"), cursor("to"), reason);
        assert_eq!(data, vector["data"].as_str().unwrap(), "{name}");
        assert!(serde_json::from_str::<Json>(&data).is_ok(), "{name}");
    }
}

#[test]
fn every_vector_is_a_seed() {
    let targets: [(&str, &[&str], &str); 3] = [
        ("packet", &["packets", "hold", "malformed"], "packet"),
        ("tnetstring", &["tnetstrings"], "input"),
        ("composite", &["composites"], "text"),
    ];
    let update = std::env::var_os("UPDATE_SEEDS").is_some();
    for (target, files, key) in targets {
        let folder = root().join("fuzz/seeds").join(target);
        for (name, input, _) in files.iter().flat_map(|file| vectors(file, key)) {
            let path = folder.join(file_name(&name));
            if update {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &input).unwrap();
            }
            let seed = std::fs::read(&path).unwrap_or_default();
            assert_eq!(seed, input, "{}: run once with UPDATE_SEEDS=1", path.display());
        }
    }
}

/// The name of a vector in lower case, with hyphens for whatever does not belong into a file name.
fn file_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}
