//! The contract of the bus: what any ZeroMQ library under it has to do. An upgrade, or another
//! library, is judged by it.
//!
//! The peers are libzmq's (pyzmq in processes of their own, see `peers/`), so that they can be
//! stopped and killed as handlers are; and raw sockets that speak ZMTP 3.1 byte by byte, for what
//! no well-behaved library would send. Each row of the table in the design of the bus that another
//! library failed is a test here.
//!
//! Nothing here waits for time to pass: tests wait for events, and `PATIENCE` only turns a hang
//! into a failure.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod peers;

#[path = "bus/hostile.rs"]
mod hostile;
#[path = "bus/lifecycle.rs"]
mod lifecycle;
#[path = "bus/pushing.rs"]
mod pushing;
#[path = "bus/receiving.rs"]
mod receiving;
#[path = "bus/requesting.rs"]
mod requesting;
#[path = "bus/routing.rs"]
mod routing;
#[path = "bus/zmtp.rs"]
mod zmtp;

use bytes::Bytes;
use forebay_connmgr::bus::{Bus, BusConfig, Inbound, Refused, SENDS_PER_FLUSH, Spec};
use serde_json::{Value, json};
use tempfile::TempDir;

use peers::{Peer, within};

/// A bus named `edge`, on `ipc` in a directory of its own.
struct Edge {
    bus: Bus,
    dir: TempDir,
    /// The peers of group 0, as they were last told.
    pullers: usize,
}

fn config(groups: &[&[&str]]) -> BusConfig {
    let specs = |group: &&[&str]| group.iter().map(|spec| spec.parse().unwrap()).collect();
    BusConfig {
        groups: groups.iter().map(specs).collect(),
        req: Vec::new(),
        connect: false,
        ipc_file_mode: None,
        instance_id: "edge".to_owned(),
    }
}

/// The base spec `name` in a directory.
fn spec_in(dir: &TempDir, name: &str) -> Spec {
    format!("ipc://{}/{name}", dir.path().display()).parse().unwrap()
}

impl Edge {
    fn of(bus: Bus, dir: TempDir) -> Edge {
        Edge { bus, dir, pullers: 0 }
    }

    async fn open() -> Edge {
        let dir = tempfile::tempdir().unwrap();
        let bus = Bus::open(config(&[&[spec_in(&dir, "bus").base()]])).await.unwrap();
        Edge::of(bus, dir)
    }

    fn spec(&self) -> Spec {
        spec_in(&self.dir, "bus")
    }

    async fn recv(&mut self) -> Inbound {
        let event = within(self.bus.recv()).await;
        if let Inbound::PushPeers { group: 0, count } = event {
            self.pullers = count;
        }
        event
    }

    /// Awaits an event, passing over all others.
    async fn until(&mut self, wanted: impl Fn(&Inbound) -> bool) -> Inbound {
        loop {
            let event = self.recv().await;
            if wanted(&event) {
                return event;
            }
        }
    }

    async fn until_joined(&mut self, name: &str) {
        self.until(|event| matches!(event, Inbound::PeerJoined { peer } if peer == name)).await;
    }

    async fn until_lost(&mut self, name: &str) {
        self.until(|event| matches!(event, Inbound::PeerLost { peer } if peer == name)).await;
    }

    async fn until_pullers(&mut self, wanted: usize) {
        while self.pullers != wanted {
            self.until(|event| matches!(event, Inbound::PushPeers { group: 0, .. })).await;
        }
    }

    /// The next packet, which must come from `peer`.
    async fn packet_from(&mut self, peer: &str) -> Bytes {
        match self.until(|event| matches!(event, Inbound::Routed { .. })).await {
            Inbound::Routed { peer: sender, packet } if sender == peer => packet,
            event => panic!("{event:?}"),
        }
    }

    /// Pushes a packet to group 0, waiting for room.
    async fn push(&mut self, packet: Bytes) {
        let mut packet = packet;
        while let Err(refused) = self.bus.try_push(0, packet) {
            assert!(matches!(refused, Refused::Full(_)), "{refused:?}");
            packet = refused.into_packet();
            self.until(|event| matches!(event, Inbound::PushReady { group: 0 })).await;
        }
    }

    /// Sends until there is no room, however often the sockets are turned. Returns how many were
    /// taken.
    async fn fill(&mut self, mut send: impl FnMut(&mut Bus) -> Result<(), Refused>) -> usize {
        let (mut taken, mut refused_in_a_row) = (0, 0);
        while refused_in_a_row < 100 {
            match send(&mut self.bus) {
                Ok(()) => (taken, refused_in_a_row) = (taken + 1, 0),
                Err(Refused::Full(_)) => refused_in_a_row += 1,
                Err(refused @ Refused::NoPeer(_)) => panic!("{refused:?}"),
            }
            if refused_in_a_row > 0 || taken % SENDS_PER_FLUSH == 0 {
                self.bus.flush().await;
            }
        }
        taken
    }

    /// A message there and back: this peer, and the bus, are in good health.
    async fn round_trip(&mut self, name: &str, peer: &mut Peer) {
        self.bus.try_route(name.as_bytes(), "T-ping".into()).unwrap();
        self.bus.flush().await;
        // The sockets must turn while the peer is waited for.
        let asked = peer.ask(json!({"do": "echo", "name": "s", "count": 1}));
        assert_eq!(asked.await["count"], 1);
        assert_eq!(self.packet_from(name).await, "T-ping");
    }
}

/// A DEALER that connects to an edge.
async fn dealer(spec: &Spec, identity: &str) -> Peer {
    Peer::with(json!({"type": "DEALER", "identity": identity, "connect": [spec.out_stream()]}))
        .await
}

/// A PULL that connects to an edge.
async fn puller(spec: &Spec) -> Peer {
    Peer::with(json!({"type": "PULL", "connect": [spec.out()]})).await
}

fn drain(count: usize) -> Value {
    json!({"do": "drain", "name": "s", "count": count})
}
