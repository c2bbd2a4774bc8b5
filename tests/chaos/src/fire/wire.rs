//! The wire between two hosts: takes each packet from one device and gives it to the other, if the weather is good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tun::Tun;

use super::random::Random;

/// Bytes of a packet: what a device takes by default, and some more.
const PACKET_BYTES_MAX: usize = 2048;

/// Packets that are late at a time, in each direction; more are lost, as in any queue of a router.
const LATE_PACKETS_MAX: usize = 10_000;

/// What the wire does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// So many of a thousand are lost.
    pub(crate) loss_per_mille: u64,
    /// Each is late by a time between these, drawn for itself: so they overtake each other.
    pub(crate) delay_ms: (u64, u64),
}

impl Weather {
    /// Nothing comes through.
    pub(crate) const PARTITION: Weather = Weather { loss_per_mille: 1000, delay_ms: (0, 0) };
}

/// A wire. It is cut when this is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    weather: watch::Sender<Weather>,
    lost: Arc<AtomicU64>,
    tasks: [JoinHandle<()>; 2],
}

impl Wire {
    /// Lays it between two devices.
    pub(crate) fn start(one: Tun, other: Tun, seed: u64) -> Self {
        let (weather, now) = watch::channel(Weather::default());
        let lost = Arc::new(AtomicU64::new(0));
        let ends = [Arc::new(one), Arc::new(other)];
        let carry = |from: usize, seed: u64| {
            let (from, to) = (Arc::clone(&ends[from]), Arc::clone(&ends[1 - from]));
            let direction = Direction {
                from,
                to,
                weather: now.clone(),
                lost: Arc::clone(&lost),
                late: Arc::new(tokio::sync::Semaphore::new(LATE_PACKETS_MAX)),
                random: Random::new(seed),
            };
            tokio::spawn(direction.carry())
        };
        let tasks = [carry(0, seed), carry(1, !seed)];
        Wire { weather, lost, tasks }
    }

    /// Changes the weather.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Packets that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Direction {
    from: Arc<Tun>,
    to: Arc<Tun>,
    weather: watch::Receiver<Weather>,
    lost: Arc<AtomicU64>,
    late: Arc<tokio::sync::Semaphore>,
    random: Random,
}

impl Direction {
    async fn carry(mut self) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        // A device fails for good only when its namespace is gone.
        while let Ok(len) = self.from.recv(&mut buffer).await {
            let weather = *self.weather.borrow();
            if self.random.chance(weather.loss_per_mille) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (min_ms, max_ms) = weather.delay_ms;
            if max_ms == 0 {
                // What the device does not take is lost, as on any wire.
                let _ = self.to.send(&buffer[..len]).await;
                continue;
            }
            let Ok(permit) = Arc::clone(&self.late).try_acquire_owned() else {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let delay: Duration = self.random.time(min_ms, max_ms);
            let (to, packet) = (Arc::clone(&self.to), buffer[..len].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = to.send(&packet).await;
                drop(permit);
            });
        }
    }
}
