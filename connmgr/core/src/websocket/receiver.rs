//! What comes over a connection: frames become pieces of messages, pings, pongs and a close (RFC 6455 §5.4, §6.2).
//!
//! ```text
//!            a first frame                its end, with FIN
//!   rests ─────────────────▶ in a frame ─────────────────▶ rests
//!                              │    ▲
//!            its end, no FIN   ▼    │ a continuation
//!                            between frames
//! ```
//!
//! Messages go on to whoever wants them as they come, in pieces, so a message may be larger than any buffer; how much
//! is passed on is bounded by the *room* that the caller has. Control frames may stand anywhere, also within a message,
//! and are short: each is passed on whole. Text is judged as it comes.
//!
//! Payloads are unmasked on their way to where the caller wants them; the input is not changed, and what is not used
//! stays with the caller.

use super::deflate::{Inflater, Pool};
use super::frame::{FrameHead, Mask, Opcode};
use super::utf8::Utf8;
use super::{Close, MessageKind, Role, WebSocketError};

/// Compressed bytes that are unmasked at a time.
const UNMASK_BYTES: usize = 4096;

/// What came. Its bytes are behind those that were in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing yet: more must come, or there must be more room.
    Nothing,
    /// The next piece of a message; it may be empty if it is the last.
    Message {
        /// Of which kind.
        kind: MessageKind,
        /// The message is whole.
        end: bool,
    },
    /// A ping, with its payload.
    Ping,
    /// A pong, with its payload.
    Pong,
    /// A close. Its payload is one that [`Close::parse`] takes. Nothing is to be received after it.
    Close,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver {
    role: Role,
    /// Messages may be compressed.
    deflates: bool,
    /// Of messages nothing is wanted any more.
    discards: bool,
    /// What has begun, and is not whole.
    begun: Option<Box<Begun>>,
}

#[derive(Debug)]
struct Begun {
    kind: MessageKind,
    text: Utf8,
    is_compressed: bool,
    /// There once something of a compressed message has come.
    inflater: Option<Inflater>,
    /// The frame in which it is; `None` between two.
    frame: Option<Frame>,
}

#[derive(Debug)]
struct Frame {
    remaining: u64,
    mask: Option<Mask>,
    fin: bool,
}

impl Receiver {
    /// At the beginning of a connection; `deflates` if compression was agreed upon.
    pub fn new(role: Role, deflates: bool) -> Self {
        Receiver { role, deflates, discards: false, begun: None }
    }

    /// Takes bytes that came, up to the next thing that can be passed on, and appends that to `out`: of messages at most
    /// `room` bytes. Says how many bytes it took.
    ///
    /// # Errors
    ///
    /// The peer has broken the protocol, and is to be told by a close with [`WebSocketError::code`].
    pub fn receive(
        &mut self,
        pool: &mut Pool,
        input: &[u8],
        (out, room): (&mut Vec<u8>, usize),
    ) -> Result<(usize, Received), WebSocketError> {
        let mut used = 0;
        loop {
            let before = out.len();
            if let Some(begun) = &mut self.begun
                && begun.frame.is_some()
            {
                if room == 0 {
                    return Ok((used, Received::Nothing));
                }
                let is_over = if self.discards {
                    used += begun.discard(&input[used..]);
                    begun.end_discarded()
                } else {
                    used += begun.take(pool, &input[used..], (out, room))?;
                    begun.end_frame(out, room - (out.len() - before))?
                };
                let kind = begun.kind;
                if is_over {
                    let begun = self.begun.take().expect("it was there");
                    begun.inflater.into_iter().for_each(|inflater| pool.give_back(inflater));
                } else if out.len() == before {
                    if begun.frame.is_none() {
                        continue;
                    }
                    return Ok((used, Received::Nothing));
                }
                return Ok((used, Received::Message { kind, end: is_over }));
            }
            let Some((head, head_bytes)) = FrameHead::parse(&input[used..])? else {
                return Ok((used, Received::Nothing));
            };
            self.check(&head)?;
            let behind = used + head_bytes;
            let Some(control) = control_of(head.opcode) else {
                self.begin(&head);
                used = behind;
                continue;
            };
            // It fits: a control frame is short.
            let Some(payload) = input[behind..].get(..head.len as usize) else {
                return Ok((used, Received::Nothing));
            };
            out.extend_from_slice(payload);
            head.mask.into_iter().for_each(|mut mask| mask.apply(&mut out[before..]));
            if control == Received::Close {
                Close::parse(&out[before..])?;
            }
            return Ok((behind + payload.len(), control));
        }
    }

    /// Passes over messages from now on: nobody wants them, and so they are neither judged nor decompressed.
    pub fn discard(&mut self) {
        self.discards = true;
    }

    /// Whether there is more of what has come already, for which there was no room.
    pub fn has_rest(&self) -> bool {
        let frame = self.begun.as_ref().and_then(|begun| begun.frame.as_ref());
        frame.is_some_and(|frame| frame.remaining == 0)
    }

