//! Who has a turn when: slices of fan-outs and catch-ups, and what waits for them.

use super::*;

#[test]
fn a_fan_out_goes_in_slices_and_gathers_what_comes_meanwhile() {
    let mut members = members();
    for index in 0..200 {
        open(&mut members, index, &[("o:a", at(0))]);
    }
    open(&mut members, 1000, &[("o:b", at(0))]);
    head(&mut members, "o:a", at(0));
    head(&mut members, "o:b", at(0));
    events(&mut members, "o:a", 0, 1, false);
    events(&mut members, "o:b", 0, 1, false);
    let first: Vec<_> = (0..65).map(|_| next(&mut members).unwrap()).collect();
    assert_eq!(first[64], got(1000, "5-1"), "the other channel has its turn after a slice");
    events(&mut members, "o:a", 1, 1, false);
    events(&mut members, "o:a", 2, 1, false);
    let rest = all(&mut members);
    assert_eq!(rest.len(), 136 + 200);
    assert!(rest[..136].iter().all(|(_, said, _)| said == "5-1"));
    assert!(rest[136..].iter().all(|(_, said, _)| said == "5-2 5-3"), "in one write");
}

#[test]
fn a_busy_channel_holds_up_nobodys_questions() {
    let mut members = members();
    open(&mut members, 1, &[("o:busy", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:busy", at(0));
    events(&mut members, "o:busy", 0, 1, false);
    open(&mut members, 2, &[("o:a", at(1))]);
    assert!(members.has_deliveries());
    assert_eq!(wants(&mut members, 0), [Want::Open("o:a".into())]);
    head(&mut members, "o:a", at(2));
    assert_eq!(wants(&mut members, 0), [range(at(1))]);
    assert!(members.has_deliveries());
}

#[test]
fn all_runs_of_an_answer_are_one_write() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(0))]);
    open(&mut members, 2, &[("o:a", at(2))]);
    head(&mut members, "o:a", at(300));
    assert_eq!(wants(&mut members, 0).len(), 2);
    for after in 0..300 {
        events(&mut members, "o:a", after, 1, false);
    }
    assert_eq!(wants(&mut members, 0), [], "what came goes out first");
    let said = all(&mut members);
    assert_eq!(said.iter().map(|(index, ..)| *index).collect::<Vec<_>>(), [1, 2]);
    let counts: Vec<usize> = said.iter().map(|(_, said, _)| said.split(' ').count()).collect();
    assert_eq!(counts, [300, 298], "each gets what it lacks");
    assert_eq!(wants(&mut members, 0), []);
}

#[test]
fn a_gap_and_what_lies_behind_it_come_in_one_answer() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(1))]);
    head(&mut members, "o:a", at(8));
    gap(&mut members, at(1), at(6), GapReason::Trimmed);
    events(&mut members, "o:a", 5, 2, false);
    events(&mut members, "o:a", 7, 1, false);
    assert_eq!(all(&mut members), [got(1, "gap 5-1 5-6 trimmed"), got(1, "5-6 5-7 5-8")]);
}

#[test]
fn a_catch_up_is_bounded_and_goes_on_in_parts() {
    let config = MembersConfig { seed: 0, range_retry_ms: RETRY_MS };
    // Two events of five bytes fit into a write, and the third part may still begin to wait.
    let limits = FanoutLimits { write_bytes_max: 10, queue_bytes_max: 21 };
    let mut members = Members::with_fanout_limits(config, limits);
    open(&mut members, 1, &[("o:a", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(8));
    assert_eq!(wants(&mut members, 0), [range(at(0))]);
    for after in 0..8 {
        events(&mut members, "o:a", after, 1, false);
    }
    assert_eq!(all(&mut members), [got(1, "5-1 5-2"), got(1, "5-3 5-4"), got(1, "5-5")]);
    assert_eq!(wants(&mut members, 0), [range(at(5))], "what had no room is asked for again");
}

#[test]
fn a_crowd_that_comes_back_does_not_hold_up_another_channel() {
    let mut members = members();
    let holds: Vec<Key> =
        (0..1000).map(|index| open(&mut members, index, &[("o:a", at(0))])).collect();
    open(&mut members, 5000, &[("o:b", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(2));
    head(&mut members, "o:b", at(0));
    events(&mut members, "o:a", 0, 2, false);
    holds[..100].iter().for_each(|hold| members.close(*hold));
    next(&mut members).unwrap();
    events(&mut members, "o:b", 0, 1, false);
    let first: Vec<_> = (0..64).map(|_| next(&mut members).unwrap()).collect();
    assert_eq!(first[63], got(5000, "5-1"), "after a slice, whoever left");
    events(&mut members, "o:b", 1, 1, false);
    assert_eq!(next(&mut members), Some(got(5000, "5-2")), "what is new goes first");
    let rest = all(&mut members);
    assert_eq!(rest.len(), 900 - 64);
    assert!(rest.iter().all(|(_, said, _)| said == "5-1 5-2"));
}

#[test]
fn large_writes_make_short_slices() {
    let mut members = members();
    for index in 0..9 {
        open(&mut members, index, &[("o:a", at(0))]);
    }
    open(&mut members, 5000, &[("o:b", at(0))]);
    head(&mut members, "o:a", at(4000));
    head(&mut members, "o:b", at(0));
    // With their framing more than a slice.
    events(&mut members, "o:a", 0, 4000, false);
    assert_eq!(next(&mut members).unwrap().0, 0);
    events(&mut members, "o:b", 0, 1, false);
    assert_eq!(next(&mut members), Some(got(5000, "5-1")));
    assert_eq!(all(&mut members).len(), 8);
}

#[test]
fn who_is_behind_has_a_turn_between_busy_channels() {
    let mut members = members();
    let rooms: Vec<String> = (0..20).map(|number| format!("o:{number}")).collect();
    for (index, room) in (0..).zip(&rooms) {
        open(&mut members, index, &[(room, at(0))]);
        head(&mut members, room, at(0));
    }
    open(&mut members, 5000, &[("o:a", at(0))]);
    head(&mut members, "o:a", at(1));
    events(&mut members, "o:a", 0, 1, false);
    rooms.iter().for_each(|room| events(&mut members, room, 0, 1, false));
    let place = all(&mut members).iter().position(|(index, ..)| *index == 5000);
    assert_eq!(place, Some(8), "after as many of the others");
}

#[test]
fn a_run_that_reaches_back_is_for_those_who_stand_before_what_waits() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(0))]);
    open(&mut members, 2, &[("o:a", at(3))]);
    head(&mut members, "o:a", at(6));
    events(&mut members, "o:a", 3, 2, false);
    events(&mut members, "o:a", 0, 6, false);
    let mut said = all(&mut members);
    said.sort();
    assert_eq!(said, [got(1, "5-1 5-2 5-3 5-4 5-5 5-6"), got(2, "5-4 5-5"), got(2, "5-6")]);
}

