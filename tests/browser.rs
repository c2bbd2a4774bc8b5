//! The page of `examples/web` in headless Chromium, against real processes, by each of its transports.
//!
//! Whatever is killed, the page shows every event once and in order, or that some are missing. Where Chromium is not
//! installed these tests pass and say so.

#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "browser/chromium.rs"]
mod chromium;
#[path = "browser/scripted.rs"]
mod scripted;
mod support;
#[path = "browser/system.rs"]
mod system;

use chromium::{Chromium, Page};
use forebay_handlers::auth::Role;
use scripted::{ScriptedEdge, Visit};
use serde_json::{Value, json};
use support::up::ORG;
use system::System;

/// Makes two tests of each function, for either transport.
macro_rules! by_each_transport {
    ($($name:ident),+ $(,)?) => {
        mod by_event_stream {
            $(
                #[test]
                fn $name() {
                    super::with_chromium(|chromium| super::$name(chromium, "sse"));
                }
            )+
        }
        mod by_websocket {
            $(
                #[test]
                fn $name() {
                    super::with_chromium(|chromium| super::$name(chromium, "ws"));
                }
            )+
        }
    };
}

by_each_transport! {
    each_event_is_shown_once_and_in_order,
    killed_handlers_disconnect_nobody,
    what_the_page_publishes_is_stored_once_whoever_is_killed,
    a_page_comes_back_to_its_edge_and_has_missed_nothing,
    a_page_that_comes_back_too_late_is_told_of_a_gap,
    a_page_waits_until_somebody_is_behind_its_edge,
    a_page_that_begins_now_misses_nothing_from_then_on,
    a_refused_token_is_final,
}

/// Who is killed.
#[derive(Clone, Copy)]
enum Victim {
    /// The handler of that number.
    Handler(usize),
    /// The edge of the page.
    Edge,
}

/// Runs a test, if there is a browser for it.
fn with_chromium(test: impl FnOnce(&Chromium)) {
    if let Some(chromium) = Chromium::start(&[]) {
        test(&chromium);
    }
}

/// Opens the page, and waits until it reads.
fn open(chromium: &Chromium, link: &str) -> Page {
    let mut page = chromium.open(link);
    wait_for_state(&mut page, "open");
    page
}

#[track_caller]
fn wait_for_state(page: &mut Page, state: &str) {
    page.wait(&format!("document.getElementById('state').dataset.state === '{state}'"));
}

/// A counter of the page.
#[track_caller]
fn count(page: &mut Page, name: &str) -> u64 {
    let value = page.value(&format!("document.getElementById('{name}').textContent"));
    value.as_str().unwrap().parse().unwrap()
}

/// Waits until a counter has come to a number, or is beyond it.
#[track_caller]
fn wait_for_count(page: &mut Page, name: &str, number: usize) {
    page.wait(&format!("Number(document.getElementById('{name}').textContent) >= {number}"));
}

/// Events, disconnects, resumes and gaps that the page has counted.
#[track_caller]
fn counts(page: &mut Page) -> [u64; 4] {
    ["events", "disconnects", "resumes", "gaps"].map(|name| count(page, name))
}

/// A line of the page's log.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    channel: String,
    cursor: String,
    kind: String,
    content: String,
}

/// Its log, the oldest first.
#[track_caller]
fn log(page: &mut Page) -> Vec<Line> {
    let rows = page.value(
        "[...document.querySelectorAll('#log tr')].reverse()
            .map((row) => [...row.cells].map((cell) => cell.textContent))",
    );
    let line = |row: &Value| {
        let cell = |at: usize| row[at].as_str().unwrap().to_owned();
        Line { channel: cell(1), cursor: cell(2), kind: cell(3), content: cell(4) }
    };
    rows.as_array().unwrap().iter().map(line).collect()
}

/// The ids of the log's events in one channel, which was the only one that was read.
#[track_caller]
fn ids(page: &mut Page) -> Vec<String> {
    log(page).into_iter().map(|line| line.cursor).collect()
}

/// The text that has flowed in a channel.
#[track_caller]
fn flow(page: &mut Page, channel: &str) -> String {
    let text = page.value(&format!(
        "document.querySelector('.flow[data-channel=\"{channel}\"] .text').textContent"
    ));
    text.as_str().unwrap().to_owned()
}

