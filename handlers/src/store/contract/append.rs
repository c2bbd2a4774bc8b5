//! Appending: ids, deduplication, expectations, rates.

use std::time::Duration;

use zhttp::Cursor;

use super::*;

const MINUTE_MS: u64 = 60_000;

fn limited(messages: u32, per_ms: u64) -> Conditions {
    Conditions { rate: Some(Rate { messages, per_ms }), ..Conditions::default() }
}

fn expecting(offset: u64) -> Conditions {
    Conditions { expect: Some(offset), ..Conditions::default() }
}

pub(super) async fn ids_count_from_one_within_an_epoch<S: Store>(store: S) {
    let (one, other) = (room("one"), room("other"));
    let first = append(&store, &one, event("1")).await;
    assert!(first.epoch > 0);
    assert_eq!(first.offset, 1);
    assert_eq!(append(&store, &other, event("1")).await.offset, 1);
    for offset in 2..20 {
        assert_eq!(append(&store, &one, event("n")).await, Cursor::new(first.epoch, offset));
    }
    assert_eq!(head(&store, &one).await.id, Cursor::new(first.epoch, 19));
}

pub(super) async fn an_append_after_an_end_continues_the_log<S: Store>(store: S) {
    let channel = room("ends");
    let first = append(&store, &channel, event("1")).await;
    let end = append(&store, &channel, end_event()).await;
    assert_eq!(end, first.plus(1));
    assert!(head(&store, &channel).await.ended);
    let next = append(&store, &channel, event("2")).await;
    assert!(next.epoch > end.epoch);
    assert_eq!(next.offset, 1);
    let known = head(&store, &channel).await;
    assert_eq!(known, Head { id: next, ended: false, oldest_prev: Cursor::START });
    let range = store.range(&channel, end, ALL).await.unwrap();
    assert_eq!(range.gap, None);
    assert_eq!(range.events.len(), 1);
    assert_eq!((range.events[0].id, range.events[0].prev), (next, end));
    // And from the beginning it is one log, each event the predecessor of the next.
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    assert_eq!(range.gap, None);
    let ids: Vec<Cursor> = range.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, [first, end, next]);
    let prevs: Vec<Cursor> = range.events.iter().map(|event| event.prev).collect();
    assert_eq!(prevs, [Cursor::START, first, end]);
    // An END right after an END is an epoch of its own.
    let second_end = append(&store, &channel, end_event()).await;
    let third_end = append(&store, &channel, end_event()).await;
    assert_eq!(second_end, next.plus(1));
    assert!(third_end.epoch > second_end.epoch);
}

pub(super) async fn a_repeated_message_id_gets_the_earlier_id<S: Store>(store: S) {
    let (channel, other) = (room("dedup"), room("dedup-other"));
    let conditions = Conditions::default();
    let first = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert!(!first.duplicate);
    append(&store, &channel, event("between")).await;
    let again = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert_eq!(again, Appended { id: first.id, duplicate: true });
    assert_eq!(head(&store, &channel).await.id, first.id.plus(1));
    // Another channel knows nothing of it.
    assert!(!store.append(&other, event_with_id(1), &conditions).await.unwrap().duplicate);
    // An event without an id is never a duplicate.
    append(&store, &channel, event("between")).await;
    // Nor does an END end the memory.
    append(&store, &channel, end_event()).await;
    append(&store, &channel, event("next epoch")).await;
    let again = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert_eq!(again, Appended { id: first.id, duplicate: true });
}

pub(super) async fn a_repeated_message_id_is_not_charged_or_compared<S: Store>(store: S) {
    let channel = room("dedup-first");
    let conditions = limited(2, MINUTE_MS);
    let first = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    for _ in 0..3 {
        let again = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
        assert_eq!(again, Appended { id: first.id, duplicate: true });
    }
    store.append(&channel, event_with_id(2), &conditions).await.unwrap();
    let refused = store.append(&channel, event_with_id(3), &conditions).await;
    assert!(matches!(refused, Err(AppendError::RateLimited { .. })), "{refused:?}");
    // Now neither the rate nor the expectation holds, but this was accepted already.
    let conditions = Conditions { expect: Some(77), ..conditions };
    let again = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert_eq!(again, Appended { id: first.id, duplicate: true });
}

pub(super) async fn a_message_id_is_forgotten_in_time<S: Store>(store: S) {
    let channel = room("dedup-ttl");
    let short = kept(Retention { dedup_ttl_ms: 50, ..Retention::default() });
    let first = store.append(&channel, event_with_id(1), &short).await.unwrap().id;
    eventually("the message id is forgotten", || async {
        let again = store.append(&channel, event_with_id(1), &short).await.unwrap();
        assert_eq!(again.duplicate, again.id == first);
        !again.duplicate
    })
    .await;
    let none = kept(Retention { dedup_ttl_ms: 0, ..Retention::default() });
    for _ in 0..2 {
        let appended = store.append(&channel, event_with_id(2), &none).await.unwrap();
        assert!(!appended.duplicate);
    }
}

