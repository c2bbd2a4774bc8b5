//! What is run: how many clients and channels, how fast, for how long, and what is broken when.

use std::path::PathBuf;
use std::time::Duration;

/// Handlers in a run; each has all roles.
pub(crate) const HANDLERS: usize = 2;

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The `forebay` binary.
    pub forebay: PathBuf,
    /// Readers. Every third reads two channels at once. Those whose first channel is a wide one stop
    /// reading for a while.
    pub clients: usize,
    /// The same on WebSockets.
    pub sockets: usize,
    /// Channels; each has two publishers, one of them on a WebSocket, and its share of the clients. Every tenth one is wide: its
    /// events are large.
    pub channels: usize,
    /// Events a second, of all channels together.
    pub events_per_second: u64,
    /// How long events are published and things are broken. Events that are late because of that
    /// are published afterwards.
    pub duration: Duration,
    /// What is broken.
    pub disruption: Disruption,
}

/// What is broken.
#[derive(Clone, Copy, Debug)]
pub enum Disruption {
    /// The handlers get a signal and are started again: one after the other, and once both.
    Handlers {
        /// How they are ended.
        how: Ended,
        /// One of them each time that this has passed.
        every: Duration,
        /// How long there is none, when both are ended.
        both_down: Duration,
    },
    /// Redis is ended by SIGTERM and started again, once.
    Store {
        /// How long it is away.
        down: Duration,
    },
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By SIGKILL: in the middle of anything.
    Killed,
    /// By SIGTERM: it may finish what is in flight.
    Terminated,
}

/// Events of a channel that a slow client lets pass. A third of those that the store keeps
/// (`--history-max`, 1200): who comes back later is told of a gap, and rightly so.
const PAUSE_EVENTS_MAX: u32 = 400;

/// Something that is broken at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// After the beginning of the load.
    pub(crate) at: Duration,
    pub(crate) what: Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// One handler is ended, and started again at once.
    Handler { index: usize, how: Ended },
    /// All handlers are ended, and started again after a time.
    Handlers { how: Ended, down: Duration },
    /// Redis is ended, and started again after a time.
    Store { down: Duration },
}

impl Scenario {
    /// The run's name in a report.
    pub fn name(&self) -> &'static str {
        match self.disruption {
            Disruption::Handlers { how: Ended::Killed, .. } => "handlers: SIGKILL",
            Disruption::Handlers { how: Ended::Terminated, .. } => "handlers: SIGTERM",
            Disruption::Store { .. } => "Redis: SIGTERM",
        }
    }

    /// All faults in their order. After two thirds of the time all handlers are away at once;
    /// Redis is away after one third, so that there is time to see it recover.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let (how, every, down) = match self.disruption {
            Disruption::Handlers { how, every, both_down } => (how, every, both_down),
            Disruption::Store { down } => {
                return vec![Fault { at: self.duration / 3, what: Restart::Store { down } }];
            }
        };
        let mut faults = Vec::new();
        let (mut at, mut turn, mut all_were_down) = (every, 0, false);
        while at < self.duration {
            if !all_were_down && at >= self.duration * 2 / 3 {
                all_were_down = true;
                faults.push(Fault { at, what: Restart::Handlers { how, down } });
                at += down;
            } else {
                let index = turn % HANDLERS;
                turn += 1;
                faults.push(Fault { at, what: Restart::Handler { index, how } });
            }
            at += every;
        }
        faults
    }

    /// Events that each channel gets, but for its END.
    pub(crate) fn events_per_channel(&self) -> u64 {
        let events = u128::from(self.events_per_second) * self.duration.as_millis() / 1000;
        u64::try_from(events).unwrap_or(u64::MAX) / self.channels as u64
    }

    /// The time between two events of a channel.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(self.channels as u64)
            / u32::try_from(self.events_per_second.max(1)).unwrap_or(u32::MAX)
    }

    /// The limit that handlers are told: the default, or room for twice the load if that is more.
    pub(crate) fn channel_rate(&self) -> u64 {
        const DEFAULT: u64 = 20;
        DEFAULT.max(2 * self.events_per_second.div_ceil(self.channels as u64))
    }

    /// The channels that a client reads.
    pub(crate) fn channels_of(&self, client: usize) -> Vec<usize> {
        let first = client % self.channels;
        if client % 3 == 1 && self.channels > 1 {
            // Which one is second must depend on more than the first, or pairs would be fixed.
            let step = 1 + (client / self.channels) % (self.channels - 1);
            vec![first, (first + step) % self.channels]
        } else {
            vec![first]
        }
    }

    /// How many clients of both kinds are such.
    pub(crate) fn count_clients(&self, is_such: impl Fn(usize) -> bool) -> usize {
        (0..self.clients).chain(0..self.sockets).filter(|client| is_such(*client)).count()
    }

    /// When a client stops reading, and for how long, if it is one of the slow ones: those that read
    /// a wide channel first. So much comes in that time that it fits no buffer of the kernel.
    pub(crate) fn pause_of(&self, client: usize) -> Option<Pause> {
        let duration = (self.duration / 3).min(self.interval() * PAUSE_EVENTS_MAX);
        is_wide(client % self.channels).then_some(Pause { at: self.duration / 6, duration })
    }
}

/// Whether the events of a channel are large.
pub(crate) fn is_wide(channel: usize) -> bool {
    channel.is_multiple_of(10)
}

/// A time in which a client does not read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// After the beginning of the load.
    pub(crate) at: Duration,
    pub(crate) duration: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(disruption: Disruption) -> Scenario {
        Scenario {
            forebay: PathBuf::new(),
            clients: 300,
            sockets: 300,
            channels: 30,
            events_per_second: 300,
            duration: Duration::from_secs(30),
            disruption,
        }
    }

    #[test]
    fn handlers_go_in_turn_and_once_together() {
        let (every, down) = (Duration::from_secs(2), Duration::from_secs(3));
        let how = Ended::Killed;
        let faults = scenario(Disruption::Handlers { how, every, both_down: down }).faults();
        let at: Vec<u64> = faults.iter().map(|fault| fault.at.as_secs()).collect();
        assert_eq!(at, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 25, 27, 29]);
        assert_eq!(faults[0].what, Restart::Handler { index: 0, how });
        assert_eq!(faults[1].what, Restart::Handler { index: 1, how });
        assert_eq!(faults[9].what, Restart::Handlers { how, down });
    }

    #[test]
    fn the_load_is_shared_out() {
        let scenario = scenario(Disruption::Store { down: Duration::from_secs(5) });
        assert_eq!(scenario.events_per_channel(), 300);
        assert_eq!(scenario.interval(), Duration::from_millis(100));
        let mut readers = vec![0; scenario.channels];
        for client in 0..scenario.clients {
            let channels = scenario.channels_of(client);
            assert!(channels.len() == 1 || channels[0] != channels[1]);
            channels.iter().for_each(|channel| readers[*channel] += 1);
        }
        assert_eq!(readers.iter().sum::<usize>(), 400);
        assert!(readers.iter().all(|readers| *readers >= 10));
        let slow = (0..300).filter(|client| scenario.pause_of(*client).is_some()).count();
        assert_eq!(slow, 30);
    }
}
