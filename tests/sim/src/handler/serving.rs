//! A handler as a server: its side of ZHTTP sessions (zhttp.md §5 to §8), with numbers and credits both ways.
//!
//! It checks what the edge owes it: that numbers have no hole, that it is never granted more than the edge's buffer,
//! that a body comes as it was sent. What it sends is drawn from a seed that the client knows, so that a client sees
//! a byte that is missing, comes twice, or is another handler's.

use bytes::Bytes;
use zhttp::{Envelope, Id, Kind, Packet, Payload};

use super::{Doings, Handler};
use crate::coverage::Mark;
use crate::saying::Start;

/// Bytes of a request's body that it takes at once.
const UPLOAD_CREDITS: u32 = 50;

/// Bytes of a response in one packet, at most.
pub(crate) const PIECE_BYTES_MAX: u64 = 120;

/// A request that is with a handler.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) id: Bytes,
    /// The number of the next packet from the edge.
    seq_in: u32,
    /// The number of the next packet to the edge.
    seq_out: u32,
    /// Bytes that it may send.
    credits: u64,
    /// The same if all were taken: the edge's buffer.
    credits_max: u64,
    pub(crate) job: Job,
    /// Signs of life that the edge has sent.
    pub(crate) keep_alives: u32,
    /// It says nothing itself, but for its first word.
    is_silent: bool,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Job {
    /// To read channels: their places, the cursor, and whether it begins now.
    Subscribe { wants: Vec<usize>, presented: Option<String>, from_now: bool },
    /// To be held as a WebSocket that reads these channels.
    Attach { wants: Vec<(usize, Start)> },
    /// So many bytes up, and so many down.
    Exchange(Exchange),
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) token: u64,
    up_got: u64,
    up_done: bool,
    /// It answers whatever of the body has come, and gives no credits for it.
    is_early: bool,
    down: u64,
    sent: u64,
    seed: u64,
    has_length: bool,
    head_sent: bool,
    /// Another handler is to take over.
    hands_over: bool,
    awaits_word: bool,
}