pub(super) async fn a_message_id_counts_no_longer_than_its_log<S: Store>(store: S) {
    let channel = room("dedup-delete");
    let conditions = Conditions::default();
    let first = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert!(store.delete(&channel, None).await.unwrap());
    let again = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert!(!again.duplicate);
    assert!(again.id.epoch > first.id.epoch);
    let third = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert_eq!(third, Appended { id: again.id, duplicate: true });
}

pub(super) async fn expect_compares_the_offset<S: Store>(store: S) {
    let channel = room("expect");
    let conflict = |head| Err(AppendError::Conflict { head });
    let refused = store.append(&channel, event("x"), &expecting(1)).await;
    assert_eq!(refused, conflict(Cursor::START));
    let first = store.append(&channel, event("1"), &expecting(0)).await.unwrap().id;
    for wrong in [0, 2, u64::MAX] {
        let refused = store.append(&channel, event("x"), &expecting(wrong)).await;
        assert_eq!(refused, conflict(first), "expecting {wrong}");
    }
    let second = store.append(&channel, event("2"), &expecting(1)).await.unwrap().id;
    assert_eq!(second, first.plus(1));
    // The epoch is not compared: after an END the next epoch begins from the END's offset.
    append(&store, &channel, end_event()).await;
    let next = store.append(&channel, event("3"), &expecting(3)).await.unwrap().id;
    assert_eq!(next.offset, 1);
}

