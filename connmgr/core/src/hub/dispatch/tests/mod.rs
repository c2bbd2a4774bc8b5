//! Each arrow of the diagram in `dispatch.rs`.

#![allow(clippy::unwrap_used)]

mod waiting;

use zhttp::hold::{Hello, Serves};
use zhttp::{Kind, Packet, hold};

use super::*;

const WAIT_MS: u64 = 10_000;

struct Edge {
    dispatch: Dispatch,
    presence: Presence,
}

impl Edge {
    fn new() -> Self {
        let routes = vec![Route { prefix: "/plain/".into(), group: 1 }];
        let config = DispatchConfig {
            handler_wait_ms: WAIT_MS,
            waiting_requests_max: 3,
            waiting_bytes_max: 30,
            routes,
            req_group: 2,
        };
        Edge { dispatch: Dispatch::new(config), presence: Presence::default() }
    }

    fn hello(&mut self, name: &str, requests_max: u32) {
        self.hello_that_serves(name, requests_max, &[("*", "/events/")]);
    }

    fn hello_that_serves(&mut self, name: &str, requests_max: u32, serves: &[(&str, &str)]) {
        let mut out = Vec::new();
        let hello = Hello {
            ttl_ms: 3000,
            incarnation: 1,
            feeds: false,
            serves: Serves::default(),
            requests_max,
        };
        hold::write_packet(&mut out, name.as_bytes(), Kind::Hello, |fields| {
            hello.write(fields, serves);
        });
        let packet = Packet::parse(&out).unwrap();
        self.presence.handle_hello(0, packet.from, &Hello::read(&packet).unwrap());
        self.dispatch.handle_joined(0, &self.presence);
    }

    fn left(&mut self, now_ms: u64, name: &str) {
        self.presence.handle_lost(name.as_bytes());
        self.dispatch.handle_gone(name.as_bytes());
        self.dispatch.handle_left(now_ms, &mut self.presence, (&name.as_bytes().into(), None));
    }

    /// The ttl of all handlers has passed.
    fn expire(&mut self, now_ms: u64) {
        while let Some((id, incarnation)) = self.presence.pop_expired(now_ms) {
            let life = (&id, Some(incarnation));
            self.dispatch.handle_left(now_ms, &mut self.presence, life);
        }
    }

    fn request(&mut self, now_ms: u64, id: &'static str, path: &str) {
        self.request_of(Class::Stream, now_ms, id, path);
    }

    fn request_of(&mut self, class: Class, now_ms: u64, id: &'static str, path: &str) {
        self.dispatch.handle_request(
            now_ms,
            &mut self.presence,
            Pending {
                class,
                worker: 7,
                id: id.into(),
                method: "GET".into(),
                path: path.into(),
                packet: Bytes::from_static(id.as_bytes()),
                deadline_ms: None,
            },
        );
    }

    fn answer(&mut self, from: &str, id: &str) -> Verdict {
        self.speak(from, id, false)
    }

    /// A handler says something about a request, perhaps that it gives up.
    fn speak(&mut self, from: &str, id: &str, is_end: bool) -> Verdict {
        let from = (from.as_bytes(), is_end);
        self.dispatch.handle_answer(&mut self.presence, from, id.as_bytes())
    }

    fn done(&mut self, id: &str) {
        let cancel = Bytes::from(format!("cancel {id}"));
        self.dispatch.handle_done(&mut self.presence, id.as_bytes(), Some(cancel));
        self.dispatch.check_invariants(&self.presence);
    }

    /// What goes out, in words, and what is pushed.
    fn outputs(&mut self, now_ms: u64) -> (Vec<String>, Vec<(usize, Pending)>) {
        let (mut said, mut pushed) = (Vec::new(), Vec::new());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        while let Some(output) = self.dispatch.poll_output(now_ms, &mut self.presence) {
            match output {
                DispatchOutput::Push(group, pending) => pushed.push((group, pending)),
                DispatchOutput::Route(to, packet) => {
                    said.push(format!("{} to {}", text(&packet), text(&to)));
                }
                DispatchOutput::Worker(7, FromHub::Refused(id)) => {
                    said.push(format!("{} refused", text(&id)));
                }
                DispatchOutput::Worker(7, FromHub::Unserved(id)) => {
                    said.push(format!("{} unserved", text(&id)));
                }
                DispatchOutput::Worker(7, FromHub::HandlerLeft(id)) => {
                    said.push(format!("{} left", text(&id)));
                }
                DispatchOutput::Worker(..) => panic!("another worker"),
            }
        }
        (said, pushed)
    }