/// Byte `index` of what a seed stands for.
pub(crate) const fn pattern(seed: u64, index: u64) -> u8 {
    (seed.wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A number in a query.
fn parameter(query: &str, name: &str) -> Option<u64> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    value.parse().ok()
}

impl Job {
    /// Reads a request.
    pub(crate) fn parse(payload: &Payload<'_>, seed: u64) -> Result<Self, String> {
        let uri = payload.uri.ok_or("a request without a uri")?;
        let (path, query) = uri.split_once('?').ok_or("a request without a query")?;
        if path.ends_with("/ws/o") {
            let list = query.strip_prefix("c=").ok_or("no channels")?;
            let want = |want: &str| {
                let (channel, start) = want.split_once('@')?;
                Some((channel.parse().ok()?, Start::parse(start)?))
            };
            let wants = list.split('.').filter(|want| !want.is_empty()).map(want);
            let wants = wants.collect::<Option<_>>().ok_or("no places")?;
            return Ok(Job::Attach { wants });
        }
        if !path.ends_with("/events/o") {
            let number = |name| parameter(query, name).ok_or(format!("no {name} in {uri}"));
            return Ok(Job::Exchange(Exchange {
                token: number("token")?,
                up_got: 0,
                up_done: !payload.more,
                is_early: query.contains("&early"),
                down: number("down")?,
                sent: 0,
                seed,
                has_length: number("length")? == 1,
                head_sent: false,
                hands_over: number("hand")? == 1,
                awaits_word: false,
            }));
        }
        let list = query.strip_prefix("c=").and_then(|rest| rest.split('&').next());
        let wants = list.ok_or("no channels")?.split('.').map(str::parse);
        let header = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(b"last-event-id");
        let presented = { payload.headers }.find(header);
        Ok(Job::Subscribe {
            wants: wants.collect::<Result<_, _>>().map_err(|_| "no places")?,
            presented: presented.map(|(_, value)| String::from_utf8_lossy(value).into_owned()),
            from_now: query.ends_with("&now"),
        })
    }
}

impl Work {
    /// A packet of this session.
    pub(crate) fn write(
        &mut self,
        from: &str,
        kind: Kind,
        payload: impl FnOnce(&mut zhttp::Fields<'_, '_>),
    ) -> Vec<u8> {
        self.write_ext((from, kind), |_| {}, payload)
    }

    /// The same with an extension.
    pub(crate) fn write_ext(
        &mut self,
        (from, kind): (&str, Kind),
        ext: impl FnOnce(&mut zhttp::Fields<'_, '_>),
        payload: impl FnOnce(&mut zhttp::Fields<'_, '_>),
    ) -> Vec<u8> {
        let ids = [Id { id: &self.id, seq: Some(self.seq_out) }];
        let mut out = Vec::new();
        let from = from.as_bytes();
        Envelope { from, ids: &ids, kind, multi: true }.write_ext(&mut out, ext, payload);
        self.seq_out += 1;
        out
    }
}

impl Handler {
    /// Takes a request. Whether it begins to work on it.
    ///
    /// # Errors
    ///
    /// The request is not what a request has to be.
    pub(crate) fn handle_request(
        &mut self,
        packet: &Packet<'_>,
        id: &[u8],
        seed: u64,
    ) -> Result<Option<Doings>, String> {
        // One that leaves takes nothing new: the request goes to another once it is gone.
        if self.leaving || self.works.contains_key(id) {
            return Ok(None);
        }
        let payload = packet.payload().map_err(|error| error.to_string())?;
        let id = Bytes::copy_from_slice(id);
        let mut work = Work {
            id: id.clone(),
            seq_in: 1,
            seq_out: 0,
            credits: payload.credits.into(),
            credits_max: payload.credits.into(),
            job: Job::parse(&payload, seed)?,
            keep_alives: 0,
            is_silent: payload.uri.is_some_and(|uri| uri.contains("&silent")),
        };
        let mut doings = Doings { advances: vec![id.clone()], ..Doings::default() };
        if work.is_silent {
            doings.session.push(work.write(&self.name, Kind::KeepAlive, |_| {}));
        }
        if payload.more && !work.is_early() {
            doings.session.push(work.write(&self.name, Kind::Credit, |fields| {
                fields.int("credits", UPLOAD_CREDITS.into());
            }));
        }
        self.works.insert(id, work);
        Ok(Some(doings))
    }

    /// Takes a packet of a session that it has; `is_strict` if none can have been lost.
    ///
    /// # Errors
    ///
    /// The edge has broken a rule.
    pub(crate) fn handle_session(
        &mut self,
        packet: &Packet<'_>,
        id: Id<'_>,
        is_strict: bool,
    ) -> Result<Doings, String> {
        let mut doings = Doings::default();
        let Some(work) = self.works.get_mut(id.id) else { return Ok(doings) };
        if packet.kind == Kind::Cancel && id.seq.is_none() {
            self.works.remove(id.id);
            return Ok(doings);
        }
        let seq = id.seq.ok_or("a packet of a session without a number")?;
        let is_last = matches!(packet.kind, Kind::Cancel | Kind::Error);
        if seq > work.seq_in && is_last {
            // A piece could not be delivered: that is why it is over.
            self.works.remove(id.id);
            return Ok(doings);
        }
        if seq != work.seq_in {
            if is_strict {
                return Err(format!("number {seq} of {:?} instead of {}", work.id, work.seq_in));
            }
            // Something was lost, or comes again.
            doings.marks.push(Mark::BadSequence);
            doings.session.push(work.write(&self.name, Kind::Error, |fields| {
                fields.bytes("condition", b"bad-sequence");
            }));
            self.works.remove(id.id);
            return Ok(doings);
        }
        work.seq_in += 1;
        match packet.kind {
            Kind::Data => work.upload(&self.name, packet, &mut doings)?,
            Kind::Credit => {
                let payload = packet.payload().map_err(|error| error.to_string())?;
                work.credits += u64::from(payload.credits);
                if work.credits > work.credits_max {
                    if is_strict {
                        return Err(format!("{} credits, of {}", work.credits, work.credits_max));
                    }
                    // Both the request and what followed it came again, to one who had ended its session.
                    work.credits = work.credits_max;
                }
                doings.advances.push(work.id.clone());
            }
            Kind::KeepAlive => {
                doings.marks.push(Mark::SessionKeptAlive);
                work.keep_alives += 1;
            }
            Kind::HandoffProceed => doings.handed = self.works.remove(id.id),
            Kind::Cancel | Kind::Error => {
                self.works.remove(id.id);
            }
            other => return Err(format!("a handler got {other:?} in a session")),
        }
        Ok(doings)
    }

    /// All sessions are alive, but for those that are to be silent.
    pub(super) fn keep_sessions(&mut self, doings: &mut Doings) {
        let from = self.name.as_bytes();
        let works: Vec<&mut Work> = self.works.values_mut().filter(|work| work.speaks()).collect();
        let ids: Vec<Id<'_>> = works
            .into_iter()
            .map(|work| {
                work.seq_out += 1;
                Id { id: &work.id, seq: Some(work.seq_out - 1) }
            })
            .collect();
        for ids in ids.chunks(zhttp::IDS_MAX) {
            let mut out = Vec::new();
            Envelope { from, ids, kind: Kind::KeepAlive, multi: true }.write(&mut out, |_| {});
            doings.session.push(out);
        }
    }

    /// Goes on with an exchange.
    pub(crate) fn advance(&mut self, id: &Bytes) -> Doings {
        let mut doings = Doings::default();
        let Some(work) = self.works.get_mut(id) else { return doings };
        let Job::Exchange(exchange) = &mut work.job else { return doings };
        let may_begin = exchange.up_done || exchange.is_early;
        if !may_begin || exchange.awaits_word {
            return doings;
        }
        if exchange.hands_over && exchange.head_sent {
            exchange.hands_over = false;
            exchange.awaits_word = true;
            doings.session.push(work.write(&self.name, Kind::HandoffStart, |_| {}));
            return doings;
        }
        let left = exchange.down - exchange.sent;
        let bytes = left.min(work.credits).min(PIECE_BYTES_MAX);
        let is_head = !exchange.head_sent;
        if bytes == 0 && left > 0 && !is_head {
            doings.marks.push(Mark::CreditsAwaited);
            return doings;
        }
        let body: Vec<u8> = (exchange.sent..exchange.sent + bytes)
            .map(|index| pattern(exchange.seed, index))
            .collect();
        exchange.head_sent = true;
        exchange.sent += bytes;
        let more = exchange.sent < exchange.down;
        let (seed, length) = (exchange.seed.to_string(), exchange.down.to_string());
        let token = exchange.token.to_string();
        let has_length = exchange.has_length;
        work.credits -= bytes;
        doings.session.push(work.write(&self.name, Kind::Data, |fields| {
            if is_head {
                fields.int("code", 200);
                let mut headers: Vec<(&[u8], &[u8])> =
                    vec![(b"X-Seed", seed.as_bytes()), (b"X-Token", token.as_bytes())];
                if has_length {
                    headers.push((b"Content-Length", length.as_bytes()));
                }
                fields.headers(headers.into_iter());
            }
            fields.bytes("body", &body);
            fields.flag("more", more);
        }));
        if more {
            doings.advances.push(id.clone());
        } else {
            self.works.remove(id);
        }
        doings
    }

    /// Takes over a session from another handler.
    pub(crate) fn take_over(&mut self, mut work: Work) -> Bytes {
        if let Job::Exchange(exchange) = &mut work.job {
            exchange.awaits_word = false;
        }
        let id = work.id.clone();
        self.works.insert(id.clone(), work);
        id
    }
}

impl Work {
    /// Takes a piece of the request's body.
    fn upload(
        &mut self,
        from: &str,
        packet: &Packet<'_>,
        doings: &mut Doings,
    ) -> Result<(), String> {
        let payload = packet.payload().map_err(|error| error.to_string())?;
        let Job::Exchange(exchange) = &mut self.job else {
            return Err("a body for one that has none".into());
        };
        for (index, byte) in (exchange.up_got..).zip(payload.body) {
            if *byte != pattern(exchange.token, index) {
                return Err(format!("byte {index} of an upload was changed"));
            }
        }
        let bytes = payload.body.len() as u64;
        if exchange.is_early && bytes > 0 {
            return Err("a body without credits".into());
        }
        exchange.up_got += bytes;
        exchange.up_done = !payload.more;
        if payload.more {
            doings.session.push(self.write(from, Kind::Credit, |fields| {
                fields.int("credits", bytes);
            }));
        } else {
            doings.marks.push(Mark::Uploaded);
            doings.advances.push(self.id.clone());
        }
        Ok(())
    }

    /// It says that it lives, and so hears if nobody wants it any more.
    pub(crate) fn speaks(&self) -> bool {
        !self.is_silent && !matches!(&self.job, Job::Exchange(exchange) if exchange.awaits_word)
    }

    fn is_early(&self) -> bool {
        matches!(&self.job, Job::Exchange(exchange) if exchange.is_early)
    }

    /// The edge may have heard of it.
    pub(crate) fn has_spoken(&self) -> bool {
        self.seq_out > 0
    }

    /// It works long, and is silent.
    pub(crate) fn is_slow(&self) -> bool {
        let begins = |exchange: &Exchange| !exchange.head_sent;
        self.is_silent && matches!(&self.job, Job::Exchange(exchange) if begins(exchange))
    }

    /// The token of an exchange.
    pub(crate) fn token(&self) -> Option<u64> {
        match &self.job {
            Job::Exchange(exchange) => Some(exchange.token),
            Job::Subscribe { .. } | Job::Attach { .. } => None,
        }
    }
}
