//! Each transition of a member's place, by its name in the diagram of `channel.rs`.

#![allow(clippy::unwrap_used)]

mod turns;

use zhttp::composite;
use zhttp::hold::GapReason;

use super::super::run::tests::run;
use super::*;

const RETRY_MS: u64 = 1000;

fn members() -> Members {
    Members::new(MembersConfig { seed: 0, range_retry_ms: RETRY_MS })
}

fn at(offset: u64) -> Cursor {
    Cursor::new(5, offset)
}

fn connection(index: u32) -> Key {
    Key { index, generation: 0 }
}

fn open(members: &mut Members, index: u32, channels: &[(&str, Cursor)]) -> Key {
    let key = connection(index);
    members.open((key, Rendering::Sse), channels.iter().map(|&channel| channel.into()));
    key
}

fn head(members: &mut Members, channel: &str, cursor: Cursor) {
    members.handle_fed(&Fed::Head(channel.into(), cursor));
}

/// Events after an offset of epoch 5.
fn events(members: &mut Members, channel: &str, after: u64, count: u64, end: bool) {
    members.handle_fed(&Fed::Events(run(channel, at(after), None, count, end)));
    members.check_invariants();
}

fn gap(members: &mut Members, after: Cursor, first: Cursor, reason: GapReason) {
    let gap = MissingRun { channel: "o:a".into(), after, first, reason };
    members.handle_fed(&Fed::Gap(Arc::new(gap)));
    members.check_invariants();
}

/// The next delivery: the connection, the ids or gaps in it, and whether that is the end.
fn next(members: &mut Members) -> Option<(u32, String, bool)> {
    let delivery = members.poll_delivery()?;
    members.check_invariants();
    let text = String::from_utf8(delivery.bytes.as_ref().to_vec()).unwrap();
    let said = text.lines().filter_map(|line| line.strip_prefix("data: ")).map(|data| {
        let field = |key: &str| data.split_once(key).and_then(|(_, rest)| rest.split('"').next());
        match (field(r#""from":""#), field(r#""to":""#), field(r#""reason":""#)) {
            (Some(from), Some(to), Some(reason)) => format!("gap {from} {to} {reason}"),
            _ => data.trim_matches('"').to_owned(),
        }
    });
    Some((delivery.connection.index, said.collect::<Vec<_>>().join(" "), delivery.end))
}

fn all(members: &mut Members) -> Vec<(u32, String, bool)> {
    std::iter::from_fn(|| next(members)).collect()
}

fn wants(members: &mut Members, now_ms: u64) -> Vec<Want> {
    let wants = std::iter::from_fn(|| members.poll_output(now_ms)).collect();
    members.check_invariants();
    wants
}

fn range(after: Cursor) -> Want {
    Want::Range("o:a".into(), after)
}

fn got(index: u32, text: &str) -> (u32, String, bool) {
    (index, text.into(), false)
}

#[test]
fn entries_are_small() {
    let (member, hold) = Members::entry_bytes();
    assert!(member <= 24, "a member takes {member} bytes");
    assert!(hold <= 24, "a hold takes {hold} bytes");
}

#[test]
fn live_to_due_to_live() {
    let mut members = members();
    let hold = open(&mut members, 1, &[("o:a", at(2))]);
    open(&mut members, 2, &[("o:a", at(2))]);
    assert_eq!(wants(&mut members, 0), [Want::Open("o:a".into())]);
    head(&mut members, "o:a", at(2));
    events(&mut members, "o:a", 2, 1, false);
    assert!(members.has_deliveries());
    assert_eq!(all(&mut members), [got(2, "5-3"), got(1, "5-3")]);
    assert_eq!(members.cursors(hold).collect::<Vec<_>>(), [("o:a", at(3))]);
    events(&mut members, "o:a", 2, 1, false);
    assert_eq!(all(&mut members), [], "the second copy is ignored");
    assert_eq!(wants(&mut members, 0), []);
}

#[test]
fn a_range_that_was_dropped_on_its_way_is_asked_again_at_once() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", Cursor::START)]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(4));
    assert_eq!(wants(&mut members, 0), [range(Cursor::START)]);
    head(&mut members, "o:a", at(4));
    assert_eq!(wants(&mut members, 0), [], "it is on its way");
    members.handle_missed("o:a", at(4));
    members.handle_missed("o:nobody", at(4));
    assert_eq!(wants(&mut members, 0), [range(Cursor::START)]);
    members.check_invariants();
}

