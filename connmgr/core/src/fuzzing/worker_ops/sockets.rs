//! A model of sockets and of the shell around the worker, for the fuzz target.
//!
//! It reads when there is room and bytes have come, or when the machine asks for it, and never else: as with an
//! edge-triggered poll, so that a read which the machine forgot to ask for is a client that waits for ever.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;

use super::{BACKLOG_BYTES_MAX, EVENTS_MAX};
use crate::hub::ToHub;
use crate::slab::Key;
use crate::worker::{Output, Transport, Worker};

/// A client, and the model of its socket.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// What it has sent and the edge has not read.
    unread: VecDeque<u8>,
    has_closed: bool,
    /// The edge knows that.
    eof_is_read: bool,
    /// What it got.
    pub(super) got: Vec<u8>,
    /// Of each of its requests, whether it was a `HEAD`.
    pub(super) is_head: Vec<bool>,
    /// How many bytes the socket still takes.
    takes: usize,
    /// Writes fail, as after a reset that nobody has seen yet.
    is_broken: bool,
    is_shut: bool,
    is_closed: bool,
}

/// All that were ever there.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) clients: BTreeMap<Key, Client>,
}

impl Transport for Sockets {
    fn write(&mut self, key: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        let client = self.clients.get_mut(&key).expect("only to who has connected");
        assert!(!client.is_shut && !client.is_closed, "a write behind the end");
        if client.is_broken {
            return None;
        }
        let mut taken = 0;
        for slice in slices {
            let room = slice.len().min(client.takes - taken);
            client.got.extend_from_slice(&slice[..room]);
            taken += room;
        }
        client.takes -= taken;
        Some(taken)
    }

    fn peer(&self, key: Key) -> Option<SocketAddr> {
        key.index.is_multiple_of(2).then_some(SocketAddr::from(([127, 0, 0, 1], 80)))
    }
}

/// The worker, and what is around it.
pub(super) struct Shell {
    pub(super) worker: Worker,
    pub(super) sockets: Sockets,
    pub(super) now_ms: u64,
    /// What the hub was told and has not looked at.
    pub(super) to_hub: VecDeque<ToHub>,
}

impl Shell {
    /// Those who are there.
    pub(super) fn present(&self) -> Vec<Key> {
        let clients = self.sockets.clients.iter();
        clients.filter(|(_, client)| !client.is_closed).map(|(key, _)| *key).collect()
    }

    fn client(&mut self, key: Key) -> &mut Client {
        self.sockets.clients.get_mut(&key).expect("it has connected")
    }

    pub(super) fn send(&mut self, key: Key, bytes: &[u8]) {
        let client = self.client(key);
        if !client.has_closed {
            client.unread.extend(bytes);
            self.read(key);
        }
    }

    pub(super) fn half_close(&mut self, key: Key) {
        self.client(key).has_closed = true;
        self.read(key);
    }

    /// The socket of a client breaks; the edge sees it when it writes.
    pub(super) fn break_off(&mut self, key: Key) {
        self.client(key).is_broken = true;
    }

    pub(super) fn take(&mut self, key: Key, bytes: usize) {
        let client = self.client(key);
        client.takes += bytes;
        if !client.is_shut {
            self.worker.handle_writable(self.now_ms, &mut self.sockets, key);
        }
    }

    /// Reads as the shell does.
    fn read(&mut self, key: Key) {
        loop {
            let room = self.worker.room(key);
            let client = self.client(key);
            if client.is_closed {
                return;
            }
            if room == 0 {
                if client.has_closed {
                    self.worker.handle_read_closed(self.now_ms, key);
                }
                return;
            }
            if client.unread.is_empty() {
                if client.has_closed && !std::mem::replace(&mut client.eof_is_read, true) {
                    self.worker.handle_eof(self.now_ms, &mut self.sockets, key);
                }
                return;
            }
            let bytes: Vec<u8> = client.unread.drain(..room.min(client.unread.len())).collect();
            self.worker.handle_input(self.now_ms, &mut self.sockets, key, &bytes);
            self.worker.check_invariants(self.now_ms);
        }
    }

    /// Does what the machine says until it says nothing more.
    pub(super) fn turn(&mut self) {
        loop {
            while self.worker.handle_work(self.now_ms, &mut self.sockets, 3) {}
            let Some(output) = self.worker.poll_output(self.now_ms) else { break };
            match output {
                Output::Hub(message) => self.to_hub.push_back(message),
                Output::Read(key) => self.read(key),
                Output::Shutdown(key) => {
                    assert!(!std::mem::replace(&mut self.client(key).is_shut, true), "once");
                }
                Output::Close(key, _) => {
                    assert!(!std::mem::replace(&mut self.client(key).is_closed, true), "once");
                }
            }
        }
        while self.worker.poll_refusal().is_some() {}
        self.worker.check_invariants(self.now_ms);
        let present = self.present();
        assert_eq!(self.worker.connections(), present.len(), "a socket for each connection");
        for key in present {
            let is_readable = self.worker.room(key) > 0;
            let client = &self.sockets.clients[&key];
            assert!(client.unread.is_empty() || !is_readable, "where there is room, it is read");
            assert!(self.worker.unsent_bytes(key) <= UNSENT_BYTES_MAX, "what waits is bounded");
        }
    }

    /// Lets time pass, from deadline to deadline, and then at once.
    pub(super) fn advance(&mut self, by_ms: u64) {
        let until_ms = self.now_ms.saturating_add(by_ms);
        for _ in 0..DEADLINES_MAX {
            let due_ms = self.worker.next_deadline().filter(|due_ms| *due_ms < until_ms);
            let Some(due_ms) = due_ms else { break };
            self.now_ms = self.now_ms.max(due_ms);
            self.timeout();
        }
        self.now_ms = until_ms;
        self.timeout();
    }

    fn timeout(&mut self) {
        self.worker.handle_timeout(self.now_ms, &mut self.sockets);
        self.turn();
        let due_ms = self.worker.next_deadline();
        assert!(due_ms.is_none_or(|due_ms| due_ms > self.now_ms), "what is due is done");
    }
}

/// Deadlines that are met one by one; then time jumps.
const DEADLINES_MAX: usize = 60;

/// Bytes that wait for a client, at most: its backlog, and one delivery of all events that there are, with composite ids
/// (hold.md H-63). An answer waits within its handler's credits, which is less.
const UNSENT_BYTES_MAX: usize = BACKLOG_BYTES_MAX + EVENTS_MAX * EVENT_BYTES_MAX;

/// An event of the log, framed, at most.
const EVENT_BYTES_MAX: usize = 200;
