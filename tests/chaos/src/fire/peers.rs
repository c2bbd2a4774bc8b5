//! Peers at the edge's sockets that do not do their part, in Python: nothing of ours is in them.

use std::path::{Path, PathBuf};

use super::hosts::Host;
use super::plan::Kind;
use crate::process::Process;

/// The encoding of packets, and the peer.
const SCRIPT: &str =
    concat!(include_str!("../../../../examples/python/tnet.py"), "\n", include_str!("peer.py"));

/// Makes peers.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// A Python that has pyzmq.
    pub(crate) python: PathBuf,
    /// Where they run.
    pub(crate) host: Host,
    /// The edge's base spec.
    pub(crate) spec: String,
}

impl Peers {
    /// One that does not run yet; `None` for faults that are not of peers.
    pub(crate) fn peer(&self, kind: Kind, dir: &Path) -> Option<Process> {
        let mode = match kind {
            Kind::PeerSilent => "silent",
            Kind::PeerStopped => "hello",
            Kind::PeerHalfOpen => "half",
            Kind::HandlerKill
            | Kind::HandlerTerm
            | Kind::HandlerStop
            | Kind::EdgeKill
            | Kind::EdgeTerm
            | Kind::EdgeStop
            | Kind::StoreKill
            | Kind::StoreTerm
            | Kind::StoreStop
            | Kind::SentinelKill
            | Kind::WireLoss
            | Kind::WireDelay
            | Kind::WirePartition
            | Kind::DiskFull => return None,
        };
        let process = self.host.process("peer", &self.python, dir);
        Some(process.args(["-c", SCRIPT, mode, self.spec.as_str()]))
    }
}
