//! Who feeds what, and who is asked for stored events.

#![allow(clippy::unwrap_used)]

use zhttp::hold::GapReason;

use super::super::run::tests::run;
use super::*;

const TIMEOUT_MS: u64 = 2000;
const LINGER_MS: u64 = 5000;

fn feeds() -> Feeds {
    Feeds::new(FeedsConfig {
        seed: 0,
        tail_bytes_max: 10_000,
        tails_bytes_max: 50_000,
        range_bytes_max: 1000,
        ranges_in_flight_max: 2,
        answer_timeout_ms: TIMEOUT_MS,
        linger_ms: LINGER_MS,
    })
}

fn id(name: &str) -> FeederId {
    name.as_bytes().into()
}

fn at(offset: u64) -> Cursor {
    Cursor::new(5, offset)
}

/// What goes out, in words.
fn outputs(feeds: &mut Feeds) -> Vec<String> {
    feeds.check_invariants();
    let to = |id: &FeederId| String::from_utf8(id.to_vec()).unwrap();
    let text = |output| match output {
        FeedsOutput::Feed(id, channels) => {
            let channels = channels.iter().map(|(name, head)| {
                head.map_or_else(|| format!(" {name}"), |head| format!(" {name}@{head}"))
            });
            format!("feed {}{}", to(&id), channels.collect::<String>())
        }
        FeedsOutput::Unfeed(id, names) => format!("unfeed {} {}", to(&id), names.join(" ")),
        FeedsOutput::Range(id, name, after) => format!("range {} {name} {after}", to(&id)),
        FeedsOutput::Worker(worker, Fed::Events(run)) => {
            format!("worker {worker} events {}", run.last())
        }
        FeedsOutput::Worker(worker, Fed::Head(_, head)) => format!("worker {worker} head {head}"),
        FeedsOutput::Worker(worker, Fed::Gap(gap)) => format!("worker {worker} gap {}", gap.first),
    };
    std::iter::from_fn(|| feeds.poll_output()).map(text).collect()
}

fn open(feeds: &mut Feeds, now_ms: u64, worker: u16, name: &str) {
    feeds.handle_want(now_ms, worker, Want::Open(name.into()));
}

fn range(feeds: &mut Feeds, now_ms: u64, worker: u16, after: Cursor) {
    feeds.handle_want(now_ms, worker, Want::Range("o:a".into(), after));
}

/// A feeder, and a channel with members in worker 0 whose head is 5-`head`.
fn fed(head: u64) -> Feeds {
    let mut feeds = feeds();
    feeds.handle_joined(0, &id("f"));
    open(&mut feeds, 0, 0, "o:a");
    feeds.handle_head(0, b"f", "o:a", at(head));
    outputs(&mut feeds);
    feeds
}

fn assignment(feeds: &Feeds) -> BTreeMap<Arc<str>, Option<FeederId>> {
    let channels = feeds.channels.keys().map(|key| &feeds.channels[key.index]);
    channels.map(|channel| (Arc::clone(&channel.name), channel.feeder.clone())).collect()
}

#[test]
fn a_feeder_that_comes_or_goes_moves_only_its_own_channels() {
    let mut feeds = feeds();
    for index in 0..300 {
        open(&mut feeds, 0, 0, &format!("o:{index}"));
    }
    for name in ["a", "b", "c"] {
        feeds.handle_joined(0, &id(name));
    }
    let before = assignment(&feeds);
    for name in ["a", "b", "c"] {
        let share = before.values().filter(|feeder| **feeder == Some(id(name))).count();
        assert!((60..150).contains(&share), "{name} feeds {share} of 300");
    }
    outputs(&mut feeds);
    feeds.handle_joined(0, &id("d"));
    let after = assignment(&feeds);
    let moved = before.iter().filter(|(name, feeder)| after[*name] != **feeder).count();
    let taken = after.values().filter(|feeder| **feeder == Some(id("d"))).count();
    assert_eq!(moved, taken, "what moved, moved to the new one");
    let said = outputs(&mut feeds);
    assert_eq!(said.iter().filter(|said| said.starts_with("feed d")).count(), 1, "in one packet");
    assert_eq!(said.iter().filter(|said| said.starts_with("unfeed")).count(), 3);
    feeds.handle_left(0, &id("d"));
    assert_eq!(assignment(&feeds), before, "and back");
    assert!(outputs(&mut feeds).iter().all(|said| said.starts_with("feed")), "d is not there");
}

