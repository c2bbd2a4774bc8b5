//! A ZHTTP handler that is never the bottleneck, for Condure and for Forebay alike.
//!
//! | what | sockets | what it does |
//! | --- | --- | --- |
//! | [`Role::HelloStream`] | PULL in, PUB out | answers each request with one packet |
//! | [`Role::HelloReq`] | ROUTER | the same in req mode |
//! | [`Role::Hold`] | PULL, ROUTER, PUB | accepts event streams and WebSockets, keeps them alive, and broadcasts |
//!
//! It is a plain handler, as there are for Condure: each session is its own, it numbers the packets of each, answers
//! keep-alives, and names up to 128 sessions in a packet. It has no hold extension; what Forebay does with that is measured
//! with Forebay's own handlers.
//!
//! It serves one edge. It trusts it, and ends with an error where a handler for the world would go on.

mod control;
mod hold;
mod sessions;

use std::str::FromStr;

use zhttp::{Envelope, Fields, Id, Kind, Packet};

use crate::error::BenchError;
pub use control::Control;
pub use hold::Hold;

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers requests of stream mode.
    HelloStream,
    /// Answers requests of req mode.
    HelloReq,
    /// Holds connections, and broadcasts.
    Hold,
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hello-stream" => Ok(Role::HelloStream),
            "hello-req" => Ok(Role::HelloReq),
            "hold" => Ok(Role::Hold),
            _ => Err("one of hello-stream, hello-req, hold"),
        }
    }
}

/// The name of the handler, to which the edge answers.
const NAME: &str = "peer";

/// A queue of ZeroMQ without a bound: whoever loses a packet measures something else.
const UNBOUNDED: i32 = 0;

const HELLO: &[u8] = b"hello world\n";

fn hello(fields: &mut Fields<'_, '_>) {
    fields.int("code", 200);
    fields.bytes("reason", b"OK");
    fields.headers([(&b"Content-Type"[..], &b"text/plain"[..])].into_iter());
    fields.bytes("body", HELLO);
}

/// The sockets of stream mode, connected to an edge.
pub(crate) struct StreamSockets {
    /// Requests.
    pull: zmq::Socket,
    /// Packets of sessions that this handler has answered.
    router: zmq::Socket,
    /// Packets to the edge.
    publish: zmq::Socket,
}

impl StreamSockets {
    fn connect(context: &zmq::Context, spec: &str) -> Result<Self, zmq::Error> {
        let pull = context.socket(zmq::PULL)?;
        pull.set_rcvhwm(UNBOUNDED)?;
        let router = context.socket(zmq::ROUTER)?;
        router.set_rcvhwm(UNBOUNDED)?;
        router.set_identity(NAME.as_bytes())?;
        let publish = context.socket(zmq::PUB)?;
        publish.set_sndhwm(UNBOUNDED)?;
        // Where packets go out stands before where they come in: what a handler answers before the edge has subscribed is
        // lost, and no request comes before that socket is connected too.
        publish.connect(&format!("{spec}-in"))?;
        router.connect(&format!("{spec}-out-stream"))?;
        pull.connect(&format!("{spec}-out"))?;
        Ok(StreamSockets { pull, router, publish })
    }
}

/// Answers requests of stream mode for ever.
///
/// # Errors
///
/// If ZeroMQ or a packet of the edge is at fault.
pub fn hello_stream(context: &zmq::Context, spec: &str) -> Result<(), BenchError> {
    let sockets = StreamSockets::connect(context, spec)?;
    let mut message = zmq::Message::new();
    let mut answer = Vec::new();
    loop {
        sockets.pull.recv(&mut message, 0)?;
        let packet = Packet::parse(&message)?;
        // A request that ends early, or a piece of a body, wants no answer of its own.
        let (Kind::Data, Some(Id { id, .. })) = (packet.kind, { packet.ids }.next()) else {
            continue;
        };
        answer.clear();
        address(&mut answer, packet.from);
        let session = [Id { id, seq: Some(0) }];
        Envelope::new(NAME.as_bytes(), Kind::Data).about(&session).write(&mut answer, hello);
        sockets.publish.send(&answer, 0)?;
    }
}

/// Answers requests of req mode for ever.
///
/// # Errors
///
/// If ZeroMQ or a packet of the edge is at fault.
pub fn hello_req(context: &zmq::Context, spec: &str) -> Result<(), BenchError> {
    let socket = context.socket(zmq::ROUTER)?;
    socket.set_sndhwm(UNBOUNDED)?;
    socket.set_rcvhwm(UNBOUNDED)?;
    socket.connect(spec)?;
    loop {
        // The way back stands before the packet.
        let mut parts = socket.recv_multipart(0)?;
        let Some(request) = parts.pop() else { continue };
        let packet = Packet::parse(&request)?;
        let Some(Id { id, .. }) = { packet.ids }.next() else { continue };
        let mut answer = Vec::with_capacity(128);
        let session = [Id { id, seq: None }];
        Envelope::new(b"", Kind::Data).about(&session).write(&mut answer, hello);
        parts.push(answer);
        socket.send_multipart(parts, 0)?;
    }
}

/// What stands before a packet on a PUB socket: the edge that it is for.
fn address(out: &mut Vec<u8>, edge: &[u8]) {
    out.extend_from_slice(edge);
    out.push(b' ');
}