#[test]
fn who_leaves_in_the_middle_of_a_fan_out_is_not_missed() {
    let mut members = members();
    let holds: Vec<Key> =
        (0..4).map(|index| open(&mut members, index, &[("o:a", at(0))])).collect();
    head(&mut members, "o:a", at(0));
    events(&mut members, "o:a", 0, 1, false);
    assert_eq!(next(&mut members), Some(got(3, "5-1")));
    members.close(holds[0]);
    members.close(holds[3]);
    members.check_invariants();
    members.close(holds[0]);
    let mut rest = all(&mut members);
    rest.sort();
    assert_eq!(rest, [got(1, "5-1"), got(2, "5-1")]);
    assert_eq!(members.holds(), 2);
}

#[test]
fn a_full_queue_asks_for_nothing_until_the_fan_out_is_through() {
    let config = MembersConfig { seed: 0, range_retry_ms: RETRY_MS };
    let limits = FanoutLimits { write_bytes_max: 1, queue_bytes_max: 1 };
    let mut members = Members::with_fanout_limits(config, limits);
    open(&mut members, 1, &[("o:a", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(0));
    for after in 0..3 {
        events(&mut members, "o:a", after, 1, false);
    }
    assert_eq!(wants(&mut members, 0), [], "the third was dropped, and has no room yet");
    assert_eq!(all(&mut members), [got(1, "5-1"), got(1, "5-2")]);
    assert_eq!(wants(&mut members, 0), [range(at(2))]);
    events(&mut members, "o:a", 2, 1, false);
    assert_eq!(all(&mut members), [got(1, "5-3")]);
}

#[test]
fn readers_that_keep_coming_do_not_starve_those_before_them() {
    let mut members = members();
    open(&mut members, 0, &[("o:a", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(10));
    for after in 0..10 {
        assert_eq!(wants(&mut members, 0), [range(at(after))]);
        open(&mut members, 100 + after as u32, &[("o:a", at(0))]);
        events(&mut members, "o:a", after, 1, false);
        assert!(all(&mut members).contains(&got(0, &format!("5-{}", after + 1))));
    }
    assert_eq!(wants(&mut members, 0), [range(at(0))], "then the others have their turn");
}

#[test]
fn a_catch_up_that_is_over_has_no_turn_left() {
    let mut members = members();
    // The last member of `a` has its turn as the last but one of a slice: the end of the walk is the last.
    for index in 0..63 {
        open(&mut members, index, &[("o:a", at(2))]);
    }
    open(&mut members, 63, &[("o:b", at(2))]);
    wants(&mut members, 0);
    for channel in ["o:a", "o:b"] {
        head(&mut members, channel, at(4));
        events(&mut members, channel, 2, 1, false);
    }
    assert_eq!(all(&mut members).len(), 64);
}

#[test]
fn what_gathers_for_one_write_is_bounded() {
    let config = MembersConfig { seed: 0, range_retry_ms: RETRY_MS };
    // Each event has five bytes.
    let limits = FanoutLimits { write_bytes_max: 11, ..FanoutLimits::default() };
    let mut members = Members::with_fanout_limits(config, limits);
    open(&mut members, 1, &[("o:a", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(0));
    for after in 0..6 {
        events(&mut members, "o:a", after, 1, false);
    }
    let writes = ["5-1", "5-2 5-3", "5-4 5-5", "5-6"];
    assert_eq!(all(&mut members), writes.map(|text| got(1, text)));
}
