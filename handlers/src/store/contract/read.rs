//! Reading: ranges, gaps, heads.

use bytes::Bytes;
use zhttp::Cursor;

use super::*;

fn history(history_max: u32) -> Conditions {
    kept(Retention { history_max, ..Retention::default() })
}

pub(super) async fn a_range_is_what_was_appended<S: Store>(store: S) {
    let channel = room("range");
    let control = NewEvent { kind: EventKind::Control, ..event("{\"control\":1}") };
    let first = append(&store, &channel, event("{\"a\":1}")).await;
    let second = append(&store, &channel, control).await;
    let third = append(&store, &channel, end_event()).await;
    let stored = |id, prev, end, kind, data: &'static str| StoredEvent {
        id,
        prev,
        end,
        kind,
        data: Bytes::from_static(data.as_bytes()),
    };
    let expected = [
        stored(first, Cursor::START, false, EventKind::Stream, "{\"a\":1}"),
        stored(second, first, false, EventKind::Control, "{\"control\":1}"),
        stored(third, second, true, EventKind::Stream, "end"),
    ];
    let known = Head { id: third, ended: true, oldest_prev: Cursor::START };
    for (skipped, after) in [Cursor::START, first, second, third].into_iter().enumerate() {
        let range = store.range(&channel, after, ALL).await.unwrap();
        let expected = Range { events: expected[skipped..].to_vec(), head: known, gap: None };
        assert_eq!(range, expected, "after {after}");
    }
}

pub(super) async fn any_bytes_come_back<S: Store>(store: S) {
    let channel = room("bytes");
    let long = "ü€😀".repeat(16 * 1024 / 9 + 1);
    assert!(long.len() >= 16 * 1024);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let texts = [&b""[..], "{\"grüße\":\"😀 \\n\"}".as_bytes(), b"\r\n $5\n", &all_bytes];
    let mut expected: Vec<Bytes> = texts.into_iter().map(Bytes::copy_from_slice).collect();
    expected.push(Bytes::from(long));
    for data in &expected {
        append(&store, &channel, NewEvent { data: data.clone(), ..event("") }).await;
    }
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    let data: Vec<Bytes> = range.events.into_iter().map(|event| event.data).collect();
    assert_eq!(data, expected);
}

pub(super) async fn a_range_keeps_its_limits<S: Store>(store: S) {
    let channel = room("limits");
    let data = "x".repeat(100);
    let first = append(&store, &channel, event(&data)).await;
    for _ in 1..150 {
        append(&store, &channel, event(&data)).await;
    }
    for (events_max, bytes_max, after, expected) in [
        (3, u64::MAX, 0, 3),
        (0, u64::MAX, 0, 1),
        (150, 250, 0, 2),
        (150, 300, 0, 3),
        (150, 1, 0, 1),
        (150, 0, 100, 1),
        (150, 8_000, 10, 80),
        (70, 8_000, 10, 70),
        (1000, u64::MAX, 149, 1),
    ] {
        let limits = RangeLimits { events_max, bytes_max };
        let after = Cursor::new(if after == 0 { 0 } else { first.epoch }, after);
        let range = store.range(&channel, after, limits).await.unwrap();
        assert_eq!(range.events.len(), expected, "{limits:?} after {after}");
        assert_eq!(range.events[0].prev, after);
        assert_eq!(range.gap, None);
        assert_eq!(range.head.id, first.plus(149));
    }
}

pub(super) async fn a_long_range_is_whole<S: Store>(store: S) {
    let channel = room("long");
    let appends: Vec<_> = (0..300)
        .map(|number| {
            let (store, channel) = (store.clone(), channel.clone());
            tokio::spawn(async move { append(&store, &channel, event(&number.to_string())).await })
        })
        .collect();
    for append in appends {
        append.await.unwrap();
    }
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    assert_eq!(range.events.len(), 300);
    let mut cursor = Cursor::START;
    for event in &range.events {
        assert_eq!(event.prev, cursor);
        cursor = event.id;
    }
    assert_eq!(cursor, range.head.id);
}

pub(super) async fn nothing_is_beyond_the_head<S: Store>(store: S) {
    let channel = room("beyond");
    let first = append(&store, &channel, event("1")).await;
    let end_of_time = Cursor::new(u64::MAX, u64::MAX);
    for after in [first, first.plus(1), Cursor::new(first.epoch + 1, 1), end_of_time] {
        let range = store.range(&channel, after, ALL).await.unwrap();
        assert_eq!((range.events.len(), range.gap), (0, None), "after {after}");
        assert_eq!(range.head.id, first);
        let unknown = store.range(&room("unknown"), after, ALL).await.unwrap();
        assert_eq!(unknown, Range::default());
    }
    let unknown = store.range(&room("unknown"), Cursor::START, ALL).await.unwrap();
    assert_eq!(unknown, Range::default());
}

pub(super) async fn a_trimmed_log_shows_a_gap<S: Store>(store: S) {
    let channel = room("trimmed");
    let conditions = history(5);
    let mut ids = vec![];
    for _ in 0..12 {
        ids.push(store.append(&channel, event("x"), &conditions).await.unwrap().id);
    }
    let epoch = ids[0].epoch;
    let at = |offset| Cursor::new(epoch, offset);
    assert_eq!(head(&store, &channel).await.oldest_prev, at(7));
    let gap = Gap { prev: at(7), first: at(8), reason: GapReason::Trimmed };
    for after in [Cursor::START, at(1), at(6)] {
        let range = store.range(&channel, after, ALL).await.unwrap();
        assert_eq!(range.gap, Some(gap), "after {after}");
        let ids: Vec<Cursor> = range.events.iter().map(|event| event.id).collect();
        assert_eq!(ids, (8..=12).map(at).collect::<Vec<_>>());
    }
    // From where the log begins, and further on, nothing is missing.
    for offset in 7..=12 {
        let range = store.range(&channel, at(offset), ALL).await.unwrap();
        assert_eq!((range.events.len() as u64, range.gap), (12 - offset, None));
    }
    // A smaller limit applies at the next append; one of zero keeps the newest event.
    store.append(&channel, event("x"), &history(2)).await.unwrap();
    assert_eq!(head(&store, &channel).await.oldest_prev, at(11));
    store.append(&channel, event("x"), &history(0)).await.unwrap();
    assert_eq!(head(&store, &channel).await.oldest_prev, at(13));
}

