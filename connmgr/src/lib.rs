//! The edge: it owns the clients' sockets and speaks ZHTTP over ZeroMQ to handlers.
//!
//! This is the shell around the machines of `forebay-core`: threads, sockets, the command line and
//! the log. It moves bytes and decides nothing.

#![forbid(unsafe_code)]

pub mod bus;
mod clock;
pub mod config;
mod edge;
mod hub;
pub mod listener;
pub mod log;
mod queue;
mod run;
mod sockets;
mod worker;

pub use edge::{Edge, StartError};
pub use run::run;
