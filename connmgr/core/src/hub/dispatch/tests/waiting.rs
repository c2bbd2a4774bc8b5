//! Requests that nobody takes now: what they wait for, for how long, and who has them then.

use super::*;

#[test]
fn a_request_waits_for_a_handler_with_room() {
    let mut edge = Edge::new();
    edge.hello("a", 1);
    edge.request(0, "1", "/events/x");
    edge.request(0, "2", "/events/x");
    edge.request(0, "3", "/events/x");
    assert_eq!(edge.said(0), ["1 to a"]);
    edge.done("1");
    assert_eq!(edge.said(0), ["cancel 1 to a", "2 to a"], "in the order of arrival");
    edge.done("3");
    edge.done("2");
    assert_eq!(edge.said(0), ["cancel 2 to a"]);
    assert_eq!(edge.dispatch.next_deadline(), None);
}

#[test]
fn a_request_waits_only_so_long_and_only_so_many_do() {
    let mut edge = Edge::new();
    edge.hello("a", 1);
    edge.request(0, "0", "/events/x");
    edge.said(0);
    edge.request(5, "1", "/events/x");
    edge.request(6, "2", "/events/x");
    edge.request(7, "3", "/events/x");
    edge.request(8, "4", "/events/x");
    assert_eq!(edge.said(8), ["4 refused"]);
    assert_eq!(edge.dispatch.next_deadline(), Some(5 + WAIT_MS));
    edge.dispatch.handle_timeout(6 + WAIT_MS);
    assert_eq!(edge.said(6 + WAIT_MS), ["1 refused", "2 refused"]);
    edge.done("1");
    assert_eq!(edge.said(6 + WAIT_MS), [""; 0], "nobody has it");
}

#[test]
fn what_nobody_serves_is_pushed_until_it_is_taken() {
    let mut edge = Edge::new();
    edge.request(0, "1", "/plain/x");
    edge.request(3, "2", "/other");
    let (_, pushed) = edge.outputs(3);
    assert_eq!(pushed.iter().map(|(group, _)| *group).collect::<Vec<_>>(), [1, 0]);
    // The later one is refused first, so it stands before the earlier one.
    for (group, pending) in pushed.into_iter().rev() {
        edge.dispatch.handle_push_refused(4, &edge.presence, (group, pending));
    }
    assert_eq!(edge.outputs(4).1.len(), 0);
    assert_eq!(edge.dispatch.next_deadline(), Some(4 + PUSH_RETRY_MS));
    edge.dispatch.handle_timeout(4 + PUSH_RETRY_MS);
    let (_, pushed) = edge.outputs(4 + PUSH_RETRY_MS);
    assert_eq!(pushed.len(), 2);
    for (group, pending) in pushed {
        edge.dispatch.handle_push_refused(WAIT_MS - 1, &edge.presence, (group, pending));
    }
    assert_eq!(edge.dispatch.next_deadline(), Some(WAIT_MS), "by deadline, not by place");
    edge.dispatch.handle_timeout(WAIT_MS);
    assert_eq!(edge.said(WAIT_MS), ["1 refused"]);
}

#[test]
fn what_was_never_served_is_not_waited_for_once_handlers_had_time_to_come() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(WAIT_MS - 1, "early", "/other");
    assert_eq!(edge.refuse_pushes(WAIT_MS - 1), ["early"]);
    assert!(matches!(edge.dispatch.requests[&b"early"[..]], Stage::Waiting { .. }));
    edge.done("early");
    edge.dispatch.handle_timeout(2 * WAIT_MS);

    edge.left(2 * WAIT_MS, "a");
    edge.request(2 * WAIT_MS, "served", "/events/x");
    edge.request(2 * WAIT_MS, "never", "/other");
    let (_, pushed) = edge.outputs(2 * WAIT_MS);
    for (group, pending) in pushed {
        edge.dispatch.handle_push_refused(2 * WAIT_MS, &edge.presence, (group, pending));
    }
    assert_eq!(edge.said(2 * WAIT_MS), ["never unserved"]);

    edge.dispatch.handle_push_ready();
    edge.dispatch.handle_peopled(1);
    edge.request(2 * WAIT_MS, "plain", "/plain/x");
    let (_, pushed) = edge.outputs(2 * WAIT_MS);
    for (group, pending) in pushed {
        edge.dispatch.handle_push_refused(2 * WAIT_MS, &edge.presence, (group, pending));
    }
    assert_eq!(edge.said(2 * WAIT_MS), Vec::<String>::new(), "a plain handler may come back");
}

