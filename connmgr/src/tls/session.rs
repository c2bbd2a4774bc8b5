//! TLS between a client's socket and the machine: what stands in the way of a read and a write.
//!
//! ```text
//!  socket ──read_tls──▶ rustls ──reader──▶ machine         at most one record waits in rustls for room
//!  socket ◀─ unsent ◀── rustls ◀─writer─── machine         at most one record waits in `unsent` for the kernel
//! ```
//!
//! **Writing** keeps the contract of a socket: bytes count as taken when the kernel has them. But a record is encrypted as
//! a whole, and can only be sent so. So when the kernel takes half of one, the other half waits in `unsent`, and the
//! plaintext that is in there is *owed*: the machine still has it, as what the socket has not taken, and will offer it
//! again at the front of the next write, where it is passed over instead of being encrypted twice. (OpenSSL has the same
//! rule for `SSL_write` after `SSL_ERROR_WANT_WRITE`.) In this way the machine's limits, its view of how fast a client
//! reads, and the order *all was sent, then shut down* hold as for plain sockets; the price is one record a slow client.
//!
//! **Reading** goes on until the socket is empty or the machine has no room, and never decrypts ahead of that: rustls is
//! given bytes of the socket only when all its plaintext was taken.
//!
//! **Handshakes** are what takes time: a signature is some 50 µs (P-256) to 1 ms (RSA). Each step costs the caller one of
//! its [`Steps`]; when they are used up the session says [`ReadOutcome::Deferred`], once, and is read again in a later turn.
//!
//! **Ends.** A `close_notify` is the end of what the client sends, as a FIN is, and so is a FIN without one: a request
//! says by itself where it ends, so who cuts the connection only cuts a request that is then never complete. The other
//! way round an answer may end with the connection, so our `close_notify` is sent when all was said, and not when it was cut
//! (`sockets.rs`).
//!
//! **Memory.** An idle session takes 7.5 KiB (`scripts/idle-memory --tls 1.3`): 3.3 KiB are its keys and what rustls knows
//! of it, 4 KiB rustls's input buffer, of which it never gives back the last 4 KiB. Our own is freed as soon as it is
//! empty. `UnbufferedServerConnection` would save the 4 KiB, at the price of having all rules about what is to be
//! discarded when in here.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use crate::listener::Stream;
use crate::sockets::ReadOutcome;

/// Plaintext that is encrypted before the kernel has taken what was before it: one record (RFC 8446 §5.1). So much memory
/// may wait for each client that does not read, and the framing of a record.
const ENCRYPTED_BYTES_MAX: usize = 16 * 1024;

/// Slices of one write that are encrypted together. What more there are come in the next record.
const SLICES_MAX: usize = 16;

/// Reads of what a client that is refused has under way. It is dropped, so that the reset which unread bytes cause does not
/// destroy the alert.
const REFUSED_READS_MAX: usize = 16;

/// Reads of a session in a row that may bring no plaintext: 256 KiB of what a client sends. A record takes at most five,
/// a handshake a few.
const EMPTY_READS_MAX: usize = 64;

/// The alert of rustls for a name that there is no certificate of: `access_denied`, in the clear.
const ACCESS_DENIED: u8 = 49;

/// The alert for it (RFC 6066 §3).
const UNRECOGNIZED_NAME: u8 = 112;

/// A fatal alert in the clear: type 21, any version of the record layer, two bytes.
const ALERT_BYTES: usize = 7;

/// Steps of handshakes that may still be done in this turn, for all connections of a worker.
pub(crate) type Steps = usize;

/// The TLS of one connection.
pub(crate) struct Session {
    tls: ServerConnection,
    /// Records that the kernel has not taken.
    unsent: Vec<u8>,
    /// How many bytes of `unsent` it has.
    sent: usize,
    /// Plaintext in `unsent` that the caller was not told is taken.
    owed: usize,
    /// The client has said that it sends nothing more.
    is_read_closed: bool,
    /// When all is sent, the socket is shut down.
    is_shutting_down: bool,
    /// It waits for a step of its handshake, and has said so.
    is_deferred: bool,
    /// It was refused.
    has_failed: bool,
}