pub(super) async fn trimming_is_exact_over_epochs<S: Store>(store: S) {
    let channel = room("trimmed-epochs");
    let conditions = history(3);
    let mut ids = vec![];
    for number in 0..8 {
        let new = if number % 2 == 1 { end_event() } else { event("x") };
        ids.push(store.append(&channel, new, &conditions).await.unwrap().id);
    }
    // Two events an epoch: x END x END x END x END, the newest three are kept.
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    let kept: Vec<Cursor> = range.events.iter().map(|event| event.id).collect();
    assert_eq!(kept, ids[5..]);
    assert_eq!(range.head.oldest_prev, ids[4]);
    let gap = Gap { prev: ids[4], first: ids[5], reason: GapReason::Trimmed };
    // A cursor in an epoch that is trimmed away wholly is still of this log.
    for after in [Cursor::START, ids[0], ids[3]] {
        let range = store.range(&channel, after, ALL).await.unwrap();
        assert_eq!(range.gap, Some(gap), "after {after}");
    }
    assert_eq!(store.range(&channel, ids[4], ALL).await.unwrap().gap, None);
    // One more, and the log begins with the first event of an epoch.
    let last = store.append(&channel, event("x"), &conditions).await.unwrap().id;
    assert_eq!(head(&store, &channel).await.oldest_prev, ids[5]);
    let range = store.range(&channel, ids[5], ALL).await.unwrap();
    assert_eq!(range.gap, None);
    assert_eq!(range.events.last().map(|event| event.id), Some(last));
    // The place before that event in its own epoch is as good as the END before it.
    let place = Cursor::new(ids[6].epoch, 0);
    let range = store.range(&channel, place, ALL).await.unwrap();
    assert_eq!((range.events[0].id, range.gap), (ids[6], None));
}

pub(super) async fn a_recreated_log_shows_a_gap<S: Store>(store: S) {
    let channel = room("recreated");
    let first = append(&store, &channel, event("1")).await;
    let old = append(&store, &channel, event("2")).await;
    assert!(store.delete(&channel, Some(old)).await.unwrap());
    // Nothing is there to be missed yet.
    let range = store.range(&channel, old, ALL).await.unwrap();
    assert_eq!(range, Range::default());
    let new = append(&store, &channel, event("3")).await;
    assert!(new.epoch > old.epoch);
    assert_eq!(new.offset, 1);
    let gap = Gap { prev: Cursor::START, first: new, reason: GapReason::Recreated };
    for after in [first, old] {
        let range = store.range(&channel, after, ALL).await.unwrap();
        assert_eq!(range.gap, Some(gap), "after {after}");
        assert_eq!(range.events.len(), 1);
    }
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    assert_eq!((range.events[0].prev, range.gap), (Cursor::START, None));
}

pub(super) async fn a_cursor_of_a_lost_tail_shows_a_gap<S: Store>(store: S) {
    let channel = room("lost");
    let kept = append(&store, &channel, event("1")).await;
    let lost = kept.plus(4);
    let passing = Conditions { beyond: Some(lost), ..Conditions::default() };
    let next = store.append(&channel, event("2"), &passing).await.unwrap().id;
    // What lies between two events that follow each other was there, and is no more.
    let gap = Gap { prev: kept, first: next, reason: GapReason::Recreated };
    for after in [kept.plus(1), lost, lost.plus(9)] {
        let range = store.range(&channel, after, ALL).await.unwrap();
        assert_eq!((range.events.len(), range.gap), (1, Some(gap)), "after {after}");
    }
    assert_eq!(store.range(&channel, kept, ALL).await.unwrap().gap, None);
}

pub(super) async fn heads_come_in_order_with_unknown_ones<S: Store>(store: S) {
    assert_eq!(store.heads(&[]).await.unwrap(), []);
    let (one, two) = (room("heads-one"), room("heads-two"));
    let first = append(&store, &one, event("x")).await;
    let ended = append(&store, &two, end_event()).await;
    let mut channels = vec![two.clone(), room("heads-unknown"), one.clone(), two.clone()];
    let of = |id, ended| Head { id, ended, oldest_prev: Cursor::START };
    let mut expected = vec![of(ended, true), Head::default(), of(first, false), of(ended, true)];
    assert_eq!(store.heads(&channels).await.unwrap(), expected);
    for number in 0..2500 {
        channels.push(room(&format!("heads-unknown-{number}")));
        expected.push(Head::default());
    }
    channels.push(one);
    expected.push(of(first, false));
    assert_eq!(store.heads(&channels).await.unwrap(), expected);
}

pub(super) async fn a_new_epoch_is_the_stores_clock<S: Store>(store: S) {
    let before = store.now_ms().await.unwrap();
    let id = append(&store, &room("clock"), event("x")).await;
    let after = store.now_ms().await.unwrap();
    assert!(before <= id.epoch && id.epoch <= after, "{before} {id} {after}");
}