#[test]
fn a_channel_lingers_for_those_who_come_back() {
    let mut feeds = feeds();
    feeds.handle_joined(0, &id("f"));
    open(&mut feeds, 0, 0, "o:a");
    open(&mut feeds, 0, 1, "o:a");
    feeds.handle_head(10, b"f", "o:a", at(3));
    outputs(&mut feeds);
    feeds.handle_want(100, 0, Want::Close("o:a".into()));
    feeds.handle_want(100, 1, Want::Close("o:a".into()));
    feeds.handle_timeout(LINGER_MS);
    open(&mut feeds, LINGER_MS, 1, "o:a");
    assert_eq!(outputs(&mut feeds), ["worker 1 head 5-3"]);
    feeds.handle_head(LINGER_MS, b"f", "o:a", at(3));
    assert_eq!(outputs(&mut feeds), Vec::<String>::new(), "nothing new");
    feeds.handle_head(LINGER_MS, b"f", "o:a", at(4));
    assert_eq!(outputs(&mut feeds), ["worker 1 head 5-4"]);
    feeds.handle_want(LINGER_MS + 50, 1, Want::Close("o:a".into()));
    feeds.handle_timeout(LINGER_MS + 100);
    assert_eq!(feeds.channels(), 1, "the time begins anew");
    feeds.handle_timeout(2 * LINGER_MS + 50);
    assert_eq!(outputs(&mut feeds), ["unfeed f o:a"]);
    assert_eq!((feeds.channels(), feeds.next_deadline()), (0, None));
}

#[test]
fn a_feed_is_repeated_until_it_is_answered_and_after_a_long_silence() {
    let mut feeds = feeds();
    feeds.handle_joined(0, &id("f"));
    open(&mut feeds, 0, 0, "o:a");
    assert_eq!(outputs(&mut feeds), ["feed f o:a"]);
    feeds.handle_timeout(TIMEOUT_MS);
    assert_eq!(outputs(&mut feeds), ["feed f o:a"]);
    feeds.handle_head(3000, b"other", "o:a", at(2));
    feeds.handle_timeout(2 * TIMEOUT_MS);
    assert_eq!(outputs(&mut feeds), ["worker 0 head 5-2", "feed f o:a@5-2"], "another answered");
    feeds.handle_head(5000, b"f", "o:a", at(2));
    feeds.handle_timeout(3 * TIMEOUT_MS);
    assert_eq!(outputs(&mut feeds), Vec::<String>::new());
    feeds.handle_events(9000, b"f", &run("o:a", at(2), None, 1, false));
    outputs(&mut feeds);
    feeds.handle_timeout(5000 + SILENCE_MS);
    assert_eq!(outputs(&mut feeds), Vec::<String>::new());
    // It may look in before.
    while let Some(due_ms) = feeds.next_deadline().filter(|due_ms| *due_ms < 9000 + SILENCE_MS) {
        feeds.handle_timeout(due_ms);
        assert_eq!(outputs(&mut feeds), Vec::<String>::new());
    }
    assert_eq!(feeds.next_deadline(), Some(9000 + SILENCE_MS));
    feeds.handle_timeout(9000 + SILENCE_MS);
    assert_eq!(outputs(&mut feeds), ["feed f o:a@5-3"]);
}