#[test]
fn behind_to_live() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", Cursor::START)]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(4));
    assert_eq!(wants(&mut members, 0), [range(Cursor::START)]);
    members.handle_fed(&Fed::Events(run("o:a", at(0), Some(Cursor::START), 2, false)));
    assert_eq!(all(&mut members), [got(1, "5-1 5-2")]);
    assert_eq!(wants(&mut members, 0), [range(at(2))]);
    events(&mut members, "o:a", 0, 3, false);
    assert_eq!(all(&mut members), [got(1, "5-3")], "what it has is skipped");
    assert_eq!(wants(&mut members, 0), [range(at(3))]);
    events(&mut members, "o:a", 3, 1, false);
    assert_eq!(all(&mut members), [got(1, "5-4")]);
    assert_eq!(wants(&mut members, 0), []);
    events(&mut members, "o:a", 4, 1, false);
    assert_eq!(all(&mut members), [got(1, "5-5")], "it is live");
}

#[test]
fn a_hole_is_asked_for() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(2))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(2));
    events(&mut members, "o:a", 3, 1, false);
    assert_eq!(all(&mut members), []);
    assert_eq!(wants(&mut members, 0), [range(at(2))]);
    events(&mut members, "o:a", 2, 2, false);
    assert_eq!(all(&mut members), [got(1, "5-3 5-4")]);
}

#[test]
fn due_to_stalled_to_behind() {
    let mut members = members();
    let slow = open(&mut members, 1, &[("o:a", at(2))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(2));
    events(&mut members, "o:a", 2, 1, false);
    members.handle_blocked(slow);
    assert_eq!(all(&mut members), [], "a blocked connection gets nothing");
    events(&mut members, "o:a", 3, 1, false);
    assert_eq!(all(&mut members), []);
    assert_eq!(wants(&mut members, 0), [], "and wants nothing");
    members.handle_drained(slow);
    assert_eq!(wants(&mut members, 0), [range(at(2))]);
    events(&mut members, "o:a", 2, 2, false);
    assert_eq!(all(&mut members), [got(1, "5-3 5-4")]);
}

#[test]
fn behind_to_stalled_to_live() {
    let mut members = members();
    let slow = open(&mut members, 1, &[("o:a", at(2))]);
    head(&mut members, "o:a", at(4));
    members.handle_blocked(slow);
    events(&mut members, "o:a", 2, 2, false);
    assert_eq!(all(&mut members), []);
    members.add(slow, ("o:b", at(1)).into());
    events(&mut members, "o:b", 1, 1, false);
    assert_eq!(all(&mut members), [], "nor from a channel that it reads since");
    wants(&mut members, 0);
    members.remove(slow, "o:b");
    members.handle_drained(slow);
    events(&mut members, "o:a", 2, 2, false);
    assert_eq!(all(&mut members), [got(1, "5-3 5-4")]);
}

#[test]
fn a_gap_is_told_to_whom_it_concerns() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(1))]);
    open(&mut members, 2, &[("o:a", at(3))]);
    open(&mut members, 3, &[("o:a", at(6))]);
    let slow = open(&mut members, 4, &[("o:a", at(1))]);
    members.handle_blocked(slow);
    head(&mut members, "o:a", at(8));
    gap(&mut members, at(1), at(6), GapReason::Trimmed);
    let told = [got(1, "gap 5-1 5-6 trimmed"), got(2, "gap 5-3 5-6 trimmed")];
    assert_eq!(all(&mut members), told);
    events(&mut members, "o:a", 5, 3, false);
    let mut rest = all(&mut members);
    rest.sort();
    assert_eq!(rest, [got(1, "5-6 5-7 5-8"), got(2, "5-6 5-7 5-8"), got(3, "5-7 5-8")]);
    members.handle_drained(slow);
    wants(&mut members, 0);
    gap(&mut members, at(1), at(6), GapReason::Trimmed);
    assert_eq!(all(&mut members), [got(4, "gap 5-1 5-6 trimmed")]);
}

