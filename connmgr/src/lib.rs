//! The edge: it owns the clients' sockets and speaks ZHTTP over ZeroMQ to handlers.
//!
//! This is the shell around the machines of `forebay-core`: threads, sockets, the command line and
//! the log. It moves bytes and decides nothing.

#![deny(unsafe_code)]

pub mod bus;
mod clock;
pub mod config;
pub mod debug_socket;
mod edge;
mod hub;
pub mod listener;
pub mod log;
mod memory;
pub mod metrics;
mod observe;
mod queue;
mod run;
mod sockets;
mod stalled;
mod tls;
mod worker;

pub use edge::{Edge, StartError};
pub use observe::ObserveError;
pub use run::run;
pub use tls::{IdentityError, TlsError};
