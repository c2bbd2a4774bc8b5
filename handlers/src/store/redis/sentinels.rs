//! Asking Sentinels where the master is.
//!
//! All of them are asked at once. What more than half of all say is certain ([`Located::is_sure`]), and then nobody is
//! waited for: one alone may be cut off from the others, with us and the old master, and name it for ever. If so many
//! don't answer within [`SENTINEL_TIMEOUT`], what most of those say who do is good enough to read there, and not to write.
//! If no address has more than half of the answers, as between two Sentinels in the moment of a failover, the master is
//! not known until they agree.
//!
//! They are asked twice a second by each process, so the connections to them are kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisResult};
use tokio::sync::mpsc;

use super::address::Watched;
use super::dial::failure;
use crate::store::StoreError;

/// How long one Sentinel may take to answer, and to be connected to before, if it must be.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(400);

/// A master that has a name, and no fixed place, and those who know it.
pub(super) struct Sentinels {
    all: Vec<Arc<Sentinel>>,
    /// The master's name.
    master: Arc<str>,
    /// How to connect to it, but for its host and port.
    settings: ConnectionInfo,
}

/// Where a master is.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) info: ConnectionInfo,
    /// More than half of all Sentinels say so; or none has to.
    pub(super) is_sure: bool,
}

struct Sentinel {
    info: ConnectionInfo,
    /// A connection to it that nobody uses now.
    idle: Mutex<Option<MultiplexedConnection>>,
}

impl Sentinels {
    pub(super) fn new(watched: Watched) -> Self {
        let Watched { sentinels, master, settings } = watched;
        let new = |info| Arc::new(Sentinel { info, idle: Mutex::new(None) });
        let all = sentinels.into_iter().map(new).collect();
        Sentinels { all, master: master.into(), settings }
    }

    /// Where the master is now.
    ///
    /// # Errors
    ///
    /// If no Sentinel knows it in time, or they don't agree.
    pub(super) async fn locate(&self) -> Result<Located, StoreError> {
        let (answers, mut coming) = mpsc::channel(self.all.len());
        for sentinel in &self.all {
            let (sentinel, answers) = (Arc::clone(sentinel), answers.clone());
            let master = Arc::clone(&self.master);
            // Who is not waited for comes to an end by itself, and so keeps its connection.
            tokio::spawn(async move {
                let answer = tokio::time::timeout(SENTINEL_TIMEOUT, sentinel.ask(&master)).await;
                let silent = || Err(unavailable("a Sentinel does not answer in time"));
                let _ = answers.send(answer.unwrap_or_else(|_| silent())).await;
            });
        }
        drop(answers);
        let mut named = Vec::with_capacity(self.all.len());
        let mut why = unavailable("no Sentinel was asked");
        while let Some(answer) = coming.recv().await {
            match answer {
                Ok(address) => named.push(address),
                Err(error) => why = error,
            }
            if let Some(address) = majority(&named, self.all.len()) {
                let info = self.settings.clone().set_addr(address.clone());
                return Ok(Located { info, is_sure: true });
            }
        }
        match majority(&named, named.len()) {
            Some(address) => {
                let info = self.settings.clone().set_addr(address.clone());
                Ok(Located { info, is_sure: false })
            }
            None if named.is_empty() => Err(why),
            None => Err(unavailable("the Sentinels name different masters")),
        }
    }
}

/// The address that more than half of so many have named.
fn majority(named: &[ConnectionAddr], of: usize) -> Option<&ConnectionAddr> {
    let votes = |address| named.iter().filter(|other| *other == address).count();
    named.iter().find(|address| 2 * votes(*address) > of)
}

impl Sentinel {
    /// What it says where the master is.
    async fn ask(&self, master: &str) -> Result<ConnectionAddr, StoreError> {
        // Taken, so that one that turns out to be dead, or is given up, is not asked again.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let answer = match idle {
            Some(connection) => question(connection, master).await.ok(),
            None => None,
        };
        let (connection, known) = match answer {
            Some(answer) => answer,
            None => {
                question(self.connect().await.map_err(failure)?, master).await.map_err(failure)?
            }
        };
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        let unknown = || unavailable(&format!("a Sentinel does not know a master {master:?}"));
        known.map(|(host, port)| ConnectionAddr::Tcp(host, port)).ok_or_else(unknown)
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(SENTINEL_TIMEOUT))
            .set_response_timeout(Some(SENTINEL_TIMEOUT));
        let client = Client::open(self.info.clone())?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

async fn question(
    mut connection: MultiplexedConnection,
    master: &str,
) -> RedisResult<(MultiplexedConnection, Option<(String, u16)>)> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let known = question.query_async(&mut connection).await?;
    Ok((connection, known))
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_must_agree() {
        let address = |port| ConnectionAddr::Tcp("host".to_owned(), port);
        let most = |ports: &[u16], of| {
            let named: Vec<_> = ports.iter().map(|port| address(*port)).collect();
            majority(&named, of).cloned()
        };
        assert_eq!(most(&[], 0), None);
        assert_eq!(most(&[1], 1), Some(address(1)));
        assert_eq!(most(&[1, 2], 2), None);
        assert_eq!(most(&[1], 3), None);
        assert_eq!(most(&[2, 1, 1], 3), Some(address(1)));
        assert_eq!(most(&[1, 2, 3], 3), None);
        assert_eq!(most(&[1, 1, 2, 2], 4), None);
        assert_eq!(most(&[1, 2, 2], 4), None);
    }
}