#[test]
fn a_gap_moves_the_live_list_but_not_into_blocked_connections() {
    let mut members = members();
    let slow = open(&mut members, 1, &[("o:a", at(3))]);
    open(&mut members, 2, &[("o:a", at(3))]);
    head(&mut members, "o:a", at(3));
    members.handle_blocked(slow);
    let first = Cursor::new(6, 1);
    gap(&mut members, at(3), first, GapReason::Recreated);
    assert_eq!(all(&mut members), [got(2, "gap 5-3 6-1 recreated")]);
    let anew = run("o:a", Cursor::new(6, 0), Some(Cursor::START), 1, false);
    members.handle_fed(&Fed::Events(anew));
    assert_eq!(all(&mut members), [got(2, "6-1")]);
    members.handle_drained(slow);
    gap(&mut members, at(3), first, GapReason::Recreated);
    assert_eq!(all(&mut members), [got(1, "gap 5-3 6-1 recreated")]);
}

#[test]
fn who_has_events_waiting_gets_them_and_no_gap() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(0))]);
    open(&mut members, 2, &[("o:a", at(0))]);
    head(&mut members, "o:a", at(0));
    events(&mut members, "o:a", 0, 1, false);
    assert_eq!(next(&mut members), Some(got(2, "5-1")));
    events(&mut members, "o:a", 1, 1, false);
    gap(&mut members, at(0), at(3), GapReason::Trimmed);
    assert_eq!(next(&mut members), Some(got(1, "5-1")));
    let mut rest = all(&mut members);
    rest.sort();
    assert_eq!(rest, [got(1, "5-2"), got(2, "5-2")]);
}

#[test]
fn who_stands_at_the_end_of_the_epoch_before_misses_nothing() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(1))]);
    open(&mut members, 2, &[("o:a", at(7))]);
    head(&mut members, "o:a", Cursor::new(6, 1));
    gap(&mut members, at(1), Cursor::new(6, 1), GapReason::Trimmed);
    members.handle_fed(&Fed::Events(run("o:a", Cursor::new(6, 0), Some(at(7)), 1, false)));
    let mut said = all(&mut members);
    said.sort();
    let told = got(1, "gap 5-1 6-1 trimmed");
    assert_eq!(said, [got(1, "6-1"), told, got(2, "6-1")]);
}

#[test]
fn within_an_epoch_nothing_is_recreated() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", Cursor::new(4, 1))]);
    open(&mut members, 2, &[("o:a", at(2))]);
    head(&mut members, "o:a", at(9));
    gap(&mut members, Cursor::new(4, 1), at(6), GapReason::Recreated);
    let told = [got(1, "gap 4-1 5-6 recreated"), got(2, "gap 5-2 5-6 trimmed")];
    assert_eq!(all(&mut members), told);
}

#[test]
fn the_end_of_the_only_channel_ends_the_connection() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(0))]);
    open(&mut members, 2, &[("o:a", at(1))]);
    head(&mut members, "o:a", at(1));
    events(&mut members, "o:a", 1, 1, true);
    assert_eq!(all(&mut members), [(2, "5-2".into(), true)]);
    events(&mut members, "o:a", 0, 2, true);
    assert_eq!(all(&mut members), [(1, "5-1 5-2".into(), true)]);
}

#[test]
fn a_connection_ends_with_the_last_of_its_channels() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(0)), ("o:b", at(0))]);
    head(&mut members, "o:a", at(0));
    head(&mut members, "o:b", at(0));
    events(&mut members, "o:a", 0, 1, true);
    assert_eq!(all(&mut members), [got(1, "5-1")]);
    // The channel goes on in a new epoch of the same log: no gap, and it is open again.
    members.handle_fed(&Fed::Events(run("o:a", Cursor::new(6, 0), Some(at(1)), 1, false)));
    assert_eq!(all(&mut members), [got(1, "6-1")]);
    events(&mut members, "o:b", 0, 1, true);
    assert_eq!(all(&mut members), [got(1, "5-1")]);
    members.handle_fed(&Fed::Events(run("o:a", Cursor::new(6, 1), None, 1, true)));
    assert_eq!(all(&mut members), [(1, "6-2".into(), true)]);
}

fn ended(name: &str, offset: u64) -> HoldChannel<'_> {
    HoldChannel { name, cursor: at(offset), ended: true }
}

