//! Handlers and WebSockets: how they take the hold of one, hear what its client says, and answer (hold.md §4.1).
//!
//! An answer is one packet: it places the client in what it has subscribed to, as a new reader is placed, takes away what
//! it has let go, and has one text for each message. A handler may be late with it, say it twice, or never; and one that
//! the message was taken from may still answer.

use std::rc::Rc;

use bytes::Bytes;
use zhttp::hold::{Change, ChangeLists, Format, HoldChannel, HoldParams, Message};
use zhttp::{Cursor, Kind, Packet};

use crate::coverage::Mark;
use crate::handler::{Job, gap_data};
use crate::saying::{Answer, Saying, Start, What};
use crate::scenario::Role;
use crate::schedule::Action;
use crate::subscribe::{Place, about, place};
use crate::talk::sayings;
use crate::wire::Class;
use crate::world::{World, trace};

/// Who serves what clients of WebSockets say.
pub(crate) const PATH: &str = "/ws/";

/// How long a handler takes to answer, in milliseconds, at most.
const ANSWER_MS: u64 = 200;

/// The same of one that is late: the client may have been given up by then, or another handler have answered.
const LATE_MS: u64 = 8000;

/// With which code a WebSocket ends whose time is up, if not with the usual one.
pub(crate) const EXPIRED: u16 = 3502;

/// A `message`, as a handler has heard it.
#[derive(Debug)]
pub(crate) struct Heard {
    id: Bytes,
    number: u64,
    sayings: Vec<Saying>,
}

/// What a batch of messages comes to: channels to read, from where, and channels to read no more.
#[derive(Debug, Default)]
struct Sum {
    add: Vec<(usize, Place)>,
    remove: Vec<usize>,
    bodies: Vec<String>,
}

impl World {
    /// A handler takes the hold of a WebSocket. Where a reader would have to be led back it does not put it: its client asks
    /// for that channel by a message, and is told then.
    pub(crate) fn answer_attach(&mut self, handler: usize, id: &Bytes) {
        let Some(mut work) = self.handlers[handler].works.remove(id) else { return };
        let Job::Attach { wants } = &work.job else { return };
        let places: Vec<(usize, Place)> = { wants.iter() }
            .map(|(want, start)| (*want, place(*start, &self.store.channels[*want])))
            .filter(|(_, place)| place.lost.is_none())
            .collect();
        let is_whole = places.len() == wants.len() && !places.is_empty();
        let is_over = places.iter().all(|(_, place)| place.finished);
        let mut take = self.take(id, &places);
        take.persistent = is_over || self.random.chance(500);
        take.hears = !is_whole || self.random.chance(900);
        let expires_code = if self.random.chance(500) { EXPIRED } else { 0 };
        take.expires_code = if expires_code == 0 { 1000 } else { expires_code };
        let number = self.takes.len().to_string();
        let params = HoldParams {
            keep_alive_ms: take.keep_alive_ms,
            expires_s: if take.expires { 3 } else { 0 },
            expires_code,
            context: number.as_bytes(),
            notify: take.notify,
            persistent: take.persistent,
            messages: if take.hears { PATH } else { "" },
            ..HoldParams::new(Format::Ws)
        };
        let from = self.handlers[handler].name.clone();
        let channels: Vec<HoldChannel<'_>> = places
            .iter()
            .map(|(want, place)| HoldChannel {
                name: &self.store.channels[*want].name,
                cursor: place.cursor,
                ended: place.finished,
            })
            .collect();
        let packet = work.write_ext(
            (&from, Kind::Data),
            |ext| params.write_channels(ext, channels.into_iter()),
            |fields| {
                fields.int("code", 101);
                let headers: [(&[u8], &[u8]); 1] = [(b"X-Take", number.as_bytes())];
                fields.headers(headers.into_iter());
                fields.bytes("body", format!("hello {number}").as_bytes());
            },
        );
        trace!(self, "{from} takes the WebSocket {number}: {take:?}");
        self.takes.push(take);
        self.send_to_hub(handler, Class::Session, packet);
    }