#[test]
fn a_range_that_is_late_is_asked_of_another() {
    let mut feeds = fed(9);
    feeds.handle_joined(0, &id("g"));
    outputs(&mut feeds);
    let [first, second] = [0, 1].map(|place| feeds.ranked("o:a", place).unwrap());
    let name = |id: &FeederId| String::from_utf8(id.to_vec()).unwrap();
    range(&mut feeds, 0, 0, at(1));
    range(&mut feeds, 0, 0, at(1));
    assert_eq!(outputs(&mut feeds), [format!("range {} o:a 5-1", name(&first))], "once for all");
    feeds.handle_timeout(TIMEOUT_MS);
    let said = outputs(&mut feeds);
    assert!(said.contains(&format!("range {} o:a 5-1", name(&second))), "{said:?}");
    feeds.handle_left(TIMEOUT_MS, &second);
    let said = outputs(&mut feeds);
    assert!(said.contains(&format!("range {} o:a 5-1", name(&first))), "{said:?}");
    feeds.handle_events(TIMEOUT_MS, &first, &run("o:a", at(0), None, 4, false));
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-4"]);
    feeds.handle_timeout(4 * TIMEOUT_MS);
    let said = outputs(&mut feeds);
    assert!(!said.iter().any(|said| said.starts_with("range")), "{said:?}");
}

#[test]
fn ranges_in_flight_are_bounded() {
    let mut feeds = fed(9);
    for after in 1..=4 {
        range(&mut feeds, 0, 0, at(after));
    }
    assert_eq!(outputs(&mut feeds), ["range f o:a 5-1", "range f o:a 5-2"]);
    feeds.handle_events(1, b"f", &run("o:a", at(1), None, 1, false));
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-2", "range f o:a 5-3"]);
    let gap = MissingRun {
        channel: "o:a".into(),
        after: at(2),
        first: at(8),
        reason: GapReason::Trimmed,
    };
    feeds.handle_gap(1, &Arc::new(gap));
    assert_eq!(outputs(&mut feeds), ["worker 0 gap 5-8"], "it answers those that wait, too");
}

#[test]
fn who_has_no_room_keeps_nobody_else_waiting() {
    let mut feeds = feeds();
    for name in ["f", "g"] {
        feeds.handle_joined(0, &id(name));
    }
    let names: Vec<String> = (0..10_000).map(|index| format!("o:{index}")).collect();
    for name in &names {
        open(&mut feeds, 0, 0, name);
        feeds.handle_want(0, 0, Want::Range(name.as_str().into(), at(1)));
    }
    let said = outputs(&mut feeds);
    let asked = |said: &[String]| said.iter().filter(|said| said.starts_with("range")).count();
    assert_eq!(asked(&said), 4, "as many as fit");
    // Heads of each, with as many ranges that wait, end none of them.
    for name in &names {
        feeds.handle_head(1, b"f", name, at(9));
    }
    assert_eq!(asked(&outputs(&mut feeds)), 0);
    // One answers: it alone gets the next.
    let answered = said.iter().find_map(|said| said.strip_prefix("range f ")).unwrap();
    let name = answered.split(' ').next().unwrap();
    feeds.handle_events(2, b"f", &run(name, at(1), None, 8, false));
    let said = outputs(&mut feeds);
    assert_eq!((asked(&said), said.last().unwrap().starts_with("range f")), (1, true), "{said:?}");
    // When it is gone, the other one gets all, as it has room.
    feeds.handle_left(3, &id("f"));
    assert_eq!(asked(&outputs(&mut feeds)), 0);
    feeds.handle_timeout(TIMEOUT_MS);
    assert_eq!(asked(&outputs(&mut feeds)), 2, "those that are late make room");
}

#[test]
fn that_nothing_is_new_must_come_from_who_was_asked() {
    let mut feeds = fed(9);
    range(&mut feeds, 0, 0, at(5));
    outputs(&mut feeds);
    feeds.handle_head(1, b"stale", "o:a", at(4));
    feeds.handle_timeout(TIMEOUT_MS);
    assert!(outputs(&mut feeds).contains(&"range f o:a 5-5".to_owned()));
    feeds.handle_head(TIMEOUT_MS, b"f", "o:a", Cursor::START);
    feeds.handle_timeout(2 * TIMEOUT_MS);
    assert!(!outputs(&mut feeds).contains(&"range f o:a 5-5".to_owned()), "the log is gone");
}