    /// Whether a message has begun and is not whole.
    #[cfg(test)]
    pub(super) fn is_in_message(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether a frame may come here.
    fn check(&self, head: &FrameHead) -> Result<(), WebSocketError> {
        if head.mask.is_some() != (self.role == Role::Server) {
            return Err(WebSocketError::Masking);
        }
        match (head.opcode, &self.begun) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => Ok(()),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(WebSocketError::Interleaved),
            (Opcode::Continuation, None) => Err(WebSocketError::Continuation),
            (Opcode::Continuation, Some(_)) if head.rsv1 => Err(WebSocketError::Rsv1),
            (Opcode::Text | Opcode::Binary, None) if head.rsv1 && !self.deflates => {
                Err(WebSocketError::Rsv1)
            }
            (Opcode::Text | Opcode::Binary, None) | (Opcode::Continuation, Some(_)) => Ok(()),
        }
    }

    /// Begins a frame of a message.
    fn begin(&mut self, head: &FrameHead) {
        let begun = self.begun.get_or_insert_with(|| {
            let is_text = head.opcode == Opcode::Text;
            Box::new(Begun {
                kind: if is_text { MessageKind::Text } else { MessageKind::Binary },
                text: Utf8::new(),
                is_compressed: head.rsv1,
                inflater: None,
                frame: None,
            })
        });
        begun.frame = Some(Frame { remaining: head.len, mask: head.mask, fin: head.fin });
    }
}

impl Begun {
    /// Takes payload of the frame as far as it is there, and as there is room. Says how many bytes it took.
    fn take(
        &mut self,
        pool: &mut Pool,
        input: &[u8],
        (out, room): (&mut Vec<u8>, usize),
    ) -> Result<usize, WebSocketError> {
        let frame = self.frame.as_mut().expect("only called in a frame");
        let payload = frame.payload(input);
        if self.is_compressed && self.inflater.is_none() && !payload.is_empty() {
            self.inflater = Some(pool.take().ok_or(WebSocketError::Busy)?);
        }
        let before = out.len();
        let used = match &mut self.inflater {
            Some(inflater) => frame.inflate(inflater, payload, (out, room))?,
            None => {
                let payload = &payload[..payload.len().min(room)];
                out.extend_from_slice(payload);
                frame.mask.iter_mut().for_each(|mask| mask.apply(&mut out[before..]));
                payload.len()
            }
        };
        frame.remaining -= used as u64;
        self.judge(&out[before..])?;
        Ok(used)
    }

    /// Passes over payload of the frame, as far as it is there. Says how many bytes.
    fn discard(&mut self, input: &[u8]) -> usize {
        let frame = self.frame.as_mut().expect("only called in a frame");
        let bytes = frame.payload(input).len();
        frame.remaining -= bytes as u64;
        bytes
    }

    /// Ends the frame if all of it was passed over. Says whether the message is whole.
    fn end_discarded(&mut self) -> bool {
        self.frame.take_if(|frame| frame.remaining == 0).is_some_and(|frame| frame.fin)
    }

    /// Ends the frame if all of it is taken; what a last one still brings is behind `out`. Says whether the message is
    /// whole.
    fn end_frame(&mut self, out: &mut Vec<u8>, room: usize) -> Result<bool, WebSocketError> {
        let frame = self.frame.as_ref().expect("only called in a frame");
        if frame.remaining > 0 {
            return Ok(false);
        }
        if !frame.fin {
            self.frame = None;
            return Ok(false);
        }
        let before = out.len();
        let is_whole = match &mut self.inflater {
            Some(inflater) => inflater.finish(out, room)?,
            None => true,
        };
        self.judge(&out[before..])?;
        if is_whole && !self.text.is_complete() {
            return Err(WebSocketError::Text);
        }
        Ok(is_whole)
    }

    /// Text must be text.
    fn judge(&mut self, bytes: &[u8]) -> Result<(), WebSocketError> {
        let is_right = match self.kind {
            MessageKind::Text => self.text.push(bytes),
            MessageKind::Binary => true,
        };
        if is_right { Ok(()) } else { Err(WebSocketError::Text) }
    }
}

impl Frame {
    /// What of the input is of this frame.
    fn payload<'i>(&self, input: &'i [u8]) -> &'i [u8] {
        let remaining = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        &input[..input.len().min(remaining)]
    }

    /// Decompresses payload; says how much of it.
    fn inflate(
        &mut self,
        inflater: &mut Inflater,
        payload: &[u8],
        (out, room): (&mut Vec<u8>, usize),
    ) -> Result<usize, WebSocketError> {
        let before = out.len();
        let mut used = 0;
        let mut plain = [0; UNMASK_BYTES];
        while used < payload.len() {
            let masked = &payload[used..payload.len().min(used + UNMASK_BYTES)];
            let plain = &mut plain[..masked.len()];
            plain.copy_from_slice(masked);
            self.mask.into_iter().for_each(|mut mask| mask.apply(plain));
            let taken = inflater.push(plain, out, room - (out.len() - before))?;
            self.mask.iter_mut().for_each(|mask| mask.skip(taken));
            used += taken;
            if taken < masked.len() {
                break;
            }
        }
        Ok(used)
    }
}

/// What a control frame is passed on as.
fn control_of(opcode: Opcode) -> Option<Received> {
    match opcode {
        Opcode::Close => Some(Received::Close),
        Opcode::Ping => Some(Received::Ping),
        Opcode::Pong => Some(Received::Pong),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
    }
}