impl Session {
    /// Of a client that has sent nothing yet.
    ///
    /// # Errors
    /// If rustls refuses its configuration.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        tls.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        Ok(Session {
            tls,
            unsent: Vec::new(),
            sent: 0,
            owed: 0,
            is_read_closed: false,
            is_shutting_down: false,
            is_deferred: false,
            has_failed: false,
        })
    }

    /// Reads plaintext into `buffer`, which is not empty.
    pub(crate) fn read(
        &mut self,
        stream: &mut Stream,
        buffer: &mut [u8],
        steps: &mut Steps,
    ) -> ReadOutcome {
        self.read_within(stream, buffer, (steps, EMPTY_READS_MAX))
    }

    fn read_within(
        &mut self,
        stream: &mut Stream,
        buffer: &mut [u8],
        (steps, empty_reads_max): (&mut Steps, usize),
    ) -> ReadOutcome {
        if self.has_failed {
            return ReadOutcome::Failed;
        }
        for _ in 0..empty_reads_max {
            match self.tls.reader().read(buffer) {
                Ok(0) => return ReadOutcome::Eof,
                Ok(bytes) => return ReadOutcome::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return ReadOutcome::Eof,
                Err(_) => return ReadOutcome::Failed,
            }
            if self.tls.is_handshaking() {
                if *steps == 0 {
                    let was_deferred = std::mem::replace(&mut self.is_deferred, true);
                    return if was_deferred { ReadOutcome::Blocked } else { ReadOutcome::Deferred };
                }
                self.is_deferred = false;
            }
            match self.tls.read_tls(stream) {
                // The end is for rustls to tell, above: before it may be something that was not read.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadOutcome::Blocked,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return ReadOutcome::Failed,
            }
            if self.tls.is_handshaking() {
                *steps -= 1;
            }
            match self.tls.process_new_packets() {
                Ok(state) => self.is_read_closed = state.peer_has_closed(),
                Err(error) => {
                    self.refuse(stream, buffer);
                    return ReadOutcome::Refused(error);
                }
            }
            // What the handshake answers, and new keys. If the socket has failed, reading finds out.
            let _ = self.flush(stream);
        }
        // Records without a byte in them, one after the other: nobody does that who wants something.
        ReadOutcome::Failed
    }

    /// Whether the client has said that it sends nothing more.
    pub(crate) fn is_read_closed(&self) -> bool {
        self.is_read_closed
    }

    /// Writes what fits of these slices, which begin with what was not taken of those before. Says how many bytes of them
    /// are sent; adds to `written` what the kernel has taken.
    ///
    /// # Errors
    /// If the socket fails, or the session has.
    pub(crate) fn write(
        &mut self,
        stream: &mut Stream,
        slices: &[IoSlice<'_>],
        written: &mut u64,
    ) -> io::Result<usize> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        loop {
            *written += self.flush(stream)?;
            // Fewer bytes may be offered than were before.
            taken += self.settle(offered - taken);
            if self.owed > 0 || !self.unsent.is_empty() || self.tls.is_handshaking() {
                return Ok(taken);
            }
            self.owed = self.encrypt(slices, taken)?;
            if self.owed == 0 {
                return Ok(taken);
            }
        }
    }

    /// Sends what waits for the kernel, as far as it takes it. Says how many bytes it took.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) fn flush(&mut self, stream: &mut Stream) -> io::Result<u64> {
        let mut written = 0;
        while !self.unsent.is_empty() {
            let Some(bytes) = unless_blocked(stream.write(&self.unsent[self.sent..]))? else {
                return Ok(written);
            };
            written += bytes as u64;
            self.sent += bytes;
            if self.sent == self.unsent.len() {
                // Idle sessions have no buffer.
                self.unsent = Vec::new();
                self.sent = 0;
            }
        }
        while self.tls.wants_write() {
            match unless_blocked(self.tls.write_tls(stream))? {
                Some(bytes) => written += bytes as u64,
                None => {
                    while self.tls.wants_write() {
                        self.tls.write_tls(&mut self.unsent)?;
                    }
                    return Ok(written);
                }
            }
        }
        if std::mem::take(&mut self.is_shutting_down) {
            // If it is gone already, so will be what reads from it.
            let _ = stream.shutdown(Shutdown::Write);
        }
        Ok(written)
    }

    /// Sends no more behind what was written: says so to the client, and shuts the socket down.
    pub(crate) fn shutdown(&mut self, stream: &mut Stream) {
        self.say_goodbye(stream);
        self.is_shutting_down = true;
        let _ = self.flush(stream);
    }

    /// Everything was said: the client may be sure of it.
    pub(crate) fn say_goodbye(&mut self, stream: &mut Stream) {
        if !self.tls.is_handshaking() && !self.has_failed {
            self.tls.send_close_notify();
            let _ = self.flush(stream);
        }
    }

    /// How much of what is owed was sent, up to `bytes_max`. A record is longer than what is in it, so that what of it was
    /// not sent is no more plaintext than it has bytes.
    fn settle(&mut self, bytes_max: usize) -> usize {
        let unsent = self.owed.min(self.unsent.len() - self.sent);
        let settled = bytes_max.min(self.owed - unsent);
        self.owed -= settled;
        settled
    }

    /// Makes a record of the slices behind so many bytes. Says how many more are in it.
    fn encrypt(&mut self, slices: &[IoSlice<'_>], mut skip: usize) -> io::Result<usize> {
        let mut rest = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for slice in slices {
            if count == SLICES_MAX {
                break;
            }
            let passed_over = skip.min(slice.len());
            skip -= passed_over;
            if passed_over < slice.len() {
                rest[count] = IoSlice::new(&slice[passed_over..]);
                count += 1;
            }
        }
        self.tls.writer().write_vectored(&rest[..count])
    }

    /// Tells the client why, as far as the socket takes it. `buffer` is overwritten.
    fn refuse(&mut self, stream: &mut Stream, buffer: &mut [u8]) {
        self.has_failed = true;
        while self.tls.wants_write() {
            // It cannot fail: a `Vec` takes everything.
            let _ = self.tls.write_tls(&mut self.unsent);
        }
        let is_alert = self.unsent.len() == ALERT_BYTES && self.unsent[0] == 21;
        if is_alert && self.tls.is_handshaking() && self.unsent[ALERT_BYTES - 1] == ACCESS_DENIED {
            // rustls has that one for no other reason, and no other for this.
            self.unsent[ALERT_BYTES - 1] = UNRECOGNIZED_NAME;
        }
        let _ = stream.write(&self.unsent[self.sent..]);
        let _ = stream.shutdown(Shutdown::Write);
        for _ in 0..REFUSED_READS_MAX {
            let Ok(1..) = stream.read(buffer) else { return };
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unsent = self.unsent.len() - self.sent;
        f.debug_struct("Session").field("unsent", &unsent).field("owed", &self.owed).finish()
    }
}

/// `None` if the socket takes nothing now. An interrupted call has taken nothing, and is made again.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
