//! The public WebSocket: one socket for many channels, to read and to publish (`docs/channels.md`,
//! "WebSocket").
//!
//! The edge holds the socket, and gives what its client says to whichever handler is there
//! (`zhttp-spec/hold.md` §4.1). So a socket belongs to no process: all that there is to know of it, but
//! which channels it reads, is in the context of its hold ([`context`]), which comes with each message
//! and goes back changed.
//!
//! | file | what it does |
//! | --- | --- |
//! | `handshake` | a request becomes a held socket |
//! | `context` | what a socket may do, as its context |
//! | `tokens` | a token becomes a part of that |
//! | `requests` | what a client may say, read and checked |
//! | `batch` | what came at once is done in order, and becomes one change of the hold |
//! | `answers` | what a client hears; the codes of errors |
//!
//! The work itself is done elsewhere, by what serves HTTP too: [`Placer`] says where a reader begins,
//! [`Pages`] reads history, [`Publisher`] publishes.
//!
//! # Twice
//!
//! What a client said may come to two handlers, or to one after another had done half of it. Reading
//! twice is harmless. A message that is published has an id, its own or one that follows from the
//! socket, the number of the packet and the place in it, and so is stored once, with the same answer.

mod answers;
mod batch;
mod context;
mod handshake;
mod requests;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::batch::Batch;
use self::context::Standing;
pub(crate) use self::tokens::Tokens;
use crate::attach::{Answer, ClientMessages};
use crate::fanout::{Pages, Placer};
use crate::publish::Publisher;
use crate::store::Store;

/// Where the route begins, and the path at which what clients say is heard.
pub(crate) const PREFIX: &str = "/ws/";

/// How long what came at once may ask the store for something. What is left then is answered as if
/// the store was away: an edge closes a socket that has waited for a minute.
const BATCH_TIME_MAX: Duration = Duration::from_secs(20);

/// Closes a socket whose context is of another version of this program: its client connects again.
const CLOSE_RESTART: u16 = 1012;

/// Answers those who want a WebSocket, and then what they say.
pub(crate) struct Sockets<S> {
    pub(crate) tokens: Tokens,
    pub(crate) placer: Placer<S>,
    pub(crate) pages: Pages<S>,
    /// `None`: nothing can be published.
    pub(crate) publisher: Option<Arc<Publisher<S>>>,
}

impl<S: Store> Sockets<S> {
    /// Does what a client said, at `now_ms`, in milliseconds since 1970.
    pub(crate) async fn message(&self, said: &ClientMessages, now_ms: u64) -> Answer {
        match Standing::decode(&said.context) {
            Some(Standing::Open(socket)) => {
                let until = Instant::now() + BATCH_TIME_MAX;
                Batch::new(self, *socket, said, (now_ms, until)).run().await
            }
            // It says something before it is closed all the same.
            Some(Standing::Refused { code }) => Answer::close(code, ""),
            None => {
                tracing::warn!("a socket has a context that this version does not know");
                Answer::close(CLOSE_RESTART, "")
            }
        }
    }
}

#[cfg(test)]
mod tests;
