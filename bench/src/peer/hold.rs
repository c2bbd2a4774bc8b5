//! Sessions that stay: event streams and WebSockets of plain ZHTTP.
//!
//! A session lives as long as both sides hear of it, so each keep-alive of the edge is answered by one for the same sessions.
//! Credits are taken note of by nobody: the load is chosen so that no client is behind by more than a buffer of the edge, and
//! who is loses its connection, which the generator reports.
//!
//! Each turn takes a bounded share from each socket, requests first, so that an opening of ten thousand is not starved by what
//! it causes.

use zhttp::{Envelope, IDS_MAX, Id, Kind, Packet, Payload};

use crate::error::BenchError;
use crate::peer::control::Control;
use crate::peer::sessions::{Sessions, Transport};
use crate::peer::{NAME, StreamSockets, address};

/// Messages that are taken from one socket before the next has its turn.
const MESSAGES_PER_TURN_MAX: usize = 1000;

/// How many bytes of messages the handler takes from each client of a WebSocket; they say nothing here.
const SOCKET_CREDITS: u64 = 8192;

const EVENT_BEGIN: &[u8] = b"data: ";
const EVENT_END: &[u8] = b"\n\n";

/// A handler that holds.
pub struct Hold {
    sockets: StreamSockets,
    control: zmq::Socket,
    sessions: Sessions,
    /// The edge; empty before its first request.
    edge: Vec<u8>,
    /// The packet that is being written.
    packet: Vec<u8>,
}

impl Hold {
    /// Connects to the edge, and opens the door for publishers.
    ///
    /// # Errors
    ///
    /// If ZeroMQ refuses.
    pub fn connect(
        context: &zmq::Context,
        spec: &str,
        control: Control,
    ) -> Result<Self, BenchError> {
        Ok(Hold {
            sockets: StreamSockets::connect(context, spec)?,
            control: control.open(context)?,
            sessions: Sessions::default(),
            edge: Vec::new(),
            packet: Vec::new(),
        })
    }

    /// Holds for ever.
    ///
    /// # Errors
    ///
    /// If ZeroMQ or a packet of the edge is at fault, or a second edge appears.
    pub fn run(mut self) -> Result<(), BenchError> {
        loop {
            let StreamSockets { pull, router, .. } = &self.sockets;
            let mut items = [pull, router, &self.control].map(|s| s.as_poll_item(zmq::POLLIN));
            zmq::poll(&mut items, -1)?;
            for _ in 0..MESSAGES_PER_TURN_MAX {
                let Some(request) = taken(self.sockets.pull.recv_bytes(zmq::DONTWAIT))? else {
                    break;
                };
                self.handle_request(&request)?;
            }
            for _ in 0..MESSAGES_PER_TURN_MAX {
                let Some(parts) = taken(self.sockets.router.recv_multipart(zmq::DONTWAIT))? else {
                    break;
                };
                if let Some(packet) = parts.last() {
                    self.handle_packet(packet)?;
                }
            }
            for _ in 0..MESSAGES_PER_TURN_MAX {
                let Some(parts) = taken(self.control.recv_multipart(zmq::DONTWAIT))? else { break };
                if let [path, body] = &parts[..] {
                    self.publish(&String::from_utf8_lossy(path), body)?;
                }
            }
        }
    }

    /// Accepts it, whatever it asks for.
    fn handle_request(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        let packet = Packet::parse(bytes)?;
        self.know_edge(packet.from)?;
        let payload: Payload<'_> = packet.payload()?;
        let (Kind::Data, Some(uri)) = (packet.kind, payload.uri) else { return Ok(()) };
        let (transport, path) = Transport::of_uri(uri);
        for Id { id, .. } in packet.ids {
            self.packet.clear();
            address(&mut self.packet, &self.edge);
            let session = [Id { id, seq: Some(0) }];
            let mut envelope = Envelope::new(NAME.as_bytes(), Kind::Data).about(&session);
            envelope.multi = true;
            envelope.write(&mut self.packet, |fields| match transport {
                Transport::Stream => {
                    fields.int("code", 200);
                    fields.bytes("reason", b"OK");
                    let name_and_value = (&b"Content-Type"[..], &b"text/event-stream"[..]);
                    fields.headers([name_and_value].into_iter());
                    fields.flag("more", true);
                }
                Transport::Socket => {
                    fields.int("code", 101);
                    fields.bytes("reason", b"Switching Protocols");
                    fields.int("credits", SOCKET_CREDITS);
                }
            });
            self.sockets.publish.send(&self.packet, 0)?;
            self.sessions.open(id, transport, path);
        }
        Ok(())
    }

    fn know_edge(&mut self, from: &[u8]) -> Result<(), BenchError> {
        if self.edge.is_empty() {
            self.edge = from.to_vec();
        }
        if self.edge == from {
            return Ok(());
        }
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        Err(BenchError::Edges(text(&self.edge), text(from)))
    }

    /// What the edge says about sessions.
    fn handle_packet(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        let packet = Packet::parse(bytes)?;
        match packet.kind {
            Kind::KeepAlive => {
                let keys = self.sessions.known(packet.ids);
                self.send_to(&keys, Kind::KeepAlive, |_| {})
            }
            Kind::Cancel | Kind::Error | Kind::Close => {
                for Id { id, .. } in packet.ids {
                    self.sessions.close(id);
                }
                Ok(())
            }
            // What a client says, and what this handler has no use for.
            Kind::Data | Kind::Credit | Kind::Ping | Kind::Pong => Ok(()),
            Kind::HandoffStart | Kind::HandoffProceed => Ok(()),
            // The hold extension, which this handler has not said that it has.
            Kind::Hello | Kind::Bye | Kind::Feed | Kind::Unfeed | Kind::Range | Kind::Events => {
                Ok(())
            }
            Kind::Gap | Kind::Heads | Kind::Hold | Kind::Send | Kind::Message | Kind::Closed => {
                Ok(())
            }
        }
    }

    fn publish(&mut self, path: &str, body: &[u8]) -> Result<(), BenchError> {
        let event = [EVENT_BEGIN, body, EVENT_END].concat();
        for transport in Transport::ALL {
            let keys = self.sessions.members(transport, path);
            self.send_to(&keys, Kind::Data, |fields| match transport {
                Transport::Stream => {
                    fields.bytes("body", &event);
                    fields.flag("more", true);
                }
                Transport::Socket => {
                    fields.bytes("content-type", b"text");
                    fields.bytes("body", body);
                }
            })?;
        }
        Ok(())
    }

    /// Sends the same to all of these, in as few packets as there may be.
    fn send_to(
        &mut self,
        keys: &[usize],
        kind: Kind,
        payload: impl Fn(&mut zhttp::Fields<'_, '_>),
    ) -> Result<(), BenchError> {
        for keys in keys.chunks(IDS_MAX) {
            self.packet.clear();
            address(&mut self.packet, &self.edge);
            let packet = &mut self.packet;
            self.sessions.name(keys, |ids| {
                Envelope::new(NAME.as_bytes(), kind).about(ids).write(packet, &payload);
            });
            self.sockets.publish.send(&self.packet, 0)?;
        }
        Ok(())
    }
}

/// What came, or nothing for now.
fn taken<T>(result: Result<T, zmq::Error>) -> Result<Option<T>, zmq::Error> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(zmq::Error::EAGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}
