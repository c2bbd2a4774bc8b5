//! Forebay's load generator: what `forebay load` does.
//!
//! | command | what it measures | made of |
//! | --- | --- | --- |
//! | [`idle`] | what a connection costs that is held | `holder` |
//! | [`fan`] | how fast events reach many subscribers | `holder` and `caller` |
//! | [`publish`] | how fast events are taken | `caller` |
//! | [`requests`] | how fast requests are answered | `caller` |
//!
//! `holder` opens connections and listens to them, up to a million in one process; `caller` sends requests and awaits the
//! answers. Both are plain threads with an edge-triggered poll, as few system calls as the work needs, and no allocation for
//! each event: a generator that is slower than the server measures itself. That cannot be promised for every machine, so each
//! report says how busy the busiest thread was, and warns when it may have been the limit (`usage`).
//!
//! Nothing here knows Forebay: the commands take paths, headers and bodies, so that other servers are measured in the same
//! way. What Forebay's channels need is filled in by the command line in the `forebay` crate.
//!
//! TLS is not spoken: it would be the client's cryptography that is measured.

#![forbid(unsafe_code)]

mod caller;
mod clock;
mod console;
mod error;
pub mod fan;
mod histogram;
mod holder;
pub mod idle;
mod measure;
mod options;
pub mod publish;
mod report;
pub mod requests;
mod sources;
mod usage;
mod wire;

pub use error::LoadError;
pub use options::CommonOptions;
pub use wire::request::{Header, Target, parse_header, parse_path, parse_target};
