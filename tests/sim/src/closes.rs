//! Why WebSockets end: each code of a close must have its reason, and what was said before must have had its answer where
//! that is promised (hold.md H-27 to H-29, H-95, H-96).

use crate::coverage::Mark;
use crate::hearing::EXPIRED;
use crate::world::World;

/// The code of a handler that ends a WebSocket.
pub(crate) const CLOSED_BY_HANDLER: u16 = 3999;

impl World {
    /// Whether a close may come now, and with this code.
    pub(crate) fn judge_close(
        &mut self,
        speaker: usize,
        take: usize,
        close: Option<&(u16, String)>,
    ) -> Result<(), String> {
        let code = close.map(|(code, _)| *code);
        let entry = &self.speakers[speaker];
        let (doings, take) = (&entry.doings, &self.takes[take]);
        let life = entry.conn.map_or(0, |conn| conn.life);
        if let Some((said, was_open)) = doings.closing
            && said == code
            && doings.said.is_empty()
        {
            self.mark(Mark::CloseAnswered);
            if was_open {
                self.mark(Mark::CloseWaited);
            }
            return Ok(());
        }
        let talk = &self.oracles.talk;
        let first = doings.said.front();
        let mark = match code {
            Some(code) if doings.may_end.contains(&code) => {
                let marks = [
                    (code == EXPIRED, Mark::ExpiredWithCode),
                    (code == CLOSED_BY_HANDLER, Mark::ClosedWithCode),
                ];
                marks.iter().find(|(is, _)| *is).map_or(Mark::EndedByHandler, |(_, mark)| *mark)
            }
            Some(1000) if !take.persistent && entry.reader.may_be_finished() => Mark::SocketEnded,
            Some(1001) if self.drained_life == life => {
                // Whoever still had no answer when the time was up gets none.
                let sent = if self.stopped_life == life { 0 } else { talk.last_sent(&take.id) };
                if let Some((saying, ..)) = first.filter(|(saying, ..)| saying.serial <= sent) {
                    return Err(format!("the edge stops, and {saying:?} was to be answered"));
                }
                Mark::Stopping1001
            }
            Some(1003) if !take.hears && doings.serial > 0 => Mark::Unheard1003,
            Some(1008) if doings.has_begun => Mark::Unfinished1008,
            Some(1009) if doings.said_too_much => Mark::TooLong1009,
            Some(1013) => {
                let (_, _, since_ms) = first.ok_or("1013, and all is answered")?;
                let answer_ms = self.scenario.timeouts.answer_ms;
                let has_leapt = self.edge.as_ref().is_none_or(|edge| edge.has_leapt());
                let is_late = self.now_ms >= since_ms + answer_ms;
                if talk.is_refused(&take.id) {
                    Mark::Refused1013
                } else if (is_late || has_leapt) && !self.is_quiet() {
                    Mark::Unanswered1013
                } else {
                    return Err("1013, and nobody is to blame".into());
                }
            }
            _ => {
                let said = &doings.said;
                return Err(format!("it ends with {close:?}, without reason; said: {said:?}"));
            }
        };
        self.mark(mark);
        Ok(())
    }

    /// Whether this run has nothing that could keep a message from its answer.
    fn is_quiet(&self) -> bool {
        let (faults, limits) = (&self.scenario.faults, &self.scenario.limits);
        self.is_strict()
            && faults.handler_weight == 0
            && faults.edge_weight == 0
            && faults.delay_ms <= 60
            && faults.queue_delay_ms <= 3
            && limits.handler_requests_max == 0
            && limits.peer_queue_max > 100
    }
}