#[track_caller]
fn is_untroubled(page: &mut Page) {
    let troubles = page.troubles();
    assert!(troubles.is_empty(), "{troubles:#?}");
}

fn each_event_is_shown_once_and_in_order(chromium: &Chromium, transport: &str) {
    let system = System::start(&[]);
    let before = system.delta("a", "before ");
    let mut page = open(chromium, &system.link(transport, &["a", "b"]));
    // What a page must not take for its own.
    let words = ["<img src=x onerror=alert(1)> ", "&amp; ", "naïve 🜄 ", "last"];
    let mut stored = vec![before];
    for word in words {
        stored.push(system.delta("a", word));
        system.delta("b", word);
    }
    system.publish("b", &json!({"phase": "PHASE_DELTA", "payload": {"n": 1}}));
    stored.push(system.end("a"));
    system.end("b");

    wait_for_count(&mut page, "events", 1 + 2 * words.len() + 1 + 2);
    let text = words.concat();
    assert_eq!(flow(&mut page, "a"), format!("before {text}END"));
    assert_eq!(flow(&mut page, "b"), format!("{text}{{\"n\":1}}END"));
    let lines = log(&mut page);
    let kinds = |channel: &str| -> Vec<String> {
        let own = lines.iter().filter(|line| line.channel == channel);
        own.map(|line| line.kind.clone()).collect()
    };
    assert_eq!(kinds("a"), ["DELTA", "DELTA", "DELTA", "DELTA", "DELTA", "END"]);
    assert_eq!(kinds("b"), ["DELTA", "DELTA", "DELTA", "DELTA", "DELTA", "END"]);
    if transport == "sse" {
        wait_for_state(&mut page, "ended");
    } else {
        // A socket outlives the end of its channels, and has a cursor for each.
        wait_for_state(&mut page, "open");
        let own = lines.iter().filter(|line| line.channel == "a");
        assert!(own.map(|line| &line.cursor).eq(&stored), "{lines:?}");
        system.delta("a", "and on");
        wait_for_count(&mut page, "events", 1 + 2 * words.len() + 1 + 2 + 1);
    }
    let [_, disconnects, resumes, gaps] = counts(&mut page);
    assert_eq!([disconnects, resumes, gaps], [0, 0, 0]);
    is_untroubled(&mut page);
}

fn killed_handlers_disconnect_nobody(chromium: &Chromium, transport: &str) {
    const KILLS: usize = 4;
    const EVENTS_BETWEEN: usize = 25;
    let mut system = System::start(&[]);
    let mut page = open(chromium, &system.link(transport, &["a"]));
    let mut stored = Vec::new();
    for kill in 0..KILLS {
        for number in 0..EVENTS_BETWEEN {
            stored.push(system.delta("a", &format!("{number} ")));
        }
        // Whichever feeds the page, it is killed in the middle of this; what was stored may not have been fed yet.
        system.kill_handler(kill % 2);
    }
    stored.push(system.delta("a", "last"));
    wait_for_count(&mut page, "events", stored.len());
    assert_eq!(ids(&mut page), stored);
    assert_eq!(counts(&mut page), [stored.len() as u64, 0, 0, 0]);
    is_untroubled(&mut page);
}