    /// Lets a group refuse what is pushed. Says what was, in words.
    fn refuse_pushes(&mut self, now_ms: u64) -> Vec<String> {
        let mut pushed = Vec::new();
        while let Some(output) = self.dispatch.poll_output(now_ms, &mut self.presence) {
            let DispatchOutput::Push(group, pending) = output else { panic!("{output:?}") };
            pushed.push(String::from_utf8(pending.id.to_vec()).unwrap());
            self.dispatch.handle_push_refused(now_ms, &self.presence, (group, pending));
            self.dispatch.check_invariants(&self.presence);
        }
        pushed
    }

    fn said(&mut self, now_ms: u64) -> Vec<String> {
        let (said, pushed) = self.outputs(now_ms);
        assert!(pushed.is_empty());
        said
    }
}

#[test]
fn given_started_done() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    assert_eq!(edge.said(0), ["1 to a"]);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    assert_eq!(edge.answer("b", "1"), Verdict::Pass, "sessions can be handed over");
    edge.done("1");
    edge.left(0, "a");
    assert_eq!(edge.said(0), Vec::<String>::new(), "who has started needs no cancel from here");
}

#[test]
fn req_mode_has_a_group_of_its_own() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    for path in ["/events/x", "/plain/x", "/"] {
        edge.request_of(Class::Req, 0, "1", path);
        let (said, mut pushed) = edge.outputs(0);
        let (group, pending) = pushed.pop().unwrap();
        assert_eq!((said.len(), group, &*pending.id), (0, 2, &b"1"[..]), "{path}");
        // However long others are known: who serves req mode cannot say so.
        edge.dispatch.handle_push_refused(WAIT_MS, &edge.presence, (group, pending));
        edge.done("1");
        assert_eq!(edge.refuse_pushes(WAIT_MS), [""; 0], "it waited");
        edge.dispatch.handle_push_ready();
    }
    edge.request_of(Class::Req, WAIT_MS, "2", "/");
    assert_eq!(edge.refuse_pushes(WAIT_MS), ["2"]);
    edge.hello("b", 0);
    assert_eq!(edge.said(WAIT_MS), Vec::<String>::new());
    edge.dispatch.handle_timeout(2 * WAIT_MS);
    assert_eq!(edge.said(2 * WAIT_MS), ["2 refused"]);
}

#[test]
fn what_was_not_started_is_cancelled_by_whoever_has_it() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.said(0);
    edge.done("1");
    assert_eq!(edge.said(0), ["cancel 1 to a"]);
    edge.done("1");
    assert_eq!(edge.said(0), Vec::<String>::new());
}

/// The client has left before anything went out.
#[test]
fn a_cancel_does_not_overtake_its_request() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.done("1");
    assert_eq!(edge.said(0), ["1 to a", "cancel 1 to a"]);
}

/// Else the next handler who comes would be given it, and have it in flight for ever.
#[test]
fn what_is_done_before_it_is_pushed_is_not_pushed() {
    let mut edge = Edge::new();
    edge.request(0, "1", "/events/x");
    edge.request(0, "2", "/events/y");
    edge.done("1");
    assert_eq!(edge.refuse_pushes(0), ["2"]);
    edge.hello("a", 1);
    assert_eq!(edge.said(0), ["2 to a"]);
    edge.done("2");
    assert_eq!(edge.said(0), ["cancel 2 to a"]);
    edge.dispatch.check_invariants(&edge.presence);
}

#[test]
fn who_does_not_say_who_it_is_takes_nothing_over() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.said(0);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    assert_eq!(edge.answer("", "1"), Verdict::Pass);
    edge.left(0, "a");
    assert_eq!(edge.said(0), ["1 left"]);
}

#[test]
fn given_to_another_when_the_handler_leaves() {
    let mut edge = Edge::new();
    for name in ["a", "b", "c"] {
        edge.hello(name, 0);
    }
    edge.request(0, "1", "/events/x");
    assert_eq!(edge.said(0), ["1 to a"]);
    edge.left(100, "a");
    assert_eq!(edge.answer("a", "1"), Verdict::Withdrawn, "late, and nobody has it");
    assert_eq!(edge.said(100), ["1 to b"]);
    edge.left(200, "b");
    assert_eq!(edge.said(200), ["1 to c"]);
    assert_eq!(edge.answer("a", "1"), Verdict::Withdrawn);
    assert_eq!(edge.answer("c", "1"), Verdict::Pass);
    assert_eq!(edge.answer("a", "1"), Verdict::Withdrawn, "the first one is not forgotten");
    assert_eq!(edge.answer("b", "1"), Verdict::Withdrawn);
}