#[test]
fn who_serves_nothing_does_not_say_that_nobody_does() {
    let mut edge = Edge::new();
    edge.hello_that_serves("feeder", 0, &[]);
    edge.request(WAIT_MS, "1", "/events/x");
    assert_eq!(edge.refuse_pushes(WAIT_MS), ["1"]);
    assert!(matches!(edge.dispatch.requests[&b"1"[..]], Stage::Waiting { .. }));
}

#[test]
fn a_withdrawn_request_stays_so_while_it_is_pushed() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    edge.said(0);
    edge.left(0, "a");
    let (_, mut pushed) = edge.outputs(0);
    assert_eq!(edge.answer("a", "1"), Verdict::Withdrawn);
    assert_eq!(edge.answer("plain", "1"), Verdict::Pass);
    let (group, pending) = pushed.pop().unwrap();
    edge.dispatch.handle_push_refused(0, &edge.presence, (group, pending));
    edge.hello("b", 0);
    assert_eq!(edge.said(0), ["1 to b"]);
    edge.answer("b", "1");
    assert_eq!(edge.answer("a", "1"), Verdict::Withdrawn);
    edge.done("1");
    assert!(edge.dispatch.requests.is_empty());
}

#[test]
fn a_request_that_kills_its_handlers_does_not_kill_them_all() {
    let mut edge = Edge::new();
    edge.hello("a", 0);
    edge.request(0, "1", "/events/x");
    for _ in 1..HANDLERS_PER_REQUEST_MAX {
        assert_eq!(edge.said(0), ["1 to a"]);
        edge.left(0, "a");
        edge.hello("a", 0);
    }
    assert_eq!(edge.said(0), ["1 to a"]);
    edge.left(0, "a");
    assert_eq!(edge.said(0), ["1 refused"]);
}

#[test]
fn a_group_that_refused_one_request_gets_no_other_until_it_is_ready() {
    let mut edge = Edge::new();
    for id in ["1", "2", "3"] {
        edge.request(0, id, "/plain/x");
    }
    assert_eq!(edge.refuse_pushes(0), ["1"], "the others need not be tried");
    edge.dispatch.handle_timeout(PUSH_RETRY_MS - 1);
    assert_eq!(edge.refuse_pushes(PUSH_RETRY_MS - 1), Vec::<String>::new());
    edge.dispatch.handle_push_ready();
    assert_eq!(edge.refuse_pushes(5), ["1"], "it has kept its place");
    edge.dispatch.handle_timeout(5 + PUSH_RETRY_MS);
    let (_, pushed) = edge.outputs(5 + PUSH_RETRY_MS);
    let ids: Vec<&[u8]> = pushed.iter().map(|(_, pending)| &*pending.id).collect();
    assert_eq!(ids, [b"1", b"2", b"3"], "in the order of arrival");
}

#[test]
fn a_blocked_group_holds_up_no_other() {
    let mut edge = Edge::new();
    edge.request(0, "1", "/plain/x");
    assert_eq!(edge.refuse_pushes(0), ["1"]);
    edge.request(0, "2", "/plain/x");
    edge.request(0, "3", "/other");
    let (_, pushed) = edge.outputs(0);
    assert_eq!(pushed.len(), 1);
    assert_eq!(&*pushed[0].1.id, b"3");
}