fn what_the_page_publishes_is_stored_once_whoever_is_killed(chromium: &Chromium, transport: &str) {
    const BATCH: usize = 20;
    let mut system = System::start(&[]);
    let mut page = open(chromium, &system.link(transport, &["a"]));
    // By hand first.
    page.value(
        "{ document.querySelector('#publish [name=text]').value = 'typed ';
           document.querySelector('#publish button').click(); }",
    );
    page.wait("document.getElementById('published').textContent.startsWith('stored as ')");
    wait_for_count(&mut page, "events", 1);
    page.value(&format!(
        "{{ globalThis.stored = [];
           globalThis.publishNumber = async (number) => {{
               const message = {{ phase: 'PHASE_DELTA', payload: {{ value: `${{number}} ` }} }};
               stored.push((await client.publish('a', message)).id);
           }};
           globalThis.publishBatch = (batch) => Promise.all(
               Array.from({{ length: {BATCH} }}, (_, at) => publishNumber(batch * {BATCH} + at))); }}"
    ));

    let victims =
        [Victim::Handler(0), Victim::Handler(1), Victim::Edge, Victim::Handler(0), Victim::Edge];
    let mut edge_deaths = 0;
    for (batch, victim) in victims.into_iter().enumerate() {
        // All at once, so that some are stored and not answered when their edge dies. (The last value is not the promise,
        // which would be awaited.)
        page.value(&format!("{{ globalThis.batch = publishBatch({batch}); undefined; }}"));
        page.wait(&format!("stored.length > {}", batch * BATCH + BATCH / 4));
        match victim {
            Victim::Handler(number) => system.kill_handler(number),
            Victim::Edge => {
                system.kill_front();
                system.start_front();
                edge_deaths += 1;
            }
        }
        page.value("batch");
        wait_for_count(&mut page, "resumes", edge_deaths);
    }
    let events = 1 + BATCH * victims.len();
    wait_for_count(&mut page, "events", events);
    // In whatever order they were stored.
    let sorted = |mut texts: Vec<String>| {
        texts.sort_unstable();
        texts
    };
    let stored: Vec<String> = serde_json::from_value(page.value("stored")).unwrap();
    let mut shown = ids(&mut page);
    shown.remove(0);
    assert_eq!(sorted(shown), sorted(stored));
    let pieces = flow(&mut page, "a").split_whitespace().skip(1).map(str::to_owned).collect();
    assert_eq!(sorted(pieces), sorted((0..events - 1).map(|number| number.to_string()).collect()));
    let edge_deaths = edge_deaths as u64;
    assert_eq!(counts(&mut page), [events as u64, edge_deaths, edge_deaths, 0]);
    is_untroubled(&mut page);
}

fn a_page_comes_back_to_its_edge_and_has_missed_nothing(chromium: &Chromium, transport: &str) {
    const DEATHS: usize = 3;
    let mut system = System::start(&[]);
    let mut page = open(chromium, &system.link(transport, &["a", "b"]));
    let mut expected = String::new();
    for death in 1..=DEATHS {
        for number in 0..10 {
            let text = format!("{death}.{number} ");
            system.delta("a", &text);
            system.delta("b", &text);
            expected.push_str(&text);
        }
        // In the middle of what it does, and every other time with a word to its clients.
        if death % 2 == 0 {
            system.stop_front();
        } else {
            system.kill_front();
        }
        wait_for_state(&mut page, "waiting");
        let missed = format!("missed {death} ");
        system.delta("a", &missed);
        system.delta("b", &missed);
        expected.push_str(&missed);
        system.start_front();
        wait_for_count(&mut page, "resumes", death);
    }
    wait_for_count(&mut page, "events", 2 * 11 * DEATHS);
    assert_eq!(flow(&mut page, "a"), expected);
    assert_eq!(flow(&mut page, "b"), expected);
    let deaths = DEATHS as u64;
    assert_eq!(counts(&mut page), [22 * deaths, deaths, deaths, 0]);
    is_untroubled(&mut page);
}

fn a_page_that_comes_back_too_late_is_told_of_a_gap(chromium: &Chromium, transport: &str) {
    const KEPT: usize = 10;
    let mut system = System::start(&["--history-max=10"]);
    let mut page = open(chromium, &system.link(transport, &["a"]));
    let first = system.delta("a", "seen ");
    wait_for_count(&mut page, "events", 1);
    system.kill_front();
    wait_for_state(&mut page, "waiting");
    let missed: Vec<_> = (0..30).map(|number| system.delta("a", &format!("{number} "))).collect();
    system.start_front();
    wait_for_count(&mut page, "events", 1 + KEPT);

    let kept = &missed[missed.len() - KEPT..];
    let lines = log(&mut page);
    let gap: Value = serde_json::from_str(&lines[1].content).unwrap();
    assert_eq!(lines[1].kind, "gap");
    assert_eq!([&gap["from"], &gap["to"], &gap["reason"]], [&first, &kept[0], "trimmed"]);
    assert!(lines[2..].iter().map(|line| &line.cursor).eq(kept), "{lines:#?}");
    assert_eq!(counts(&mut page), [1 + KEPT as u64, 1, 1, 1]);
    let expected: String = (20..30).map(|number| format!("{number} ")).collect();
    let gap = format!("gap: {first} … {} (trimmed)", kept[0]);
    assert_eq!(flow(&mut page, "a"), format!("seen {gap}{expected}"));
    is_untroubled(&mut page);
}

