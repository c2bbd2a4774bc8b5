#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

fn text_of(channels: &[(&str, Cursor)]) -> Result<String, EncodeError> {
    let mut out = b"id: ".to_vec();
    let result = encode(channels.iter().copied(), &mut out);
    assert_eq!(&out[..4], b"id: ", "what was there is kept");
    assert!(result.is_ok() || out.len() == 4, "nothing is left of a failure");
    let mut again = b"id: ".to_vec();
    let hashed = HashedNames::new(channels.iter().map(|(name, _)| *name));
    let cursors = channels.iter().map(|(_, cursor)| *cursor);
    let written = hashed.and_then(|names| names.encode(cursors, &mut again));
    assert_eq!((written, &again), (result, &out), "names hashed before make the same");
    result.map(|()| String::from_utf8(out.split_off(4)).unwrap())
}

/// The text of raw binary, for inputs that the writer never makes.
fn text_of_binary(binary: &[u8]) -> String {
    let mut out = vec![PREFIX];
    let mut encoder = Encoder::new(&mut out);
    binary.iter().for_each(|&byte| encoder.push(byte));
    encoder.finish();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_hash_is_fnv_1a() {
    // The published vectors, with the salt as their first byte.
    assert_eq!(hash(b'a', ""), 0xe40c_292c);
    assert_eq!(hash(b'f', "oobar"), 0xbf9c_f968);
}

#[test]
fn a_hundred_channels_fit_at_the_worst() {
    let names: Vec<String> = (0..CHANNELS_MAX).map(|i| format!("{i:0>193}")).collect();
    // The first epoch is any; the others swing between the two ends.
    let (old, new) = (u64::MAX / 2 - EPOCH_SPREAD_MS + 1, u64::MAX / 2);
    let cursor =
        |i: usize| Cursor::new(if i.is_multiple_of(2) { new } else { old }, OFFSET_END - 1);
    let channels: Vec<_> = names.iter().enumerate().map(|(i, n)| (&n[..], cursor(i))).collect();
    let text = text_of(&channels).unwrap();
    assert!(text.len() <= COMPOSITE_BYTES_MAX, "{} bytes", text.len());
    let composite = decode(&text).unwrap();
    assert!(channels.iter().all(|&(name, cursor)| composite.cursor_of(name) == Some(cursor)));
}

#[test]
fn limits_are_errors() {
    let names: Vec<String> = (0..=CHANNELS_PER_HOLD_MAX).map(|i| i.to_string()).collect();
    let channels = |cursor| names.iter().map(|name| (&name[..], cursor)).collect::<Vec<_>>();
    let (small, large) = (channels(Cursor::new(1, 1)), channels(Cursor::new(1, u64::MAX)));
    assert_eq!(text_of(&[]), Err(EncodeError::Empty));
    assert_eq!(text_of(&small), Err(EncodeError::TooMany));
    assert!(text_of(&small[1..]).is_ok());
    assert_eq!(text_of(&large[1..]), Err(EncodeError::TooLong));
    assert_eq!(text_of(&[small[0], small[1], small[0]]), Err(EncodeError::Repeated));
}

#[test]
fn names_with_equal_hashes_resume_exactly() {
    // Two names with one hash under salt 0.
    let (a, b) = ("acme:59", "acme:780810");
    assert_eq!(hash(0, a), hash(0, b));
    let channels = [(a, Cursor::new(5, 1)), ("org:x", Cursor::new(9, 9)), (b, Cursor::new(5, 2))];
    let composite = decode(&text_of(&channels).unwrap()).unwrap();
    assert_ne!(composite.salt, 0);
    for (name, cursor) in channels {
        assert_eq!(composite.cursor_of(name), Some(cursor));
    }
    // Only one of the two on the next connection: the other one's cursor is not taken for its own.
    let composite = decode(&text_of(&channels[1..]).unwrap()).unwrap();
    assert_eq!(composite.salt, 0);
    assert_eq!(composite.cursor_of(b), Some(channels[2].1));
}

#[test]
fn what_is_malformed_says_how() {
    let entry = [1, 2, 3, 4, 2, 5];
    let with =
        |start: &[u8], entries: &[&[u8]]| text_of_binary(&[start, &entries.concat()].concat());
    let good = with(&[1, 0, 1], &[&entry]);
    assert_eq!(decode(&good).unwrap().entries, [(0x0102_0304, Cursor::new(1, 5))]);
    let long_epoch = [1, 2, 3, 4, 0x82, 0x00, 5];
    let over_u64 = [&entry[..4], &[0xff; 9], &[2, 5]].concat();
    let endless = [&entry[..4], &[0x80; 11]].concat();
    let cases = [
        (String::new(), CompositeError::Text),
        ("1-2".into(), CompositeError::Text),
        (good[1..].into(), CompositeError::Text),
        (format!("{good}="), CompositeError::Text),
        (format!("{good}\n"), CompositeError::Text),
        (format!("~{}", "A".repeat(2048)), CompositeError::TooLong),
        ("~".into(), CompositeError::Short),
        (with(&[1, 0], &[]), CompositeError::Short),
        (with(&[1, 0, 1], &[]), CompositeError::Short),
        (with(&[1, 0, 2], &[&entry, &entry[..3]]), CompositeError::Short),
        (with(&[1, 0, 0], &[]), CompositeError::Count),
        (with(&[1, 0, 129], &[&entry]), CompositeError::Count),
        (with(&[1, 0, 1], &[&entry, &[0]]), CompositeError::Trailing),
        (with(&[0, 0, 1], &[&entry]), CompositeError::Version),
        (with(&[2, 0, 1], &[&entry]), CompositeError::Version),
        (with(&[1, 0, 1], &[&long_epoch]), CompositeError::Number),
        (with(&[1, 0, 1], &[&over_u64]), CompositeError::Number),
        (with(&[1, 0, 1], &[&endless]), CompositeError::Number),
        (with(&[1, 0, 1], &[&[1, 2, 3, 4, 0, 5]]), CompositeError::Cursor),
        (with(&[1, 0, 2], &[&entry, &entry]), CompositeError::Repeated),
    ];
    for (text, error) in cases {
        assert_eq!(decode(&text), Err(error), "{text:?}");
    }
}

fn cursors() -> impl Strategy<Value = Cursor> {
    let numbers = (prop_oneof![1..4_000_000_000_000u64, 1..=u64::MAX], any::<u64>());
    prop_oneof![
        Just(Cursor::START),
        numbers.prop_map(|(epoch, offset)| Cursor::new(epoch, offset >> (offset % 64))),
    ]
}

proptest! {
    #[test]
    fn each_channel_finds_its_cursor_whatever_else_changes(
        channels in prop::collection::hash_map("[a-z]{1,3}:[a-z0-9]{1,8}", cursors(), 1..60),
        others in prop::collection::vec("[a-z]{1,3}:[a-z0-9]{1,8}", 0..20),
    ) {
        let list: Vec<_> = channels.iter().map(|(name, cursor)| (&name[..], *cursor)).collect();
        let text = text_of(&list).unwrap();
        prop_assert!(is_composite(&text));
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"~-_".contains(&b)));
        let composite = decode(&text).unwrap();
        prop_assert_eq!(composite.channels(), list.len());
        prop_assert!((0..text.len()).all(|cut| decode(&text[..cut]).is_err()));
        let hashes: HashSet<u32> = composite.entries.iter().map(|entry| entry.0).collect();
        for name in channels.keys().chain(&others) {
            let found = composite.cursor_of(name);
            let known = channels.get(name).copied();
            // A stranger finds nothing, unless it has a member's hash.
            let stranger = known.is_none() && hashes.contains(&hash(composite.salt, name));
            prop_assert!(found == known || stranger);
        }
    }

    #[test]
    fn what_is_read_would_be_written_so(text in "~AQA[BC][A-Za-z0-9_-]{8,24}") {
        if let Ok(composite) = decode(&text) {
            let mut binary = vec![VERSION, composite.salt, composite.entries.len() as u8];
            let mut out = Vec::new();
            let mut epoch = 0u64;
            for (hash, cursor) in &composite.entries {
                binary.extend(hash.to_be_bytes());
                for mut number in [zigzag(cursor.epoch.wrapping_sub(epoch)), cursor.offset] {
                    while number >= 0x80 {
                        binary.push(number as u8 | 0x80);
                        number >>= 7;
                    }
                    binary.push(number as u8);
                }
                epoch = cursor.epoch;
            }
            out.extend(text_of_binary(&binary).bytes());
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
