//! All who read: event streams and WebSockets, each in a task of its own.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::Address;
use crate::record::{Reading, Words};
use crate::scenario::Pause;
use crate::socket::Credentials;
use crate::socket_subscriber::SocketSubscriber;
use crate::subscriber::{EdgeLives, Subscriber};
use crate::{ChaosError, PATIENCE, Phase};

/// What all of them know.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) token: Arc<str>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) edge: watch::Receiver<EdgeLives>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// It comes as a WebSocket, with its token in this place.
    pub(crate) socket: Option<Credentials>,
    pub(crate) address: Address,
    /// What it reads, as numbers of channels and their names.
    pub(crate) channels: Vec<(usize, String)>,
    /// When it does not read for a while.
    pub(crate) pauses: Vec<Pause>,
}

/// Tells that a client has got what it wants to read, or cannot get it: once, however often it comes back.
#[derive(Clone, Debug)]
pub(crate) struct Ready(Option<mpsc::UnboundedSender<()>>);

impl Ready {
    pub(crate) fn tell(&mut self) {
        if let Some(ready) = self.0.take() {
            // Nobody listens any more once clients were found not to be ready in time.
            let _ = ready.send(());
        }
    }
}

/// All of them, at work.
pub(crate) struct Clients(JoinSet<(usize, Vec<Reading>)>);

impl Clients {
    /// Starts all, and waits until each has what it wants to read, or cannot get it.
    pub(crate) async fn connect(
        common: &Common,
        clients: impl Iterator<Item = Client>,
    ) -> Result<Self, ChaosError> {
        let (ready, mut is_ready) = mpsc::unbounded_channel();
        let (mut tasks, words) = (JoinSet::new(), Words::default());
        for (number, client) in clients.enumerate() {
            let Client { socket, address, channels, pauses } = client;
            let Common { token, phase, edge } = common.clone();
            let (ready, words) = (Ready(Some(ready.clone())), words.clone());
            match socket {
                None => {
                    let subscriber =
                        Subscriber { address, token, channels, pauses, phase, edge, ready, words };
                    tasks.spawn(async move { (number, vec![subscriber.run().await]) });
                }
                Some(how) => {
                    let subscriber = SocketSubscriber {
                        address,
                        token,
                        how,
                        channels,
                        pauses,
                        phase,
                        edge,
                        ready,
                        words,
                    };
                    tasks.spawn(async move { (number, subscriber.run().await) });
                }
            }
        }
        let count = tasks.len();
        let all = async {
            for _ in 0..count {
                is_ready.recv().await;
            }
        };
        match timeout(PATIENCE, all).await {
            Ok(()) => Ok(Clients(tasks)),
            Err(_) => Err(ChaosError::NotReady("clients got no stream".to_owned())),
        }
    }

    /// Waits until each has read to its end. What each has read, in their order.
    pub(crate) async fn finish(&mut self) -> Vec<Reading> {
        let mut readings = Vec::new();
        while let Some(client) = self.0.join_next().await {
            readings.push(client.expect("a client does not panic"));
        }
        readings.sort_by_key(|(client, _)| *client);
        readings.into_iter().flat_map(|(_, readings)| readings).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_ready_once() {
        let (told, mut is_told) = mpsc::unbounded_channel();
        let mut ready = Ready(Some(told));
        ready.tell();
        ready.tell();
        assert_eq!(is_told.try_recv(), Ok(()));
        assert!(is_told.try_recv().is_err());
    }
}