/// An EventSource gives up for good at a 503; the page does not.
fn a_page_waits_until_somebody_is_behind_its_edge(chromium: &Chromium, transport: &str) {
    let mut system = System::start(&[]);
    let mut page = open(chromium, &system.link(transport, &["a"]));
    system.delta("a", "before ");
    wait_for_count(&mut page, "events", 1);
    system.kill_front();
    wait_for_state(&mut page, "waiting");
    system.delta("a", "missed ");
    system.kill_handlers();
    system.start_front();
    if transport == "sse" {
        // The edge's own 503 has no CORS header, so that is all a page gets to know.
        page.wait("document.getElementById('detail').textContent.startsWith('sent away')");
    }
    system.start_handlers();
    system.delta("a", "last");
    wait_for_count(&mut page, "events", 3);
    assert_eq!(flow(&mut page, "a"), "before missed last");
    assert_eq!(counts(&mut page), [3, 1, 1, 0]);
    is_untroubled(&mut page);
}

fn a_page_that_begins_now_misses_nothing_from_then_on(chromium: &Chromium, transport: &str) {
    let mut system = System::start(&[]);
    system.delta("a", "before");
    let mut page = open(chromium, &format!("{}&from=$", system.link(transport, &["a"])));
    // It has seen no event yet, but knows where it was.
    system.kill_front();
    wait_for_state(&mut page, "waiting");
    system.delta("a", "missed ");
    system.start_front();
    wait_for_count(&mut page, "resumes", 1);
    system.delta("a", "last");
    wait_for_count(&mut page, "events", 2);
    assert_eq!(flow(&mut page, "a"), "missed last");
    assert_eq!(counts(&mut page), [2, 1, 1, 0]);
    is_untroubled(&mut page);
}

fn a_refused_token_is_final(chromium: &Chromium, transport: &str) {
    let system = System::start(&[]);
    let expired = system.dir.token_aged(Role::Subscriber, ORG, &["a"], 10_000);
    let mut page = chromium.open(&system.link_with(&expired, transport, &["a"]));
    wait_for_state(&mut page, "refused");
    let detail = page.value("document.getElementById('detail').textContent");
    assert!(detail.as_str().unwrap().contains("Token expired"), "{detail}");

    // A good one, typed in, is taken.
    let good = system.dir.token(Role::Subscriber, ORG, &["a"]);
    page.value(&format!(
        "{{ document.querySelector('#connection [name=token]').value = '{good}';
           document.getElementById('start').click(); }}"
    ));
    wait_for_state(&mut page, "open");
    system.delta("a", "text");
    wait_for_count(&mut page, "events", 1);
    page.value("document.getElementById('stop').click()");
    wait_for_state(&mut page, "stopped");
    assert_eq!(counts(&mut page), [1, 0, 0, 0]);
    is_untroubled(&mut page);
}

/// An event stream has the token that it began with; a socket takes a new one while it is open.
#[test]
fn an_open_socket_takes_a_new_token() {
    with_chromium(|chromium| {
        let system = System::start(&[]);
        let mut page = open(chromium, &system.link("ws", &["a"]));
        let later = system.dir.token(Role::Subscriber, ORG, &["a"]);
        let answer = page.value(&format!("client.refresh('{later}')"));
        assert!(answer["expires"].as_u64().is_some(), "{answer}");
        system.delta("a", "text");
        wait_for_count(&mut page, "events", 1);
        assert_eq!(counts(&mut page), [1, 0, 0, 0]);

        // One for another channel covers less, and is refused.
        let narrow = system.dir.token(Role::Subscriber, ORG, &["b"]);
        assert!(page.try_value(&format!("client.refresh('{narrow}')")).is_err());
        is_untroubled(&mut page);
    });
}

/// A link to the page, which comes to a scripted edge by WebSocket.
fn link_to(edge: &ScriptedEdge) -> String {
    system::link(&edge.address, ["a-token", "another-token"], "ws", &["a"])
}

/// The first word of an edge.
fn open_message() -> Value {
    json!({"type": "open", "expires": 4_000_000_000_u64})
}

#[track_caller]
fn detail(page: &mut Page) -> String {
    let detail = page.value("document.getElementById('detail').textContent");
    detail.as_str().unwrap().to_owned()
}

