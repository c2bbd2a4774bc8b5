//! How a handler answers who wants to read channels: it places the reader in each (docs/channels.md, "Subscribe"), takes
//! the hold, and forgets it. Also what any handler may say later about a hold.

use std::collections::BTreeSet;

use bytes::Bytes;
use forebay_judge::Taken;
use zhttp::hold::{Change, ChangeLists, Format, HoldChannel, HoldParams, Send};
use zhttp::{Cursor, Envelope, Id as WireId, Kind, composite};

use crate::clients::State;
use crate::coverage::Mark;
use crate::handler::{Job, gap_data};
use crate::saying::Start;
use crate::store::{Channel, id_of};
use crate::wire::Class;
use crate::world::{World, trace};

/// How a handler has taken a hold.
#[derive(Debug)]
pub(crate) struct Take {
    /// The id of the session.
    pub(crate) id: Bytes,
    pub(crate) channels: Vec<Taken>,
    /// It ends at a time.
    pub(crate) expires: bool,
    /// A WebSocket ends with this code then.
    pub(crate) expires_code: u16,
    /// A handler is to hear of its end.
    pub(crate) notify: bool,
    /// It goes on when all channels have ended.
    pub(crate) persistent: bool,
    /// Handlers hear what its client says.
    pub(crate) hears: bool,
    /// The edge writes a comment after so long.
    pub(crate) keep_alive_ms: u64,
    /// It began with the heads of all channels there.
    pub(crate) heads: std::collections::BTreeMap<usize, Cursor>,
}

/// Where a reader is put in one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) cursor: Cursor,
    /// The cursor that it came with, from beyond the end.
    pub(crate) lost: Option<Cursor>,
    pub(crate) finished: bool,
}

/// Where a handler puts a reader.
pub(crate) fn place(start: Start, channel: &Channel) -> Place {
    let head = channel.head();
    let at = |cursor| Place { cursor, lost: None, finished: false };
    let after = match start {
        Start::Oldest => return at(channel.oldest_prev()),
        Start::Now => return at(head),
        Start::After(cursor) => cursor,
    };
    let is_known = head != Cursor::START;
    let ended = is_known && channel.ended();
    if is_known && after > head {
        return Place { cursor: head, lost: Some(after), finished: ended };
    }
    Place { finished: ended && after == head, ..at(after) }
}

/// What an id says of each channel that is wanted; `None` if it is none.
fn starts(names: &[&str], presented: Option<&str>, from_now: bool) -> Option<Vec<Start>> {
    let Some(text) = presented.filter(|text| !text.is_empty()) else {
        let start = || if from_now { Start::Now } else { Start::Oldest };
        return Some(names.iter().map(|_| start()).collect());
    };
    if composite::is_composite(text) {
        let cursors = composite::decode(text).ok()?;
        let start = |name: &&str| cursors.cursor_of(name).map_or(Start::Oldest, Start::After);
        return Some(names.iter().map(start).collect());
    }
    let cursor = text.parse().ok()?;
    (names.len() == 1).then(|| vec![Start::After(cursor)])
}

impl World {
    /// A handler answers a client who wants to read channels.
    pub(crate) fn answer_subscribe(&mut self, handler: usize, id: &Bytes) -> Result<(), String> {
        let Some(mut work) = self.handlers[handler].works.remove(id) else { return Ok(()) };
        let Job::Subscribe { wants, presented, from_now } = &work.job else { return Ok(()) };
        let (wants, from_now) = (wants.clone(), *from_now);
        let presented = presented.clone();
        let from = self.handlers[handler].name.clone();
        let names: Vec<&str> = wants.iter().map(|want| &*self.store.channels[*want].name).collect();
        let starts = starts(&names, presented.as_deref(), from_now);
        let Some(starts) = starts else {
            let packet = work.write(&from, Kind::Data, |fields| fields.int("code", 400));
            self.send_to_hub(handler, Class::Session, packet);
            return Ok(());
        };
        for (want, start) in wants.iter().zip(&starts) {
            let head = self.store.channels[*want].head();
            if matches!(start, Start::After(seen) if *seen > head) && head != Cursor::START {
                self.tell_loss(*want, head)?;
            }
        }
        let placed = wants.iter().zip(&starts);
        let places: Vec<(usize, Place)> = placed
            .map(|(want, start)| (*want, place(*start, &self.store.channels[*want])))
            .collect();
        if places.iter().all(|(_, place)| place.finished && place.lost.is_none()) {
            let packet = work.write(&from, Kind::Data, |fields| fields.int("code", 204));
            self.send_to_hub(handler, Class::Session, packet);
            return Ok(());
        }
        let is_now = from_now && presented.is_none();
        let body = self.first_events(&places, is_now);
        let take = self.take(id, &places);
        let params = HoldParams {
            keep_alive_ms: take.keep_alive_ms,
            expires_s: if take.expires { 3 } else { 0 },
            context: b"context",
            notify: take.notify,
            ..HoldParams::new(Format::Sse)
        };
        let channels: Vec<HoldChannel<'_>> = places
            .iter()
            .map(|(want, place)| HoldChannel {
                name: &self.store.channels[*want].name,
                cursor: place.cursor,
                ended: place.finished,
            })
            .collect();
        let number = self.takes.len().to_string();
        let packet = work.write_ext(
            (&from, Kind::Data),
            |ext| params.write_channels(ext, channels.into_iter()),
            |fields| {
                fields.int("code", 200);
                let headers: [(&[u8], &[u8]); 2] =
                    [(b"Content-Type", b"text/event-stream"), (b"X-Take", number.as_bytes())];
                fields.headers(headers.into_iter());
                fields.bytes("body", body.as_bytes());
            },
        );
        trace!(self, "{from} takes hold {number}: {:?}", take.channels);
        self.takes.push(take);
        self.send_to_hub(handler, Class::Session, packet);
        Ok(())
    }