#[test]
fn who_has_one_end_already_is_finished_by_the_other() {
    let mut members = members();
    let channels = [ended("o:a", 3), ("o:b", at(0)).into()];
    members.open((connection(1), Rendering::Sse), channels.into_iter());
    head(&mut members, "o:a", at(3));
    head(&mut members, "o:b", at(0));
    assert_eq!(all(&mut members), [], "one is open");
    events(&mut members, "o:b", 0, 1, true);
    assert_eq!(all(&mut members), [(1, "5-1".into(), true)]);
}

#[test]
fn an_end_that_goes_on_is_none() {
    let mut members = members();
    let hold = connection(1);
    members.open((hold, Rendering::Sse), [ended("o:a", 3), ("o:b", at(0)).into()].into_iter());
    head(&mut members, "o:a", Cursor::new(6, 1));
    head(&mut members, "o:b", at(0));
    members.handle_fed(&Fed::Events(run("o:a", Cursor::new(6, 0), Some(at(3)), 1, false)));
    assert_eq!(all(&mut members), [got(1, "6-1")]);
    events(&mut members, "o:b", 0, 1, true);
    assert_eq!(all(&mut members), [got(1, "5-1")], "the first one has begun anew");
    members.remove(hold, "o:a");
    assert_eq!(all(&mut members), [(1, String::new(), true)]);
}

#[test]
fn who_has_every_end_is_finished_at_once() {
    let mut members = members();
    members.open((connection(1), Rendering::Sse), [ended("o:a", 3), ended("o:b", 1)].into_iter());
    assert_eq!(next(&mut members), Some((1, String::new(), true)));
    // One that is added in time keeps it open, unless that has ended, too.
    let hold = connection(2);
    members.open((hold, Rendering::Sse), [ended("o:a", 3)].into_iter());
    members.add(hold, ("o:b", at(1)).into());
    assert_eq!(all(&mut members).iter().filter(|(index, ..)| *index == 2).count(), 0);
    members.remove(hold, "o:b");
    members.add(hold, ended("o:b", 1));
    assert!(all(&mut members).contains(&(2, String::new(), true)));
}

#[test]
fn a_hold_whose_last_open_channel_is_removed_ends() {
    let mut members = members();
    let hold = open(&mut members, 1, &[("o:a", at(0)), ("o:b", at(0))]);
    head(&mut members, "o:a", at(0));
    events(&mut members, "o:a", 0, 1, true);
    assert_eq!(all(&mut members), [got(1, "5-1")]);
    members.remove(hold, "o:b");
    members.remove(hold, "o:b");
    assert_eq!(all(&mut members), [(1, String::new(), true)]);
    // One that reads nothing more has no end: channels may be added.
    let hold = open(&mut members, 2, &[("o:b", at(0))]);
    members.remove(hold, "o:b");
    assert_eq!(all(&mut members), []);
}

#[test]
fn ids_of_several_channels_say_where_each_stands() {
    let mut members = members();
    let hold = open(&mut members, 1, &[("o:a", at(0)), ("o:b", at(7))]);
    head(&mut members, "o:a", at(0));
    head(&mut members, "o:b", at(7));
    members.handle_fed(&Fed::Events(run("o:a", at(0), None, 2, false)));
    members.handle_fed(&Fed::Events(run("o:b", at(7), None, 1, false)));
    let id_of = |delivery: &Delivery| {
        let text = std::str::from_utf8(delivery.bytes.as_ref()).unwrap();
        let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        let cursors = ids.iter().map(|id| {
            let composite = composite::decode(id).unwrap();
            (composite.cursor_of("o:a").unwrap(), composite.cursor_of("o:b").unwrap())
        });
        cursors.collect::<Vec<_>>()
    };
    let first = members.poll_delivery().unwrap();
    assert_eq!(id_of(&first), [(at(1), at(7)), (at(2), at(7))]);
    assert_eq!(id_of(&members.poll_delivery().unwrap()), [(at(2), at(8))]);
    members.add(hold, ("o:c", at(3)).into());
    members.handle_fed(&Fed::Events(run("o:a", at(2), None, 1, false)));
    let third = members.poll_delivery().unwrap();
    assert_eq!(id_of(&third), [(at(3), at(8))]);
    let text = String::from_utf8(third.bytes.as_ref().to_vec()).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let composite = composite::decode(id).unwrap();
    assert_eq!((composite.channels(), composite.cursor_of("o:c")), (3, Some(at(3))));
    members.remove(hold, "o:b");
    members.remove(hold, "o:c");
    members.handle_fed(&Fed::Events(run("o:a", at(3), None, 1, false)));
    let alone = members.poll_delivery().unwrap();
    assert!(std::str::from_utf8(alone.bytes.as_ref()).unwrap().contains("\nid: 5-4\n"));
}