/// The answers to the same append, made by eight tasks at once.
async fn at_once<S: Store>(
    store: &S,
    channel: &ChannelName,
    event: NewEvent,
    conditions: Conditions,
) -> Vec<Result<Appended, AppendError>> {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, channel, event) = (store.clone(), channel.clone(), event.clone());
            tokio::spawn(async move { store.append(&channel, event, &conditions).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

pub(super) async fn one_of_many_with_the_same_expectation_wins<S: Store>(store: S) {
    let channel = room("expect-race");
    let answers = at_once(&store, &channel, event("x"), expecting(0)).await;
    let won: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    let conflict = AppendError::Conflict { head: won[0].id };
    let lost = answers.iter().filter(|answer| answer.as_ref() == Err(&conflict));
    assert_eq!(lost.count(), 7, "{answers:?}");
}

pub(super) async fn one_of_many_with_the_same_message_id_is_stored<S: Store>(store: S) {
    let channel = room("dedup-race");
    let answers = at_once(&store, &channel, event_with_id(9), Conditions::default()).await;
    let id = head(&store, &channel).await.id;
    assert_eq!(id.offset, 1);
    let stored: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(stored.iter().all(|appended| appended.id == id), "{stored:?}");
    assert_eq!(stored.iter().filter(|appended| !appended.duplicate).count(), 1);
}

pub(super) async fn concurrent_appends_leave_no_hole<S: Store>(store: S) {
    let channel = room("concurrent");
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (store, channel) = (store.clone(), channel.clone());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for number in 0..25 {
                    ids.push(append(&store, &channel, event(&format!("{task}-{number}"))).await);
                }
                assert!(ids.is_sorted());
                ids
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    ids.sort();
    let epoch = ids[0].epoch;
    let expected: Vec<Cursor> = (1..=200).map(|offset| Cursor::new(epoch, offset)).collect();
    assert_eq!(ids, expected);
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    assert_eq!(range.events.iter().map(|event| event.id).collect::<Vec<_>>(), expected);
}

pub(super) async fn a_rate_refuses_and_says_exactly_until_when<S: Store>(store: S) {
    let channel = room("rate");
    let slow = limited(3, MINUTE_MS);
    for _ in 0..3 {
        store.append(&channel, event("x"), &slow).await.unwrap();
    }
    let refused = store.append(&channel, event("x"), &slow).await;
    let Err(AppendError::RateLimited { retry_after_ms }) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert!((1..=MINUTE_MS + 1).contains(&retry_after_ms), "{retry_after_ms}");
    // Another channel has its own window.
    store.append(&room("rate-other"), event("x"), &slow).await.unwrap();

    let channel = room("rate-exact");
    let fast = limited(5, 200);
    for _ in 0..3 {
        let retry_after_ms = loop {
            match store.append(&channel, event("x"), &fast).await {
                Ok(_) => {}
                Err(AppendError::RateLimited { retry_after_ms }) => break retry_after_ms,
                Err(error) => panic!("{error}"),
            }
        };
        tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
        store.append(&channel, event("x"), &fast).await.unwrap();
    }
}

pub(super) async fn what_is_refused_is_not_charged<S: Store>(store: S) {
    let channel = room("rate-charge");
    let conditions = limited(2, MINUTE_MS);
    let conflicting = Conditions { expect: Some(99), ..conditions };
    store.append(&channel, event("x"), &conditions).await.unwrap();
    for _ in 0..5 {
        let refused = store.append(&channel, event("x"), &conflicting).await;
        assert!(matches!(refused, Err(AppendError::Conflict { .. })), "{refused:?}");
    }
    store.append(&channel, event("x"), &conditions).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..5 {
        match store.append(&channel, event("x"), &conditions).await {
            Err(AppendError::RateLimited { retry_after_ms }) => waits.push(retry_after_ms),
            other => panic!("not refused: {other:?}"),
        }
    }
    // The wait only gets shorter: trying again doesn't prolong it.
    assert!(waits.is_sorted_by(|one, next| one >= next), "{waits:?}");
    assert_eq!(head(&store, &channel).await.id.offset, 2);
}

pub(super) async fn a_rate_of_zero_refuses_everything<S: Store>(store: S) {
    let refused = store.append(&room("rate-zero"), event("x"), &limited(0, 1000)).await;
    let Err(AppendError::RateLimited { retry_after_ms }) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert!((1..=1001).contains(&retry_after_ms), "{retry_after_ms}");
    assert_eq!(head(&store, &room("rate-zero")).await, Head::default());
}

pub(super) async fn an_end_is_fenced<S: Store>(store: S) {
    let channel = room("fenced-end");
    let retention = Retention::default();
    let first = append(&store, &channel, event("1")).await;
    let second = append(&store, &channel, event("2")).await;
    assert!(!store.end(&channel, first, event("end"), retention).await.unwrap());
    assert!(!store.end(&channel, Cursor::START, event("end"), retention).await.unwrap());
    assert!(store.end(&channel, second, event("end"), retention).await.unwrap());
    let known = head(&store, &channel).await;
    assert_eq!((known.id, known.ended), (second.plus(1), true));
    assert!(!store.end(&channel, known.id, event("end"), retention).await.unwrap());
    assert_eq!(head(&store, &channel).await, known);
}

pub(super) async fn what_is_beyond_the_head_is_passed_by_a_new_epoch<S: Store>(store: S) {
    let channel = room("beyond");
    let first = append(&store, &channel, event("1")).await;
    let lost = Cursor::new(first.epoch + 60_000, 7);
    let passing = Conditions { fence: Some(first), beyond: Some(lost), ..Conditions::default() };
    let next = store.append(&channel, event("2"), &passing).await.unwrap().id;
    assert_eq!(next, Cursor::new(lost.epoch + 1, 1));
    let range = store.range(&channel, first, ALL).await.unwrap();
    assert_eq!((range.events.len(), range.events[0].prev, range.gap), (1, first, None));
    // Whoever else wants to do so finds that it is done.
    let again = store.append(&channel, event("2"), &passing).await;
    assert_eq!(again, Err(AppendError::Conflict { head: next }));
    // From then on the log goes on as any other.
    assert_eq!(append(&store, &channel, event("3")).await, next.plus(1));
}

pub(super) async fn what_is_beyond_a_log_that_is_gone_is_passed_as_well<S: Store>(store: S) {
    let channel = room("beyond-nothing");
    let lost = Cursor::new(append(&store, &room("clock"), event("1")).await.epoch + 60_000, 7);
    let fence = Some(Cursor::START);
    let passing = Conditions { fence, beyond: Some(lost), ..Conditions::default() };
    let first = store.append(&channel, event("1"), &passing).await.unwrap().id;
    assert_eq!(first, Cursor::new(lost.epoch + 1, 1));
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    assert_eq!((range.events.len(), range.events[0].prev, range.gap), (1, Cursor::START, None));
    let again = store.append(&channel, event("1"), &passing).await;
    assert_eq!(again, Err(AppendError::Conflict { head: first }));
    assert_eq!(append(&store, &channel, event("2")).await, first.plus(1));
}

pub(super) async fn a_log_that_lost_nothing_is_not_torn<S: Store>(store: S) {
    let (channel, unknown) = (room("not-torn"), room("not-torn-unknown"));
    let torn = Conditions { torn: true, ..Conditions::default() };
    let first = append(&store, &channel, event("1")).await;
    let refused = store.append(&channel, event("2"), &torn).await;
    assert_eq!(refused, Err(AppendError::Conflict { head: first }));
    let refused = store.append(&unknown, event("2"), &torn).await;
    assert_eq!(refused, Err(AppendError::Conflict { head: Cursor::START }));
}
