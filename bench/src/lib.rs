//! What Forebay is measured against, beside the other servers that Debian has.
//!
//! * [`bare`]: servers that do as little as a server can. One thread waits in epoll, reads, and writes bytes that were made
//!   before. What they cost is what the kernel costs, so they are the limit, and never a competitor.
//! * [`peer`]: a ZHTTP handler on libzmq, for Condure and for Forebay alike, which costs two to four microseconds a request. In
//!   a measurement of an edge it must not be what is measured.
//!
//! Both are programs (`bare`, `peer-handler`); `scripts/bench` starts them on free ports, and learns the port from the line
//! `listening on ADDRESS` that they print when they are ready.

pub mod bare;
mod error;
pub mod peer;
mod request;

pub use error::BenchError;