#[test]
fn the_tail_serves_who_comes_back() {
    let mut feeds = fed(2);
    open(&mut feeds, 0, 1, "o:a");
    outputs(&mut feeds);
    for after in 2..5 {
        feeds.handle_events(1, b"f", &run("o:a", at(after), None, 1, false));
    }
    assert_eq!(outputs(&mut feeds).len(), 6, "both workers get all");
    range(&mut feeds, 2, 1, at(3));
    assert_eq!(outputs(&mut feeds), ["worker 1 events 5-4", "worker 1 events 5-5"]);
    range(&mut feeds, 2, 1, at(1));
    assert_eq!(outputs(&mut feeds), ["range f o:a 5-1"], "the tail does not reach back so far");
}

#[test]
fn a_second_copy_is_dropped() {
    let mut feeds = fed(2);
    let events = run("o:a", at(2), None, 2, false);
    feeds.handle_events(1, b"f", &events);
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-4"]);
    feeds.handle_events(1, b"g", &events);
    feeds.handle_events(1, b"f", &run("o:a", at(3), None, 1, false));
    assert_eq!(outputs(&mut feeds), Vec::<String>::new());
    feeds.handle_events(1, b"f", &run("o:a", at(3), None, 2, false));
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-5"], "what goes on is no copy");
}

#[test]
fn without_feeders_everything_waits() {
    let mut feeds = feeds();
    open(&mut feeds, 0, 0, "o:a");
    range(&mut feeds, 0, 0, at(1));
    assert_eq!((outputs(&mut feeds), feeds.next_deadline()), (Vec::new(), None));
    feeds.handle_joined(5, &id("f"));
    assert_eq!(outputs(&mut feeds), ["feed f o:a", "range f o:a 5-1"]);
    feeds.handle_left(6, &id("f"));
    assert_eq!((outputs(&mut feeds), feeds.next_deadline()), (Vec::new(), None));
    feeds.handle_left(6, &id("f"));
}

#[test]
fn a_new_feeder_is_told_the_last_event_that_is_known_unless_it_is_an_end() {
    let told = |feeds: &mut Feeds| {
        feeds.handle_left(0, &id("f"));
        feeds.handle_joined(0, &id("f"));
        outputs(feeds)
    };
    let mut feeds = fed(3);
    feeds.handle_events(0, b"f", &run("o:a", at(3), None, 1, false));
    feeds.handle_head(0, b"f", "o:a", at(6));
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-4", "worker 0 head 5-6"]);
    assert_eq!(told(&mut feeds), ["feed f o:a@5-6"]);
    feeds.handle_events(0, b"f", &run("o:a", at(6), None, 1, true));
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-7"]);
    assert_eq!(told(&mut feeds), ["feed f o:a"]);
    feeds.handle_head(0, b"f", "o:a", Cursor::new(6, 1));
    assert_eq!(outputs(&mut feeds), ["worker 0 head 6-1"]);
    assert_eq!(told(&mut feeds), ["feed f o:a@6-1"], "it went on");
}

#[test]
fn a_feeder_that_names_an_older_head_is_told_once_what_is_known() {
    let mut feeds = fed(3);
    feeds.handle_joined(0, &id("g"));
    feeds.handle_left(0, &id("g"));
    outputs(&mut feeds);
    feeds.handle_events(0, b"g", &run("o:a", at(3), None, 2, false));
    assert_eq!(outputs(&mut feeds), ["worker 0 events 5-5"], "late, of one that is gone");
    feeds.handle_head(0, b"g", "o:a", at(3));
    assert_eq!(outputs(&mut feeds), Vec::<String>::new(), "not the feeder's");
    for said in [vec!["feed f o:a@5-5"], vec![]] {
        feeds.handle_head(0, b"f", "o:a", at(3));
        assert_eq!(outputs(&mut feeds), said);
    }
    feeds.handle_events(0, b"f", &run("o:a", at(5), None, 1, true));
    outputs(&mut feeds);
    feeds.handle_head(0, b"f", "o:a", at(3));
    assert_eq!(outputs(&mut feeds), Vec::<String>::new(), "who has the END waits for nothing");
}
