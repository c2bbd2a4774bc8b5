//! ZMTP 3.1 (rfc.zeromq.org/spec/37) by hand, for peers that no library would be.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::peers::within;

/// Either transport.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl Wire for TcpStream {}
impl Wire for UnixStream {}

/// A raw connection.
pub struct Raw(Box<dyn Wire>);

/// The frame is a command.
const COMMAND: u8 = 4;
/// The length has eight bytes instead of one.
const LONG: u8 = 2;

impl Raw {
    /// Connects to `ipc://…` or `tcp://…`.
    pub async fn connect(endpoint: &str) -> Raw {
        let (scheme, address) = endpoint.split_once("://").unwrap();
        Raw(match scheme {
            "ipc" => Box::new(UnixStream::connect(address).await.unwrap()),
            _ => Box::new(TcpStream::connect(address).await.unwrap()),
        })
    }

    /// Goes through the handshake as a DEALER with an identity.
    pub async fn dealer(endpoint: &str, identity: &str) -> Raw {
        let mut raw = Raw::connect(endpoint).await;
        raw.write(&greeting()).await;
        raw.read(64).await;
        let mut ready = b"\x05READY".to_vec();
        for (name, value) in [("Socket-Type", "DEALER"), ("Identity", identity)] {
            ready.push(name.len() as u8);
            ready.extend(name.as_bytes());
            ready.extend((value.len() as u32).to_be_bytes());
            ready.extend(value.as_bytes());
        }
        raw.write(&frame(COMMAND, &ready)).await;
        let (flags, body) = raw.read_frame().await;
        assert_eq!((flags, &body[..6]), (COMMAND, &b"\x05READY"[..]));
        raw
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.unwrap();
        within(self.0.flush()).await.unwrap();
    }

    pub async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// A frame with a short length: flags and body.
    pub async fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2).await;
        (head[0], self.read(head[1].into()).await)
    }

    /// Waits until the other side has closed, whatever it sends before.
    pub async fn read_to_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = within(self.0.read_to_end(&mut rest)).await;
    }
}

/// The NULL mechanism's greeting, of ZMTP 3.1.
pub fn greeting() -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10..12].copy_from_slice(&[3, 1]);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// What comes instead of a greeting, or goes wrong right behind it.
pub fn garbage() -> Vec<Vec<u8>> {
    let mut bad_mechanism = greeting();
    bad_mechanism[12..16].copy_from_slice(b"NUL\xff");
    let behind_a_greeting = |bytes: &[u8]| [&greeting()[..], bytes].concat();
    vec![
        b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n                                                  "
            .to_vec(),
        vec![0xaa; 200],
        bad_mechanism.to_vec(),
        // No READY; a READY of garbage; a command that announces all there is; a message first.
        behind_a_greeting(&frame(COMMAND, b"\x05HELLO")),
        behind_a_greeting(&frame(COMMAND, b"\x05READY\xff\xff\xff\xff\xff")),
        behind_a_greeting(&[COMMAND | LONG, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        behind_a_greeting(&frame(0, b"T")),
    ]
}

/// A short frame.
pub fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags, u8::try_from(body.len()).unwrap()];
    frame.extend(body);
    frame
}

/// A PING with a time to live of 1 s and a context that must come back.
pub fn ping(context: &[u8]) -> Vec<u8> {
    frame(COMMAND, &[b"\x04PING\x00\x0a", context].concat())
}

/// The PONG that answers it.
pub fn pong(context: &[u8]) -> (u8, Vec<u8>) {
    (COMMAND, [b"\x04PONG", context].concat())
}

/// The head of a frame that announces so many bytes.
pub fn announcement(len: u64) -> Vec<u8> {
    [&[LONG][..], &len.to_be_bytes()].concat()
}
