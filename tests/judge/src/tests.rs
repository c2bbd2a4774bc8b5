//! The judge itself is judged: what is right passes, and each kind of wrong does not.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use crate::{Begin, Cursors, GapKind, Got, History, Id, Reader, Record, Seen, SocketReader, Taken};

const fn id(epoch: u64, offset: u64) -> Id {
    Id::new(epoch, offset)
}

fn append(history: &mut History, at: Id, prev: Id, (born, end): (u64, bool)) {
    let data = format!(r#"{{"channel":"o:c0","id":"{at}"}}"#);
    let record = Record {
        id: at,
        prev,
        end,
        control: false,
        data: Rc::from(data),
        born,
        tick: 0,
        acknowledged_ms: 5,
        is_kept: true,
        is_lost: false,
    };
    history.append(0, record).unwrap();
}

/// One channel: epochs 10 (three events, the last one END) and 20 (two events) in one log; then that is deleted, and
/// 30 (three events, the first one trimmed) is there.
fn history() -> History {
    let mut history = History::new(["o:c0".to_owned(), "o:c1".to_owned()].into_iter());
    append(&mut history, id(10, 1), Id::START, (10, false));
    append(&mut history, id(10, 2), id(10, 1), (10, false));
    append(&mut history, id(10, 3), id(10, 2), (10, true));
    append(&mut history, id(20, 1), id(10, 3), (10, false));
    append(&mut history, id(20, 2), id(20, 1), (10, false));
    history.delete(0, id(20, 2)).unwrap();
    append(&mut history, id(30, 1), Id::START, (30, false));
    append(&mut history, id(30, 2), id(30, 1), (30, false));
    append(&mut history, id(30, 3), id(30, 2), (30, false));
    history.trim(0, id(30, 2));
    history
}

fn event(history: &History, at: Id) -> String {
    let data = &history.log(0).record(at).unwrap().data;
    format!("event: stream\nid: {at}\ndata: {data}\n\n")
}

fn gap(from: &str, to: &str, reason: &str, id: &str) -> String {
    format!(
        "event: control\nid: {id}\ndata: {{\"control_type\":\"gap\",\"channel\":\"c0\",\
         \"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}\n\n"
    )
}

/// A reader that stands there.
fn reader_at(history: &History, at: Id) -> Reader {
    let mut reader = Reader::default();
    let taken = [Taken { channel: 0, at, ended: false }];
    reader.begin(history, Begin { presented: None, taken: &taken, tick: history.tick() });
    reader
}

/// What it makes of this, which comes in small pieces.
fn read(history: &History, at: Id, text: &str) -> Result<Vec<Seen>, String> {
    let mut reader = reader_at(history, at);
    let pieces = text.as_bytes().chunks(7);
    let seen: Result<Vec<Vec<Seen>>, String> =
        pieces.map(|bytes| reader.handle_bytes(history, bytes)).collect();
    seen.map(|seen| seen.concat())
}

#[test]
fn what_is_right_passes() {
    let history = history();
    let ids = [id(10, 2), id(10, 3), id(20, 1)];
    let on: String = ids.iter().map(|at| event(&history, *at)).collect();
    assert_eq!(read(&history, id(10, 1), &on).unwrap().len(), 3);
    let kind = |at, text: &str| read(&history, at, text).unwrap()[0];
    let anew = gap("20-1", "30-2", "recreated", "30-1") + &event(&history, id(30, 2));
    assert_eq!(kind(id(20, 1), &anew), Seen::Gap(GapKind::Recreated));
    let trimmed = gap("30-0", "30-2", "trimmed", "30-1");
    assert_eq!(kind(id(30, 0), &trimmed), Seen::Gap(GapKind::Trimmed));
    let oldest = gap("0-0", "30-2", "trimmed", "30-1");
    assert_eq!(kind(Id::START, &oldest), Seen::Gap(GapKind::Trimmed));
    assert_eq!(kind(id(20, 2), "retry: 500\n\n:\n\n"), Seen::Comment);
    let back = gap("40-7", "30-4", "recreated", "30-3");
    assert_eq!(kind(id(40, 7), &back), Seen::Gap(GapKind::Back));
}

#[test]
fn what_is_wrong_does_not() {
    let history = history();
    let wrong = |at, text: &str, why: &str| {
        let error = read(&history, at, text).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    let (second, third) = (event(&history, id(10, 2)), event(&history, id(10, 3)));
    wrong(id(10, 2), &second, "does not follow");
    wrong(id(10, 1), &third, "does not follow");
    wrong(id(10, 2), &event(&history, id(20, 1)), "does not follow");
    wrong(id(20, 2), &event(&history, id(30, 1)), "does not follow");
    wrong(id(10, 1), &second.replace("id: 10-2", "id: 10-3"), "changed");
    wrong(id(10, 1), &second.replace("id: 10-2\n", ""), "without an id");
    wrong(id(10, 1), &second.replace("o:c0", "o:c1"), "is not read");
    wrong(id(10, 1), &second.replace("stream", "control"), "control_type");
    wrong(id(10, 1), &second.replace("data: ", "data:"), "nobody wrote");
    wrong(id(20, 1), &gap("20-2", "30-2", "recreated", "30-1"), "stands at");
    wrong(id(20, 1), &gap("20-1", "30-2", "trimmed", "30-1"), "not trimmed");
    wrong(id(20, 1), &gap("20-1", "30-2", "recreated", "30-2"), "not where it stands");
    wrong(id(30, 0), &gap("30-0", "30-2", "recreated", "30-1"), "not recreated");
    wrong(id(30, 0), &gap("30-0", "30-3", "trimmed", "30-2"), "is kept");
    wrong(id(30, 1), &gap("30-1", "30-2", "trimmed", "30-1"), "none is");
    wrong(id(40, 7), &gap("40-7", "30-3", "recreated", "30-2"), "which is no end");
    wrong(id(20, 1), &gap("20-1", "25-1", "recreated", "25-0"), "never was");
    let drained = "event: control\ndata: {\"control_type\":\"server_draining\"}\n\n";
    wrong(id(30, 3), &drained.repeat(2), "again");
}

#[test]
fn an_end_has_its_time() {
    let history = history();
    let mut reader = reader_at(&history, id(10, 2));
    assert!(reader.finish(false).is_err());
    reader.handle_bytes(&history, b"event: str").unwrap();
    assert!(reader.finish(true).is_err(), "within an event");
    let mut reader = reader_at(&history, id(10, 2));
    reader.handle_bytes(&history, event(&history, id(10, 3)).as_bytes()).unwrap();
    reader.finish(false).unwrap();
    assert!(reader.is_finished());
    assert!(reader.lack(&history).is_some(), "the log has gone on");
    assert!(reader_at(&history, id(30, 3)).lack(&history).is_none());
    assert!(reader_at(&history, id(30, 4)).lack(&history).is_some(), "beyond the end");
}

#[test]
fn a_fail_over_is_a_gap_too() {
    let mut history = history();
    append(&mut history, id(30, 4), id(30, 3), (30, false));
    history.fail_over(5, 0, id(30, 3));
    assert_eq!(history.lost(), (1, 0));
    append(&mut history, id(50, 1), id(30, 3), (30, false));
    let told = gap("30-4", "50-1", "recreated", "50-0") + &event(&history, id(50, 1));
    assert_eq!(read(&history, id(30, 4), &told).unwrap()[0], Seen::Gap(GapKind::Lost));
    assert!(read(&history, id(30, 4), &event(&history, id(50, 1))).is_err());
    read(&history, id(30, 3), &event(&history, id(50, 1))).unwrap();
    assert!(history.delete(0, id(30, 3)).is_err(), "somebody has appended");
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let history = history();
    let taken = [
        Taken { channel: 0, at: id(10, 1), ended: false },
        Taken { channel: 1, at: Id::START, ended: false },
    ];
    let mut reader = Reader::default();
    // As the codec of the edge writes it: salt 0, o:c0 at 10-2 and o:c1 at 0-0.
    let mut composite = Vec::new();
    let cursors = [("o:c0", zhttp::Cursor::new(10, 2)), ("o:c1", zhttp::Cursor::START)];
    zhttp::composite::encode(cursors.into_iter(), &mut composite).unwrap();
    let composite = String::from_utf8(composite).unwrap();
    let said = Cursors::parse(&composite).unwrap();
    assert_eq!((said.of("o:c0"), said.of("o:c1")), (Some(id(10, 2)), Some(Id::START)));
    assert_eq!((said.channels(), said.of("o:c2")), (2, None));
    // The handler has put it back: it got 10-2 before.
    let tick = history.tick();
    reader.begin(&history, Begin { presented: Some(&composite), taken: &taken, tick });
    let again = event(&history, id(10, 2)).replace("id: 10-2", &format!("id: {composite}"));
    assert!(reader.handle_bytes(&history, again.as_bytes()).is_err());
}

/// A frame with a text message.
fn message(text: &str) -> Vec<u8> {
    let len = match text.len() {
        len @ 0..126 => vec![len as u8],
        len => [&[126][..], &(len as u16).to_be_bytes()].concat(),
    };
    [&[0x81][..], &len, text.as_bytes()].concat()
}

fn socket_event(history: &History, at: Id) -> String {
    let data = &history.log(0).record(at).unwrap().data;
    format!(r#"{{"type":"event","channel":"c0","cursor":"{at}","event":"stream","data":{data}}}"#)
}

fn socket_gap(from: &str, to: &str, reason: &str, cursor: &str) -> String {
    let data = format!(
        r#"{{"control_type":"gap","channel":"c0","from":"{from}","to":"{to}","reason":"{reason}"}}"#
    );
    format!(
        r#"{{"type":"event","channel":"c0","cursor":"{cursor}","event":"control","data":{data}}}"#
    )
}

/// What the client of a WebSocket makes of these messages, which stands there.
fn told(history: &History, at: Id, texts: &[&str]) -> Result<(SocketReader, Vec<Got>), String> {
    let mut reader = SocketReader::default();
    reader.begin(false);
    reader.subscribe(Taken { channel: 0, at, ended: false }, None, history.tick())?;
    let mut all = Vec::new();
    for text in texts {
        reader.push(&message(text));
        all.extend(reader.next_got(history)?);
    }
    Ok((reader, all))
}

#[test]
fn a_client_of_a_websocket_is_owed_the_same() {
    let history = history();
    let events = [id(10, 2), id(10, 3), id(20, 1)].map(|at| socket_event(&history, at));
    let texts: Vec<&str> = events.iter().map(|text| &**text).collect();
    let (mut reader, got) = told(&history, id(10, 1), &texts).unwrap();
    let is_end = |got: &Got| matches!(got, Got::Seen(Seen::Event { end: true, .. }));
    assert_eq!(got.iter().map(is_end).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(reader.place(0), Some(id(20, 1)));
    assert!(reader.lack(&history).is_some() && !reader.is_finished());
    let gap = socket_gap("20-1", "30-2", "recreated", "30-1");
    let (_, got) = told(&history, id(20, 1), &[&gap, "anything"]).unwrap();
    assert_eq!(got, [Got::Seen(Seen::Gap(GapKind::Recreated)), Got::Text("anything".into())]);
    // Behind the word that it reads a channel no more, nothing of it may come; and none is subscribed twice.
    reader.unsubscribe(0);
    reader.push(&message(&socket_event(&history, id(20, 2))));
    assert!(reader.next_got(&history).unwrap_err().contains("is not read"));
    let taken = Taken { channel: 0, at: id(20, 1), ended: false };
    reader.subscribe(taken, None, 0).unwrap();
    assert!(reader.subscribe(taken, None, 0).is_err());
}

#[test]
fn what_is_wrong_on_a_websocket_does_not_pass() {
    let history = history();
    let wrong = |at, text: &str, why: &str| {
        let error = told(&history, at, &[text]).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    let (second, third) = (socket_event(&history, id(10, 2)), socket_event(&history, id(10, 3)));
    wrong(id(10, 2), &second, "does not follow");
    wrong(id(10, 1), &third, "does not follow");
    wrong(id(10, 1), &second.replace(r#""cursor":"10-2"#, r#""cursor":"10-3"#), "changed");
    wrong(id(10, 1), &second.replace(r#""c0""#, r#""c1""#), "is not read");
    wrong(id(10, 1), &second.replace(r#""c0""#, r#""c9""#), "no channel");
    wrong(id(10, 1), &second.replace(r#""stream""#, r#""control""#), "control_type");
    wrong(id(10, 1), &second.replace(r#","event""#, r#", "event""#), "as events are");
    wrong(id(10, 1), &second.replace(r#""event":"stream","#, ""), "as events are");
    wrong(id(20, 1), &socket_gap("20-1", "30-2", "recreated", "30-2"), "comes with the cursor");
    wrong(id(20, 1), &socket_gap("20-2", "30-2", "recreated", "30-1"), "stands at");
}

#[test]
fn what_a_handler_offers_counts_when_it_shows() {
    let history = history();
    let mut reader = SocketReader::default();
    reader.begin(false);
    reader.offer(Taken { channel: 0, at: id(10, 1), ended: false }, history.tick());
    assert!(!reader.is_settled() && reader.channels().is_empty());
    reader.push(&message(&socket_event(&history, id(10, 2))));
    assert!(reader.next_got(&history).unwrap().is_some());
    assert_eq!(reader.place(0), Some(id(10, 2)));
}