#[test]
fn a_request_that_is_done_lets_one_in() {
    let mut edge = Edge::new();
    edge.hello("a", 2);
    for id in ["1", "2", "3", "4"] {
        edge.request(0, id, "/events/x");
    }
    assert_eq!(edge.said(0), ["1 to a", "2 to a"]);
    edge.request(0, "5", "/plain/x");
    edge.done("2");
    let (said, pushed) = edge.outputs(0);
    assert_eq!((said, pushed.len()), (vec!["cancel 2 to a".into(), "3 to a".into()], 1));
    edge.done("1");
    assert_eq!(edge.said(0), ["cancel 1 to a", "4 to a"]);
}

#[test]
fn who_waits_for_a_handler_that_leaves_goes_elsewhere() {
    let mut edge = Edge::new();
    edge.hello("a", 1);
    edge.request(0, "1", "/events/x");
    edge.request(0, "2", "/events/x");
    assert_eq!(edge.said(0), ["1 to a"]);
    edge.presence.handle_bye(0, b"a");
    edge.dispatch.handle_joined(0, &edge.presence);
    let (_, pushed) = edge.outputs(0);
    assert_eq!(pushed.len(), 1, "nobody serves it any more");
    edge.done("1");
    assert_eq!(edge.said(0), ["cancel 1 to a"], "what it has it may finish");
}

/// A session counts for whom it was given to, also if another one has taken it over, and is lost with it.
#[test]
fn a_handler_has_room_when_another_is_lost_with_its_session() {
    let mut edge = Edge::new();
    edge.hello("a", 1);
    edge.request(0, "1", "/events/x");
    assert_eq!(edge.said(0), ["1 to a"]);
    assert_eq!(edge.answer("a", "1"), Verdict::Pass);
    assert_eq!(edge.answer("b", "1"), Verdict::Pass);
    edge.request(0, "2", "/events/y");
    assert_eq!(edge.said(0), Vec::<String>::new(), "a has no room");
    edge.left(0, "b");
    assert_eq!(edge.said(0), ["1 left", "2 to a"]);
    edge.dispatch.check_invariants(&edge.presence);
}

#[test]
fn who_waits_is_bounded_in_bytes() {
    let mut edge = Edge::new();
    edge.request_of(Class::Message, 0, "0123456789", "/events/");
    edge.request_of(Class::Message, 0, "0123456789-0123456789", "/events/");
    assert_eq!(edge.said(0), ["0123456789-0123456789 refused"]);
    edge.request_of(Class::Message, 0, "01234567890123456789", "/events/");
    edge.hello("a", 0);
    assert_eq!(edge.said(0), ["0123456789 to a", "01234567890123456789 to a"]);
}

/// What a client says waits for those who said hello, and for nobody else. It is given again as long as it has time, and
/// when it is done its handler has room for another.
#[test]
fn messages_are_for_those_who_said_hello() {
    let mut edge = Edge::new();
    edge.dispatch.handle_peopled(0);
    edge.request_of(Class::Message, 0, "1/1", "/events/");
    assert_eq!(edge.said(0), [""; 0], "no plain handler has it");
    edge.hello("a", 1);
    assert_eq!(edge.said(0), ["1/1 to a"]);
    edge.request_of(Class::Message, 0, "2/1", "/events/");
    assert_eq!(edge.said(0), [""; 0], "a has one already");
    edge.done("1/1");
    assert_eq!(edge.said(0), ["cancel 1/1 to a", "2/1 to a"]);
    edge.left(1, "a");
    edge.hello("b", 0);
    assert_eq!(edge.said(1), ["2/1 to b"]);
    edge.left(2, "b");
    edge.dispatch.handle_timeout(WAIT_MS - 1);
    assert_eq!(edge.said(WAIT_MS - 1), [""; 0]);
    edge.dispatch.handle_timeout(WAIT_MS);
    assert_eq!(edge.said(WAIT_MS), ["2/1 refused"], "it has no more time than at first");
}