/// What becomes of requests to a client that has finished.
#[track_caller]
fn asked_in_vain(page: &mut Page) -> Value {
    page.value(
        "Promise.allSettled([client.publish('a', { phase: 'PHASE_DELTA' }), client.refresh('token')])
            .then((results) => results.map(({ reason }) => reason.message))",
    )
}

/// The table of close codes in `docs/channels.md`: the page comes back after one of these.
#[test]
fn a_page_comes_back_after_a_close_that_is_transient() {
    with_chromium(|chromium| {
        for code in [1001, 1011, 1012, 1013, 3000, 3499] {
            let edge = ScriptedEdge::start();
            let mut page = chromium.open(&link_to(&edge));
            let mut visit = edge.visit();
            visit.say(&open_message());
            visit.close(code, "for a while");
            edge.visit();
            is_untroubled(&mut page);
        }
    });
}

/// And not after one of these; what is asked of it from then on fails with the reason.
#[test]
fn a_page_gives_up_after_a_close_that_is_final() {
    with_chromium(|chromium| {
        for code in [3500, 3501, 3502, 3999] {
            let edge = ScriptedEdge::start();
            let mut page = chromium.open(&link_to(&edge));
            let mut visit = edge.visit();
            visit.say(&open_message());
            visit.close(code, "for good");
            wait_for_state(&mut page, "refused");
            let why = format!("closed with {code} for good");
            assert_eq!(detail(&mut page), why);
            assert_eq!(asked_in_vain(&mut page), json!([why, why]));
            assert!(!edge.has_visit(), "{code}");
            is_untroubled(&mut page);
        }
    });
}

/// An error in place of `open` says why the close comes; a later one is about something else.
#[test]
fn only_an_error_in_place_of_open_explains_a_close() {
    let complaint = json!({
        "type": "error", "code": "bad_request", "kind": "permanent", "message": "a complaint",
    });
    with_chromium(|chromium| {
        for (words, why) in [
            (vec![&complaint], "closed with 3500 a complaint"),
            (vec![&open_message(), &complaint], "closed with 3500 a reason"),
        ] {
            let edge = ScriptedEdge::start();
            let mut page = chromium.open(&link_to(&edge));
            let mut visit = edge.visit();
            words.into_iter().for_each(|word| visit.say(word));
            visit.close(3500, "a reason");
            wait_for_state(&mut page, "refused");
            assert_eq!(detail(&mut page), why);
            is_untroubled(&mut page);
        }
    });
}

#[test]
fn what_is_asked_of_a_client_that_was_stopped_fails_at_once() {
    with_chromium(|chromium| {
        let edge = ScriptedEdge::start();
        let mut page = chromium.open(&link_to(&edge));
        edge.visit().say(&open_message());
        page.value("document.getElementById('stop').click()");
        wait_for_state(&mut page, "stopped");
        assert_eq!(asked_in_vain(&mut page), json!(["stopped", "stopped"]));
        is_untroubled(&mut page);
    });
}

/// A message that the edge never takes is given up after as many attempts as over HTTP; what is read is asked for again as
/// often as it takes.
#[test]
fn what_is_published_on_a_socket_is_not_tried_for_ever() {
    with_chromium(|chromium| {
        let edge = ScriptedEdge::start();
        let mut page = chromium.open(&link_to(&edge));
        let mut visit = edge.visit();
        visit.say(&open_message());
        let refuse = |visit: &mut Visit, kind: &str| {
            let asked = visit.hear();
            assert_eq!(asked["type"], kind);
            visit.say(&json!({
                "type": "error", "id": asked["id"], "code": "unavailable", "kind": "transient",
                "message": "not now", "data": {"retry_after": 0},
            }));
        };
        (0..12).for_each(|_| refuse(&mut visit, "subscribe"));
        let asked = visit.hear();
        visit.say(&json!({
            "type": "answer", "id": asked["id"], "result": {"channel": "a", "cursor": "0-0"},
        }));
        wait_for_state(&mut page, "open");
        page.value(
            "void (window.outcome = client.publish('a', {}).catch((error) => error.message))",
        );
        (0..8).for_each(|_| refuse(&mut visit, "publish"));
        assert_eq!(page.value("window.outcome"), json!("not now"));
        is_untroubled(&mut page);
    });
}
