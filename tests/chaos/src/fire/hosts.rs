//! Where processes run: on this host, or on two of their own with a wire in between.
//!
//! With [`Hosts::two`] the edge is on one host and the handlers and the store on the other: two network namespaces, each with a
//! TUN device of its own, and nothing else that leads out. What one device sends is handed to the other by a task of ours
//! (`wire`), which is the wire: many kernels have no netem, and this one can be told by a seed what to lose. Clients and
//! the checker reach into the namespaces by Unix sockets, which are files. It takes root.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_tun::Tun;

use super::wire::Wire;
use crate::process::Process;

/// The address of the host of the edge on the wire, and of the other one.
pub(crate) const EDGE_ADDRESS: &str = "10.77.0.1";
const HANDLERS_ADDRESS: &str = "10.77.0.2";

/// So that two runs in one process get names of their own.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// A place for processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// The network namespace; `None` is ours.
    namespace: Option<String>,
}

impl Host {
    /// A process that does not run yet. In a namespace it is started by ip(8), which becomes it.
    pub(crate) fn process(&self, name: &'static str, program: &Path, dir: &Path) -> Process {
        match &self.namespace {
            None => Process::new(name, program, dir),
            Some(namespace) => Process::new(name, Path::new("ip"), dir)
                .args(["netns", "exec", namespace])
                .args([program]),
        }
    }
}

/// The hosts of a run.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    /// Of the edge.
    pub(crate) edge: Host,
    /// Of the handlers and the store.
    pub(crate) handlers: Host,
    /// Between them.
    pub(crate) wire: Option<Wire>,
    namespaces: Vec<Namespace>,
}

impl Hosts {
    /// Two hosts with a wire between them, whose chance this seed decides.
    ///
    /// # Errors
    ///
    /// It is not permitted, or ip(8) is missing.
    pub(crate) fn two(seed: u64) -> io::Result<Self> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = |side: char| format!("fb{}n{run}{side}", std::process::id());
        let (edge, edge_tun) = Namespace::make(name('a'), EDGE_ADDRESS)?;
        let (handlers, handlers_tun) = Namespace::make(name('b'), HANDLERS_ADDRESS)?;
        Ok(Hosts {
            edge: Host { namespace: Some(edge.0.clone()) },
            handlers: Host { namespace: Some(handlers.0.clone()) },
            wire: Some(Wire::start(edge_tun, handlers_tun, seed)),
            namespaces: vec![edge, handlers],
        })
    }

    /// Whether there are two.
    pub(crate) fn are_two(&self) -> bool {
        !self.namespaces.is_empty()
    }
}

/// A network namespace, which goes with the value.
#[derive(Debug)]
struct Namespace(String);

impl Namespace {
    /// Makes one, with a device of this address in it. Device and namespace have the same name.
    fn make(name: String, address: &str) -> io::Result<(Self, Tun)> {
        ip(&["netns", "add", &name])?;
        let namespace = Namespace(name);
        let name = namespace.0.as_str();
        let tun = Tun::builder().name(name).build().map_err(io::Error::other)?;
        let tun = tun.into_iter().next().ok_or_else(|| io::Error::other("no device"))?;
        ip(&["link", "set", name, "netns", name])?;
        ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", name, "up"])?;
        Ok((namespace, tun))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What cannot be removed is left to who looks after the machine.
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {}: {said}", arguments.join(" "))))
}
