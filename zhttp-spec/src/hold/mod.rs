//! The packets of the hold extension (`zhttp-spec/hold.md`): what they carry, read and written.
//!
//! One file for each part of a hold's life:
//!
//! * `params` – taking the hold: [`HoldParams`], in `ext.hold` of a response;
//! * `session` – what is said about a held connection later: [`Change`], [`Send`], [`Closed`];
//! * `message` – what its client says: [`Message`];
//! * `presence` – which handlers are there and what they do: [`Hello`];
//! * `feed` – which channels a handler feeds and where they end: [`Feed`], [`Unfeed`], [`Heads`];
//! * `events` – the events themselves, asked for and sent: [`Range`], [`Events`], [`Gap`];
//! * `gap_event` – what a client is told of a gap: [`gap_event`].
//!
//! Each type is a view into a [`Packet`](crate::Packet), checked as a whole when it is read: what
//! it says afterwards, its lists among it, comes without errors and without allocation. The price
//! is that a list is walked twice, once to check and once to use; the walk is a fraction of what
//! the edge then does with each entry. Writers take what an edge or a feeder has at hand: the
//! fields of the view, and its lists as slices or iterators, so that nobody builds a packet in
//! order to send it.
//!
//! Which packet is right at which moment is not decided here: that is for the machines of the edge
//! and of the handlers.

mod channels;
mod events;
mod feed;
mod gap_event;
mod message;
mod params;
mod presence;
mod read;
mod session;

pub use channels::{CHANNEL_BYTES_MAX, CHANNELS_PER_HOLD_MAX, Channels, HoldChannel, Names};
pub use events::{EVENT_KIND_DEFAULT, Event, EventList, Events, Gap, GapReason, Range};
pub use feed::{Feed, Heads, Unfeed};
pub use gap_event::{derived_uuid, gap_event};
pub use message::{Message, Said};
pub use params::{
    CONTEXT_BYTES_MAX, Format, HOLD_VERSION, HoldParams, MESSAGES_PATH_BYTES_MAX, is_close_code,
};
pub use presence::{Hello, Serves};
pub use session::{
    BODIES_BYTES_MAX, BODIES_MAX, Change, ChangeLists, Closed, SEND_KIND_DEFAULT, Send, Texts,
};

use crate::packet::Kind;
use crate::write::{Envelope, Fields};

/// Writes a packet of the extension that is about no session.
pub fn write_packet(
    out: &mut Vec<u8>,
    from: &[u8],
    kind: Kind,
    payload: impl FnOnce(&mut Fields<'_, '_>),
) {
    Envelope::new(from, kind).write(out, payload);
}