    pub(crate) fn take(&mut self, id: &Bytes, places: &[(usize, Place)]) -> Take {
        let taken = places.iter().map(|(channel, place)| Taken {
            channel: *channel,
            at: id_of(place.cursor),
            ended: place.finished,
        });
        Take {
            id: id.clone(),
            channels: taken.collect(),
            expires: self.random.chance(30) && self.is_operating,
            expires_code: 1000,
            notify: self.random.chance(300),
            persistent: false,
            hears: false,
            keep_alive_ms: self.random.pick(&[0, 2000, 5000]),
            heads: self.heads(),
        }
    }

    /// What the response begins with: where the reader stands, if it began now; what is lost to it.
    fn first_events(&self, places: &[(usize, Place)], is_now: bool) -> String {
        let mut body = "retry: 500\n\n".to_owned();
        let name = |want: usize| &*self.store.channels[want].name;
        let id = || match places {
            [(_, place)] => place.cursor.to_string(),
            _ => {
                let mut out = Vec::new();
                let cursors = places.iter().map(|(want, place)| (name(*want), place.cursor));
                let _ = composite::encode(cursors, &mut out);
                String::from_utf8(out).unwrap_or_default()
            }
        };
        if is_now {
            body.push_str(&format!("id: {}\n\n", id()));
        }
        let lost = places.iter().filter_map(|(want, place)| Some((*want, place.lost?, place)));
        let gaps: Vec<String> = lost
            .map(|(want, lost, place)| gap_data(name(want), lost, place.cursor.plus(1)))
            .collect();
        for (index, gap) in gaps.iter().enumerate() {
            body.push_str("event: control\n");
            if index + 1 == gaps.len() {
                body.push_str(&format!("id: {}\n", id()));
            }
            body.push_str(&format!("data: {gap}\n\n"));
        }
        body
    }

    /// A handler changes what a held client reads: one channel more, or one less.
    pub(crate) fn change_hold(&mut self, client: usize, channel: usize) {
        let Some(handler) = self.any_handler() else { return };
        let Some((id, wants)) = self.held_as(client) else { return };
        let entry = &mut self.clients[client];
        if !entry.reader.is_settled() {
            return;
        }
        let is_behind = entry.reader.is_behind(&self.store.history);
        let from = self.handlers[handler].name.clone();
        let removes = wants.contains(&channel);
        if removes && wants.len() < 2 || !removes && wants.len() >= 4 {
            return;
        }
        let log = &self.store.channels[channel];
        let start = if self.random.chance(500) { Start::Now } else { Start::Oldest };
        let place = place(start, log);
        let added = HoldChannel { name: &log.name, cursor: place.cursor, ended: false };
        let removed = [&*log.name];
        let (add, remove): (&[HoldChannel<'_>], &[&str]) =
            if removes { (&[], &removed) } else { (std::slice::from_ref(&added), &[]) };
        let packet = about(&id, &from, Kind::Hold, |fields| {
            Change::default().write(fields, &ChangeLists { add, remove, bodies: &[] });
        });
        if removes {
            entry.wants.remove(&channel);
            entry.reader.change(&[], &[channel]);
        } else {
            entry.wants.insert(channel);
            let taken = Taken { channel, at: id_of(place.cursor), ended: false };
            entry.reader.change(&[taken], &[]);
        }
        trace!(self, "the hold of client {client} changes in {channel}, removed: {removes}");
        self.mark(Mark::HoldChanged);
        if is_behind {
            self.mark(Mark::HoldChangedBehind);
        }
        self.send_to_hub(handler, Class::Session, packet);
    }

    /// A handler writes to a held client, or ends its response.
    pub(crate) fn speak_to(&mut self, client: usize, ends: bool) {
        let Some(handler) = self.any_handler() else { return };
        let Some((id, _)) = self.held_as(client) else { return };
        let from = self.handlers[handler].name.clone();
        let packet = if ends {
            self.clients[client].may_end = true;
            about(&id, &from, Kind::Close, |_| {})
        } else {
            let body = br#"{"event_type":"control","message_id":"m","control_type":"note"}"#;
            about(&id, &from, Kind::Send, |fields| Send { kind: None, body }.write(fields))
        };
        self.send_to_hub(handler, Class::Session, packet);
    }

    /// The session of a held client, and what it wants.
    fn held_as(&self, client: usize) -> Option<(Bytes, BTreeSet<usize>)> {
        let entry = &self.clients[client];
        let State::Held { take } = entry.state else { return None };
        Some((self.takes[take].id.clone(), entry.wants.clone()))
    }
}

/// A packet about a held connection.
pub(crate) fn about(
    id: &Bytes,
    from: &str,
    kind: Kind,
    fill: impl FnOnce(&mut zhttp::Fields<'_, '_>),
) -> Vec<u8> {
    let ids = [WireId { id, seq: None }];
    let mut out = Vec::new();
    Envelope { from: from.as_bytes(), ids: &ids, kind, multi: true }.write(&mut out, fill);
    out
}