#[test]
fn who_is_late_may_answer_as_long_as_nobody_else_has_it() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.request(0, "2", "/events/x");
    assert_eq!(edge.said(0), ["1 to a", "2 to a"]);
    edge.expire(5000);
    edge.refuse_pushes(5000);
    assert_eq!(edge.answer("x", "1"), Verdict::Withdrawn, "nobody has it");
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass, "and goes on");
    // Heard of again it has the other one still, and is not given it twice.
    edge.hello("a", 0);
    assert_eq!(edge.said(5100), Vec::<String>::new());
    assert_eq!(edge.answer("a", "2"), Verdict::Pass);
    edge.done("1");
    edge.done("2");
}

#[test]
fn who_was_late_is_not_given_it_again_but_in_another_life() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    assert_eq!(edge.said(0), ["1 to a"]);
    edge.expire(5000);
    edge.hello("b", 0);
    assert_eq!(edge.said(5000), ["1 to b"]);
    edge.hello("a", 0);
    edge.hello("c", 0);
    edge.expire(5000);
    edge.hello("d", 0);
    assert_eq!(edge.said(5000), ["1 to d"]);
    // Those who have it are not given it again; one that has forgotten it is.
    edge.hello("b", 0);
    edge.left(5000, "d");
    assert_eq!(edge.said(5000), Vec::<String>::new(), "b has it");
    edge.left(5000, "b");
    edge.hello("b", 0);
    assert_eq!(edge.said(5000), ["1 to b"]);
    assert_eq!(edge.answer("b", "1"), Verdict::Pass);
    edge.done("1");
}

#[test]
fn who_was_late_and_gives_up_does_not_answer() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.request(0, "2", "/events/x");
    edge.said(0);
    edge.expire(5000);
    assert_eq!(edge.refuse_pushes(5000), ["1"]);
    assert_eq!(edge.speak("a", "1", true), Verdict::Withdrawn);
    edge.hello("b", 0);
    assert_eq!(edge.said(5000), ["1 to b", "2 to b"]);
    assert_eq!(edge.speak("a", "2", true), Verdict::Withdrawn);
    assert_eq!(edge.speak("b", "1", true), Verdict::Pass);
    assert_eq!(edge.answer("b", "2"), Verdict::Pass);
    edge.done("1");
    edge.done("2");
}

#[test]
fn who_gave_up_is_not_given_it_again_in_the_same_life() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.said(0);
    edge.expire(5000);
    edge.hello("b", 0);
    assert_eq!(edge.said(5000), ["1 to b"]);
    assert_eq!(edge.speak("a", "1", true), Verdict::Withdrawn);
    edge.hello("a", 0);
    edge.left(5000, "b");
    assert_eq!(edge.refuse_pushes(5000), ["1"], "it goes to whoever is left");
    edge.left(5000, "a");
    edge.hello("a", 0);
    assert_eq!(edge.said(5000), ["1 to a"], "it has forgotten it");
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    edge.done("1");
}

#[test]
fn who_answered_late_and_is_lost_is_told_of() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.said(0);
    edge.expire(5000);
    edge.refuse_pushes(5000);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    edge.left(5000, "a");
    assert_eq!(edge.said(5000), ["1 left"]);
}

#[test]
fn the_first_who_answers_has_it() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.expire(5000);
    edge.hello("b", 0);
    assert_eq!(edge.said(5000), ["1 to a", "1 to b"]);
    edge.hello("a", 0);
    assert_eq!(edge.answer("x", "1"), Verdict::Withdrawn, "not who never had it");
    assert_eq!(edge.answer("a", "1"), Verdict::PassInsteadOf(b"b"[..].into()));
    assert_eq!(edge.answer("b", "1"), Verdict::Withdrawn);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    edge.done("1");
}

#[test]
fn a_handler_that_leaves_after_its_first_packet_is_told_of() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.hello("b", 0);
    edge.request(0, "1", "/events/x");
    edge.said(0);
    edge.answer("a", "1");
    edge.left(0, "a");
    assert_eq!(edge.said(0), ["1 left"]);
    edge.done("1");
    assert_eq!(edge.said(0), [""; 0], "nobody has it");
}

#[test]
fn a_session_that_was_taken_over_goes_on_without_its_first_handler() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.hello("b", 0);
    edge.request(0, "1", "/events/1");
    edge.said(0);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    assert_eq!(edge.answer("b", "1"), Verdict::Pass);
    edge.left(10, "a");
    assert_eq!(edge.said(10), Vec::<String>::new());
    edge.left(20, "b");
    assert_eq!(edge.said(20).len(), 1, "now nobody is at it");
}