#[test]
fn a_range_without_an_answer_is_asked_for_again() {
    let mut members = members();
    let hold = open(&mut members, 1, &[("o:a", at(0))]);
    assert_eq!(wants(&mut members, 0), [Want::Open("o:a".into())]);
    assert_eq!(members.next_deadline(), Some(RETRY_MS));
    members.handle_timeout(RETRY_MS);
    assert_eq!(wants(&mut members, RETRY_MS), [Want::Open("o:a".into())], "nothing is known");
    head(&mut members, "o:a", at(1));
    assert_eq!(wants(&mut members, 1500), [range(at(0))]);
    members.handle_timeout(2499);
    assert_eq!(wants(&mut members, 2499), []);
    members.handle_timeout(2500);
    assert_eq!(wants(&mut members, 2500), [range(at(0))]);
    members.close(hold);
    assert_eq!(wants(&mut members, 2500), [Want::Close("o:a".into())]);
    assert_eq!(members.next_deadline(), None);
}

#[test]
fn a_range_that_brings_nothing_is_asked_for_ever_more_seldom() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(0))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(1));
    let mut asked = Vec::new();
    while asked.len() < 7 {
        let now_ms = members.next_deadline().unwrap_or(0);
        members.handle_timeout(now_ms);
        asked.extend(wants(&mut members, now_ms).iter().map(|_| now_ms));
    }
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses[1..], [2000, 4000, 8000, 16_000, 16_000]);
    let now_ms = asked[6] + 1;
    head(&mut members, "o:a", at(1));
    assert_eq!(wants(&mut members, now_ms), [], "nothing new");
    head(&mut members, "o:a", at(2));
    assert_eq!(wants(&mut members, now_ms), [range(at(0))], "at once, for something is new");
}

#[test]
fn who_is_beyond_all_that_is_known_asks_when_nobody_else_does() {
    let mut members = members();
    open(&mut members, 1, &[("o:a", at(9))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", Cursor::START);
    assert_eq!(wants(&mut members, 0), [], "there is no log");
    head(&mut members, "o:a", at(7));
    assert_eq!(wants(&mut members, 0), [range(at(9))]);
    open(&mut members, 2, &[("o:a", at(6))]);
    assert_eq!(wants(&mut members, 1), [range(at(6))], "that is sure to bring something");
    events(&mut members, "o:a", 6, 1, false);
    assert_eq!(all(&mut members), [got(2, "5-7")]);
    assert_eq!(wants(&mut members, 2), [range(at(9))]);
    events(&mut members, "o:a", 7, 2, false);
    assert_eq!(all(&mut members), [got(2, "5-8 5-9")]);
    assert_eq!((wants(&mut members, 3), members.next_deadline()), (vec![], None));
}

#[test]
fn who_is_of_another_log_is_led_back_to_the_end_of_this_one() {
    let mut members = members();
    let stranger = Cursor::new(9, 4);
    let hold = open(&mut members, 1, &[("o:a", stranger)]);
    open(&mut members, 2, &[("o:a", Cursor::new(9, 5))]);
    open(&mut members, 3, &[("o:a", at(7))]);
    wants(&mut members, 0);
    head(&mut members, "o:a", at(7));
    gap(&mut members, stranger, at(8), GapReason::Recreated);
    assert_eq!(all(&mut members), [got(1, "gap 9-4 5-8 recreated")]);
    assert_eq!(members.cursors(hold).collect::<Vec<_>>(), [("o:a", at(7))]);
    events(&mut members, "o:a", 7, 1, false);
    let live = all(&mut members);
    assert_eq!(live, [got(1, "5-8"), got(3, "5-8")], "each is live there");
}
