//! All paths, and how long each is walked.
//!
//! Steps are few: a count is exact, so that more of them would only take longer. They are enough that what happens in one
//! step of several (a queue that grows, a wheel that turns) has its share.

pub(crate) mod hub;
mod merge;
mod packets;
mod requests;
mod subscribers;

use crate::Subject;

/// Members of a fan-out, and connections of a turn of the timers.
const MEMBERS: usize = 1_000;

/// `NAME: WHAT, WARM_UP and STEPS steps of PATH`, where the last is what sets the path up for so many steps.
macro_rules! subject {
    ($name:literal: $what:literal, $warm_up:literal and $steps:literal steps of $path:expr) => {
        Subject {
            name: $name,
            what: $what,
            warm_up: $warm_up,
            steps_max: $steps,
            set_up: |steps| Box::new($path(steps)),
        }
    };
}

/// Every path: first those of pure pieces, then the worker's, then the hub's.
pub const SUBJECTS: &[Subject] = &[
    subject!("parse-request": "the head of a request is found and read",
        2 and 200 steps of requests::ParseHead::new),
    subject!("packet-parse": "a request packet is read",
        2 and 200 steps of packets::Parse::new),
    subject!("packet-write": "a request packet is written",
        2 and 200 steps of packets::Write::new),
    subject!("exchange": "a request goes to a handler, and its answer to the client",
        20 and 200 steps of requests::Exchange::new),
    subject!("packet": "a packet of a handler brings its client 125 bytes of an answer",
        20 and 200 steps of requests::Piece::new),
    subject!("accept": "a client connects, is held on a channel of its own, and leaves",
        600 and 200 steps of subscribers::Life::new),
    subject!("fan-out": "an event goes to 1,000 event streams of one channel",
        2 and 10 steps of subscribers::FanOut::new),
    subject!("fan-out-websocket": "an event goes to 1,000 WebSockets of one channel",
        2 and 10 steps of subscribers::FanOut::of_websockets),
    subject!("fan-out-own": "1,000 event streams get an event each, of a channel of their own",
        2 and 4 steps of subscribers::FanOut::of_own_channels),
    subject!("timer": "1,000 held connections get their keep-alive",
        2 and 10 steps of subscribers::KeepAlives::new),
    subject!("merge": "a range of 100 events goes to 100 members, each of which stands elsewhere in it",
        2 and 10 steps of merge::Merge::new),
    subject!("hub-request": "a request goes through the hub, and its answer back",
        20 and 200 steps of hub::Requests::new),
    subject!("hub-event": "an event goes through the hub to two workers",
        1_000 and 200 steps of hub::Fed::new),
    subject!("hub-range": "a range of 100 events is answered by the hub from its tail",
        2 and 50 steps of hub::Ranges::new),
];
