//! Requests, as their workers see them: each must end once, in one way.

use std::collections::BTreeMap;

use bytes::Bytes;
use zhttp::{Envelope, Id, Kind, Packet};

use forebay_core::hub::Pending;
use forebay_core::worker::Mode;

use crate::scenario::HANDLER_WAIT_MS;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A handler answered.
    Answered,
    /// No handler took it.
    Refused,
    /// The handler that had begun with it left.
    Left,
    /// Its client left.
    Cancelled,
}

#[derive(Debug)]
struct Request {
    worker: usize,
    made_ms: u64,
    /// Who has sent something about it: the handler and its incarnation.
    begun_by: Option<(Vec<u8>, u64)>,
    end: Option<End>,
}

/// All requests of a run.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    requests: BTreeMap<Bytes, Request>,
    /// Requests that have not ended, in the order of their making.
    open: Vec<Bytes>,
}

impl Requests {
    /// Makes a request in a worker.
    pub(crate) fn make(&mut self, now_ms: u64, worker: usize) -> Pending {
        let id = Bytes::from(format!("{worker}-{}-1", self.requests.len()));
        let mut packet = Vec::new();
        let ids = [Id { id: &id, seq: Some(0) }];
        Envelope::new(b"edge", Kind::Data).about(&ids).write(&mut packet, |fields| {
            fields.bytes("method", b"GET");
        });
        let request = Request { worker, made_ms: now_ms, begun_by: None, end: None };
        self.requests.insert(id.clone(), request);
        self.open.push(id.clone());
        Pending {
            mode: Mode::Stream,
            worker: worker as u16,
            id,
            method: "GET".into(),
            path: "/events/o".into(),
            packet: packet.into(),
            deadline_ms: None,
        }
    }

    /// What is sent to a handler whose answer is not wanted any more.
    pub(crate) fn cancel_packet(id: &Bytes) -> Bytes {
        let mut packet = Vec::new();
        let ids = [Id { id, seq: None }];
        Envelope::new(b"edge", Kind::Cancel).about(&ids).write(&mut packet, |_| {});
        packet.into()
    }

    /// The requests that have not ended.
    pub(crate) fn open(&self) -> &[Bytes] {
        &self.open
    }

    /// The worker of a request.
    pub(crate) fn worker_of(&self, id: &Bytes) -> usize {
        self.requests[id].worker
    }

    /// How many ended in which way.
    pub(crate) fn count(&self, end: End) -> usize {
        self.requests.values().filter(|request| request.end == Some(end)).count()
    }

    /// Its client leaves. Whether it had not ended.
    pub(crate) fn cancel(&mut self, id: &Bytes) -> bool {
        self.end(id, End::Cancelled)
    }

    /// A handler's packet reaches a worker. The requests that end with it.
    ///
    /// # Errors
    ///
    /// Two handlers answer one request.
    pub(crate) fn handle_packet(
        &mut self,
        worker: usize,
        bytes: &Bytes,
    ) -> Result<Vec<Bytes>, String> {
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        let mut incarnation = 0;
        for entry in packet.fields.flatten() {
            if let (b"incarnation", zhttp::tnetstring::Value::Int(number)) = entry {
                incarnation = number as u64;
            }
        }
        let from = (packet.from.to_vec(), incarnation);
        let mut ended = Vec::new();
        for id in packet.ids {
            let id = Bytes::copy_from_slice(id.id);
            let request = self.requests.get_mut(&id).ok_or("a packet about no request")?;
            if request.worker != worker {
                return Err(format!("{id:?} reached worker {worker}"));
            }
            if request.end.is_some() {
                continue;
            }
            if let Some(other) = request.begun_by.replace(from.clone()).filter(|by| *by != from) {
                return Err(format!("{id:?} is answered by {other:?} and by {from:?}"));
            }
            if packet.kind == Kind::Data {
                self.end(&id, End::Answered);
                ended.push(id);
            }
        }
        Ok(ended)
    }

    /// The hub refuses a request.
    ///
    /// # Errors
    ///
    /// It does so too soon, though there is room to wait, or the request has ended.
    pub(crate) fn handle_refused(
        &mut self,
        now_ms: u64,
        id: &Bytes,
        room: bool,
    ) -> Result<(), String> {
        let request = &self.requests[id];
        let early = now_ms < request.made_ms + HANDLER_WAIT_MS;
        if early && room {
            return Err(format!("{id:?} was refused before its time"));
        }
        match request.end {
            None => self.end(id, End::Refused),
            Some(End::Cancelled) => return Ok(()),
            Some(end) => return Err(format!("{id:?} was refused after it was {end:?}")),
        };
        Ok(())
    }

    /// The hub says that the handler of a request left.
    ///
    /// # Errors
    ///
    /// No handler had begun with it, or it has ended.
    pub(crate) fn handle_left(&mut self, id: &Bytes) -> Result<(), String> {
        let request = &self.requests[id];
        match request.end {
            None if request.begun_by.is_none() => {
                return Err(format!("{id:?} was given up before a handler began with it"));
            }
            None => self.end(id, End::Left),
            Some(End::Answered | End::Cancelled) => return Ok(()),
            Some(end) => return Err(format!("{id:?} was given up after it was {end:?}")),
        };
        Ok(())
    }

    fn end(&mut self, id: &Bytes, end: End) -> bool {
        let request = self.requests.get_mut(id).expect("requests are never forgotten");
        if request.end.is_some() {
            return false;
        }
        request.end = Some(end);
        self.open.retain(|open| open != id);
        true
    }
}