    /// A handler is given what a client has said.
    pub(crate) fn handler_hears(
        &mut self,
        handler: usize,
        packet: &Packet<'_>,
    ) -> Result<(), String> {
        let id = { packet.ids }.next().ok_or("a message of nobody")?.id;
        let message = Message::read(packet).map_err(|error| error.to_string())?;
        let take = std::str::from_utf8(message.context).ok().and_then(|text| text.parse().ok());
        let take = take.and_then(|number: usize| self.takes.get(number));
        if message.path != PATH || take.is_none_or(|take| *take.id != *id || !take.hears) {
            return Err(format!("{message:?} is of another hold"));
        }
        let entry = &mut self.handlers[handler];
        if entry.role == Role::Plain {
            return Err(format!("{} hears a message, and has never said hello", entry.name));
        }
        if entry.leaving {
            return Ok(());
        }
        let id = Bytes::copy_from_slice(id);
        // The edge may have given it to the process before this one, for all that it knew.
        if !entry.heard.insert((id.clone(), message.number)) {
            return Ok(());
        }
        let incarnation = entry.incarnation;
        let sayings = sayings(&message)?;
        if sayings.len() > 1 {
            self.mark(Mark::SaidInBatch);
        }
        let heard = Rc::new(Heard { id, number: message.number, sayings });
        let wait_ms = match self.random.up_to(99) {
            0 if self.is_operating => {
                self.oracles.talk.refuse(heard.id.clone());
                return Ok(());
            }
            1..=4 if self.is_operating => {
                self.oracles.talk.refuse(heard.id.clone());
                self.random.up_to(LATE_MS)
            }
            _ => self.random.up_to(ANSWER_MS),
        };
        let life = self.edge_lives;
        let action = Action::Answer { handler, incarnation, life, heard };
        self.schedule.at(self.now_ms + wait_ms, action);
        Ok(())
    }

    /// A handler answers what a client has said.
    pub(crate) fn answer_heard(
        &mut self,
        (handler, incarnation): (usize, u64),
        life: u64,
        heard: &Rc<Heard>,
    ) -> Result<(), String> {
        let again = || Action::Answer { handler, incarnation, life, heard: Rc::clone(heard) };
        // What is for an edge that is no more goes nowhere.
        if !self.is_up((handler, incarnation), again) || self.edge_lives != life {
            return Ok(());
        }
        let sum = self.sum(&heard.sayings)?;
        let name = |channel: &usize| &*self.store.channels[*channel].name;
        let add: Vec<HoldChannel<'_>> = { sum.add.iter() }
            .map(|(channel, place)| HoldChannel {
                name: name(channel),
                cursor: place.cursor,
                ended: place.finished,
            })
            .collect();
        let remove: Vec<&str> = sum.remove.iter().map(name).collect();
        let bodies: Vec<&str> = sum.bodies.iter().map(|body| &**body).collect();
        let lists = ChangeLists { add: &add, remove: &remove, bodies: &bodies };
        let change = Change { answers: Some(heard.number), ..Change::default() };
        let from = self.handlers[handler].name.clone();
        let packet = about(&heard.id, &from, Kind::Hold, |fields| change.write(fields, &lists));
        let key = (heard.id.clone(), heard.number);
        let already = self.oracles.talk.handle_answer(&key, handler);
        if already.by_another {
            self.mark(Mark::AnsweredLate);
        }
        if already.by_itself {
            self.mark(Mark::AnsweredTwice);
        } else if self.is_operating && self.random.chance(50) {
            // Then it will.
            let due_ms = self.now_ms + self.random.up_to(ANSWER_MS);
            self.schedule.at(due_ms, again());
        }
        self.send_to_hub(handler, Class::Session, packet);
        Ok(())
    }

    /// What messages come to, now.
    fn sum(&mut self, sayings: &[Saying]) -> Result<Sum, String> {
        let mut sum = Sum::default();
        for Saying { serial, what } in sayings {
            let mut answer = Answer { serial: *serial, placed: None };
            match *what {
                What::Word { padding } => sum.bodies.push(answer.text(padding)),
                What::Unsubscribe { channel } => {
                    sum.add.retain(|(added, _)| *added != channel);
                    sum.remove.push(channel);
                    sum.bodies.push(answer.text(0));
                }
                What::Subscribe { channel, start } => {
                    let head = self.store.channels[channel].head();
                    if matches!(start, Start::After(seen) if seen > head) && head != Cursor::START {
                        self.tell_loss(channel, head)?;
                    }
                    let log = &self.store.channels[channel];
                    let place = place(start, log);
                    answer.placed = Some((place.cursor, place.finished));
                    sum.bodies.push(answer.text(0));
                    if let Some(lost) = place.lost {
                        let gap = gap_data(&log.name, lost, place.cursor.plus(1));
                        let short = log.name.split_once(':').map_or("", |(_, short)| short);
                        sum.bodies.push(format!(
                            r#"{{"type":"event","channel":"{short}","cursor":"{}","event":"control","data":{gap}}}"#,
                            place.cursor
                        ));
                    }
                    sum.add.push((channel, place));
                }
            }
        }
        Ok(sum)
    }
}
