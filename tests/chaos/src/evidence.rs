//! What is known of each log when all is over, put together for the judge.
//!
//! Three witnesses: the store, by what it holds; publishers, by what they were told; clients, by what came to them. They must
//! agree. What the store holds was published, once, and each publisher's events are in their order. What was acknowledged is
//! in the store under the id of the acknowledgement, or it is lost, which only a store that replicates asynchronously may do.
//! What came to a client was published, byte for byte.
//!
//! An event is known by its publisher and its sequence. If it was published without a `message_id`, it has the one that the
//! store says, or a client if the store has lost it; nothing else in it is taken from there. Such an event may be stored once
//! more for each attempt of which its publisher was told nothing ([`Ack::doubts`]): as another one, with an id of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use forebay_judge::sse::{Block, field};
use forebay_judge::{Cursors, History, Id, Known};
use serde::Deserialize;
use uuid::Uuid;

use crate::cluster::ORG;
use crate::ledger::Kept;
use crate::publisher::Ack;
use crate::record::Reading;

/// All that is known of a run.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    /// Names of the channels.
    pub(crate) names: &'a [String],
    /// What publishers were told, of each channel.
    pub(crate) acks: &'a [Vec<Ack>],
    /// What the store holds, of each channel.
    pub(crate) kept: &'a [Kept],
    pub(crate) readings: &'a [Reading],
}

/// What it comes to.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) history: History,
    /// Events that were acknowledged, and are lost.
    pub(crate) lost_acknowledged: u64,
    /// Control events that the store holds: fail-overs that were noticed.
    pub(crate) failovers_told: u64,
    /// Where the witnesses do not agree.
    pub(crate) contradictions: Vec<String>,
}

/// What tells an event from all others of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    publisher: u64,
    sequence: u64,
}

/// Of one channel.
struct Channel<'a> {
    number: usize,
    name: &'a str,
    acks: HashMap<Name, &'a Ack>,
    known: BTreeMap<Id, Known>,
    /// What came just before an event that begins an epoch, by clients' streams.
    before: HashMap<Id, BTreeMap<Id, u64>>,
}

impl Evidence<'_> {
    /// Hears all witnesses.
    pub(crate) fn hear(&self) -> Findings {
        let names = self.names.iter().map(|name| format!("{ORG}:{name}"));
        let mut findings = Findings { history: History::new(names), ..Findings::default() };
        let mut channels: Vec<Channel> = Vec::new();
        for (number, name) in self.names.iter().enumerate() {
            let acks = self.acks[number].iter().map(|ack| (Name::of(ack), ack)).collect();
            let (known, before) = (BTreeMap::new(), HashMap::new());
            let mut channel = Channel { number, name, acks, known, before };
            channel.hear_store(&self.kept[number], &mut findings);
            channels.push(channel);
        }
        for reading in self.readings {
            hear_client(&mut channels, reading, &mut findings);
        }
        for mut channel in channels {
            // Last: of an event without a `message_id` that is lost only clients know how it was told.
            channel.hear_publishers(&self.acks[channel.number], &mut findings);
            channel.place_first_events();
            let born = self.kept[channel.number].born;
            if let Err(why) = findings.history.reconstruct(channel.number, born, &channel.known) {
                findings.contradictions.push(why);
            }
        }
        findings
    }
}

