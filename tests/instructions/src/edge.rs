//! A worker of the edge with what its shell does around it (`connmgr/src/worker.rs`), on sockets that take everything.
//!
//! The settings are the defaults of the command line.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};

use forebay_core::Key;
use forebay_core::hold::MembersConfig;
use forebay_core::http1::HeadLimits;
use forebay_core::hub::{FromHub, Pending, ToHub};
use forebay_core::worker::{Mode, Output, TimeoutConfig, Transport, Worker, WorkerConfig};

use crate::handler;

/// The head of a request as a browser sends it.
pub(crate) const HEAD: &[u8] = b"GET /events/org-17/app/rooms/4711?last=5-120 HTTP/1.1\r\n\
    Host: edge.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 \
    Safari/537.36\r\n\
    Accept: text/event-stream,application/json;q=0.9,*/*;q=0.8\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Referer: https://app.example.com/rooms/4711\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=6f1f3a0c9bd24f4e8d7c; theme=dark\r\n\r\n";

/// The head of the handshake of a WebSocket (RFC 6455 §1.2).
pub(crate) const HANDSHAKE: &[u8] = b"GET /ws/org-17/app/rooms/4711 HTTP/1.1\r\n\
    Host: edge.example.com\r\n\
    Connection: Upgrade\r\n\
    Upgrade: websocket\r\n\
    Origin: https://app.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The instance id of the edge.
pub(crate) const EDGE: &[u8] = b"edge-1";

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// When the worker begins.
const START_MS: u64 = 1_000_000;

/// Deliveries of one turn, as the shell has it.
const DELIVERIES_PER_TURN: usize = 32;

/// Sockets that take everything and count it.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    /// How often something was written.
    pub(crate) writes: usize,
    /// How many bytes.
    pub(crate) bytes: usize,
}

impl Transport for Sink {
    fn write(&mut self, _: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.writes += 1;
        self.bytes += bytes;
        Some(bytes)
    }

    fn peer(&self, _: Key) -> Option<SocketAddr> {
        Some((Ipv4Addr::LOCALHOST, 40_000).into())
    }
}

/// A worker and its shell.
pub(crate) struct Edge {
    pub(crate) worker: Worker,
    pub(crate) sink: Sink,
    pub(crate) now_ms: u64,
    /// What the hub is to be told.
    pub(crate) to_hub: VecDeque<ToHub>,
    /// Connections whose sockets were dropped.
    pub(crate) closes: usize,
}

impl Edge {
    pub(crate) fn new() -> Self {
        let config = WorkerConfig {
            index: 0,
            instance_id: EDGE.into(),
            buffer_bytes: 8192,
            body_bytes_max: 100_000,
            head: HeadLimits::default(),
            client_backlog_bytes_max: 65_536,
            timeouts: TimeoutConfig::default(),
            compression: false,
            members: MembersConfig { seed: 7, range_retry_ms: 5_000 },
        };
        let mut worker = Worker::new(config, START_MS);
        worker.set_date(DATE);
        Edge { worker, sink: Sink::default(), now_ms: START_MS, to_hub: VecDeque::new(), closes: 0 }
    }

    /// A client has connected.
    pub(crate) fn accept(&mut self) -> Key {
        self.worker.accept(self.now_ms, Mode::Stream, false)
    }

    /// A client has sent this; the turn is over.
    pub(crate) fn input(&mut self, key: Key, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.worker.room(key), "it is read as far as there is room");
        self.worker.handle_input(self.now_ms, &mut self.sink, key, bytes);
        self.turn();
    }

    /// The hub has said this; the turn goes on.
    pub(crate) fn hear(&mut self, message: &FromHub) {
        let heard = self.worker.handle_hub(self.now_ms, &mut self.sink, message);
        heard.expect("the packets here are whole");
    }

    /// The hub has said this; the turn is over.
    pub(crate) fn hub(&mut self, message: &FromHub) {
        self.hear(message);
        self.turn();
    }

    /// What a turn does when all input is read, and so many turns more until nothing is left to do.
    pub(crate) fn turn(&mut self) {
        let mut has_work = true;
        while has_work {
            self.worker.handle_timeout(self.now_ms, &mut self.sink);
            has_work = self.worker.handle_work(self.now_ms, &mut self.sink, DELIVERIES_PER_TURN);
            while let Some(output) = self.worker.poll_output(self.now_ms) {
                match output {
                    Output::Hub(message) => self.to_hub.push_back(message),
                    Output::Close(..) => self.closes += 1,
                    // All that clients send is read at once, and none half-closes.
                    Output::Read(_) | Output::Shutdown(_) => {}
                }
            }
        }
    }

    /// A client sends a request, and the hub is told all that there is to tell. The request.
    pub(crate) fn request(&mut self, key: Key, head: &[u8]) -> Pending {
        self.input(key, head);
        let request = self.to_hub.drain(..).find_map(|message| match message {
            ToHub::Request(pending) => Some(pending),
            ToHub::Packet { .. } | ToHub::Done { .. } | ToHub::Notify { .. } | ToHub::Want(_) => {
                None
            }
        });
        request.expect("a request goes to the hub")
    }

    /// A client that is held, and reads a channel from a cursor on. What the hub is told of it is dropped.
    pub(crate) fn hold(&mut self, params: &handler::Hold<'_>) -> Key {
        let key = self.accept();
        let head = if params.is_websocket { HANDSHAKE } else { HEAD };
        let id = self.request(key, head).id;
        self.hub(&handler::hold(&id, params));
        self.to_hub.clear();
        key
    }

    /// How often events were written to a member, since the start.
    pub(crate) fn deliveries(&self) -> usize {
        usize::try_from(self.worker.stats().deliveries).expect("they are few")
    }
}
