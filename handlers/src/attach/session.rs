//! A session as both of its tasks see it: the edge's task, which reads, and the request's task,
//! which answers.
//!
//! What comes in goes through the [`Flow`] machine; what goes out gets its number here. Numbers
//! must reach the edge in order, and sending may have to wait, so the number is behind an
//! asynchronous lock that is held until the packet is in the link's queue. Keep-alives are sent by
//! the edge's task, for many sessions in one packet; it never waits for that lock, for who holds it
//! is about to send, and that keeps alive as well.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use zhttp::{Envelope, Fields, Id, Kind};

use super::flow::{Fault, Flow, Gone};
use super::link::LinkSender;

/// When keep-alives are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepAlive {
    /// After the request came, if nothing was sent yet. The first packet of a handler says that it
    /// has begun, after which the edge gives the request to no other; so this one waits until the
    /// edge's patience (60 s) asks for it.
    pub(super) first_after: Duration,
    /// After the last packet that was sent.
    pub(super) every: Duration,
}

/// What is known of the packets that were sent.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) seq: u32,
    /// When the last packet was sent; before the first, when the request came.
    last: Instant,
}

impl Out {
    fn new(now: Instant) -> Self {
        Out { seq: 0, last: now }
    }

    /// Whether the session has been silent for so long that it has to say that it lives.
    pub(super) fn is_due(&self, now: Instant, keep_alive: KeepAlive) -> bool {
        let silence = if self.seq == 0 { keep_alive.first_after } else { keep_alive.every };
        now.saturating_duration_since(self.last) >= silence
    }

    /// Counts a packet that is on its way.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.seq = self.seq.wrapping_add(1);
        self.last = now;
    }
}

/// One request in flight.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Bytes,
    from: Arc<[u8]>,
    link: LinkSender,
    flow: Mutex<Flow>,
    /// Something may have come of the request's body. One task waits for it.
    body_came: Notify,
    /// The edge may take more of the response. One task waits for it.
    credits_came: Notify,
    out: tokio::sync::Mutex<Out>,
}

impl Session {
    pub(super) fn new(id: Bytes, from: Arc<[u8]>, link: LinkSender, flow: Flow) -> Self {
        Session {
            id,
            from,
            link,
            flow: Mutex::new(flow),
            body_came: Notify::new(),
            credits_came: Notify::new(),
            out: tokio::sync::Mutex::new(Out::new(Instant::now())),
        }
    }

    /// The lock is held for a few instructions at a time, in which nothing can panic.
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What the edge's task calls.

    pub(super) fn handle_seq(&self, seq: Option<u32>) -> Result<(), Fault> {
        self.flow().handle_seq(seq)
    }

    pub(super) fn handle_body(&self, piece: &[u8], more: bool) -> Result<(), Fault> {
        self.flow().handle_body(piece, more)?;
        self.body_came.notify_one();
        Ok(())
    }

    pub(super) fn handle_credits(&self, credits: u32) {
        self.flow().handle_credits(credits);
        self.credits_came.notify_one();
    }

    pub(super) fn handle_gone(&self) {
        self.flow().handle_gone();
        self.body_came.notify_one();
        self.credits_came.notify_one();
    }

    /// The numbers, unless somebody is sending.
    pub(super) fn try_out(&self) -> Option<tokio::sync::MutexGuard<'_, Out>> {
        self.out.try_lock().ok()
    }

    // What the request's task calls.

    /// Takes what has come of the request's body; the flag says that it goes on.
    pub(super) fn take_body(&self) -> Result<(Bytes, bool), Gone> {
        self.flow().take_body()
    }

    /// Waits until more of the request's body has come, having granted what is to be granted.
    /// Cancel-safe.
    pub(super) async fn wait_body(&self) -> Result<(), Gone> {
        let mut out = self.out.lock().await;
        let grant = self.flow().take_grant();
        if let Some(credits) = grant {
            // Before it is sent, for the answer may come at once; so it is taken back if it is not
            // sent.
            let mut unsent = Unsent { session: self, grant: credits };
            self.send_numbered(
                &mut out,
                Kind::Credit,
                |_| {},
                |fields| {
                    fields.int("credits", credits.into());
                },
            )
            .await?;
            unsent.grant = 0;
        }
        drop(out);
        self.body_came.notified().await;
        Ok(())
    }

    /// Takes up to `wanted` bytes of what the edge takes now; 0 if it takes nothing.
    pub(super) fn try_credits(&self, wanted: usize) -> Result<usize, Gone> {
        self.flow().take_credits(wanted)
    }

    /// Takes from 1 to `wanted` bytes of what the edge takes; waits until it takes any.
    pub(super) async fn credits(&self, wanted: usize) -> Result<usize, Gone> {
        debug_assert!(wanted > 0, "nothing has to wait for nothing");
        loop {
            match self.try_credits(wanted)? {
                0 => self.credits_came.notified().await,
                taken => return Ok(taken),
            }
        }
    }

    /// Sends a packet; waits while the link's queue is full. Cancel-safe: a packet that was not
    /// sent has no number.
    pub(super) async fn send(
        &self,
        kind: Kind,
        ext: impl FnOnce(&mut Fields<'_, '_>),
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) -> Result<(), Gone> {
        let mut out = self.out.lock().await;
        self.send_numbered(&mut out, kind, ext, payload).await
    }

    /// The same, unless `check` finds something wrong with the packet: then nothing is sent.
    pub(super) async fn send_checked<E>(
        &self,
        kind: Kind,
        ext: impl FnOnce(&mut Fields<'_, '_>),
        payload: impl FnOnce(&mut Fields<'_, '_>),
        check: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Gone> {
        let mut out = self.out.lock().await;
        let packet = self.packet(&out, kind, ext, payload);
        if let Err(error) = check(&packet) {
            return Ok(Err(error));
        }
        self.send_packet(&mut out, packet).await.map(Ok)
    }

    async fn send_numbered(
        &self,
        out: &mut Out,
        kind: Kind,
        ext: impl FnOnce(&mut Fields<'_, '_>),
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) -> Result<(), Gone> {
        let packet = self.packet(out, kind, ext, payload);
        self.send_packet(out, packet).await
    }

    fn packet(
        &self,
        out: &Out,
        kind: Kind,
        ext: impl FnOnce(&mut Fields<'_, '_>),
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) -> Vec<u8> {
        let mut packet = Vec::new();
        let ids = [Id { id: &self.id, seq: Some(out.seq) }];
        Envelope::new(&self.from, kind).about(&ids).write_ext(&mut packet, ext, payload);
        packet
    }

    async fn send_packet(&self, out: &mut Out, packet: Vec<u8>) -> Result<(), Gone> {
        self.link.send(packet.into()).await.map_err(|_| Gone)?;
        out.handle_sent(Instant::now());
        Ok(())
    }
}

/// A grant that has not been sent yet.
struct Unsent<'s> {
    session: &'s Session,
    grant: u32,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if self.grant > 0 {
            self.session.flow().give_back_grant(self.grant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keep_alive_is_due_sooner_than_the_others() {
        let keep_alive =
            KeepAlive { first_after: Duration::from_secs(20), every: Duration::from_secs(45) };
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut out = Out::new(start);
        assert!(!out.is_due(after(19), keep_alive));
        assert!(out.is_due(after(20), keep_alive));
        out.handle_sent(after(20));
        assert!(!out.is_due(after(64), keep_alive));
        assert!(out.is_due(after(65), keep_alive));
        assert_eq!(out.seq, 1);
    }
}