impl Channel<'_> {
    fn hear_store(&mut self, kept: &Kept, findings: &mut Findings) {
        let (mut copies, mut newest) = (HashMap::<Name, u64>::new(), HashMap::new());
        let mut message_ids = HashSet::new();
        for (&id, event) in &kept.events {
            let place = || format!("{} {id}", self.name);
            if event.control {
                findings.failovers_told += 1;
                if field(&event.data, "control_type") != Ok("failover") {
                    findings.contradictions.push(format!("{}: {}", place(), event.data));
                }
            } else if let Some((ack, message_id)) = self.published(&event.data) {
                let copies = copies.entry(Name::of(ack)).or_default();
                *copies += 1;
                if !message_ids.insert(message_id) || *copies > 1 + ack.doubts {
                    findings.contradictions.push(format!("{} is stored twice", place()));
                }
                // One that nobody knew of may have come late.
                if ack.doubts == 0 || id_of(ack) == id {
                    let earlier = newest.insert(ack.publisher, ack.sequence);
                    if earlier.is_some_and(|earlier| earlier >= ack.sequence) {
                        findings.contradictions.push(format!("{} is out of its order", place()));
                    }
                }
            } else {
                findings.contradictions.push(format!("{} is not what was published", place()));
            }
            let known = Known {
                prev: event.prev,
                end: event.end,
                control: event.control,
                data: Rc::from(&*event.data),
                acknowledged: false,
                kept: true,
            };
            self.known.insert(id, known);
        }
    }

    fn hear_publishers(&mut self, acks: &[Ack], findings: &mut Findings) {
        for ack in acks {
            let id = id_of(ack);
            match self.known.get_mut(&id) {
                Some(known) => {
                    findings.lost_acknowledged += u64::from(!known.kept);
                    known.acknowledged = true;
                    if ack.message_id_in(self.number, self.name, &known.data).is_none() {
                        let what = format!("{} {id} is not what was acknowledged", self.name);
                        findings.contradictions.push(what);
                    }
                }
                None => {
                    findings.lost_acknowledged += 1;
                    // Without a `message_id`, nobody has seen which it was, and nobody will ask.
                    let message_id = ack.message_id.unwrap_or_default();
                    let known = Known {
                        prev: None,
                        end: ack.is_end(),
                        control: false,
                        data: ack.line(self.number, self.name, message_id).into(),
                        acknowledged: true,
                        kept: false,
                    };
                    self.known.insert(id, known);
                }
            }
        }
    }

    /// The event of this line, if it was published so, and its `message_id`.
    fn published(&self, line: &str) -> Option<(&Ack, Uuid)> {
        let ack = *self.acks.get(&Name::in_line(line)?)?;
        Some((ack, ack.message_id_in(self.number, self.name, line)?))
    }

    /// A client got this. If nobody else knows it, it was lost before its publisher was told.
    fn hear(&mut self, id: Id, block: &Block, findings: &mut Findings) {
        let Some(data) = block.data.as_deref() else { return };
        if self.known.contains_key(&id) {
            return;
        }
        let control = block.kind.as_deref() == Some("control");
        let is_ours = if control {
            field(data, "control_type") == Ok("failover")
        } else {
            self.published(data).is_some()
        };
        if !is_ours {
            let what = format!("{} {id} came to a client, and was not published", self.name);
            findings.contradictions.push(what);
            return;
        }
        let (end, data) = (field(data, "phase") == Ok("PHASE_END"), data.into());
        let known = Known { prev: None, end, control, data, acknowledged: false, kept: false };
        self.known.insert(id, known);
    }

    /// The first event of an epoch that was lost says nowhere what it follows. Most clients that got it know.
    fn place_first_events(&mut self) {
        for (id, known) in &mut self.known {
            if !known.kept && id.offset == 1 {
                let counts = self.before.get(id).into_iter().flatten();
                known.prev = counts.max_by_key(|(_, count)| **count).map(|(before, _)| *before);
            }
        }
    }
}

impl Name {
    fn of(ack: &Ack) -> Self {
        Name { publisher: ack.publisher, sequence: ack.sequence }
    }

    /// As a line of an event says it.
    fn in_line(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            sequence: u64,
            payload: Payload,
        }
        #[derive(Deserialize)]
        struct Payload {
            publisher: u64,
        }
        let Line { sequence, payload } = serde_json::from_str(line).ok()?;
        Some(Name { publisher: payload.publisher, sequence })
    }
}

/// Where an event stands.
fn id_of(ack: &Ack) -> Id {
    Id::new(ack.cursor.epoch, ack.cursor.offset)
}

fn hear_client(channels: &mut [Channel<'_>], reading: &Reading, findings: &mut Findings) {
    let mut places = vec![Id::START; reading.channels.len()];
    for life in &reading.lives {
        for came in &life.came {
            let block = came.block();
            let Some(said) = block.id.as_deref().and_then(Cursors::parse) else { continue };
            let is_gap =
                block.data.as_deref().is_some_and(|data| field(data, "control_type") == Ok("gap"));
            let of = block.data.as_deref().and_then(|data| {
                field(data, "channel").or_else(|_| field(data, "channel_id")).ok()
            });
            for (place, number) in places.iter_mut().zip(&reading.channels) {
                let channel = &mut channels[*number];
                if of != Some(channel.name) {
                    continue;
                }
                let Some(id) = said.of(&format!("{ORG}:{}", channel.name)) else { continue };
                if !is_gap {
                    channel.hear(id, &block, findings);
                    if id.offset == 1 && *place != id.before() {
                        *channel.before.entry(id).or_default().entry(*place).or_default() += 1;
                    }
                }
                *place = id;
            }
        }
    }
}
