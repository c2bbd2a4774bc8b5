//! Which server to connect to: always the same, or the one that Sentinels name.
//!
//! Sentinels are asked before each connection, and while one is up every [`MASTER_CHECK_INTERVAL`]
//! (`link`): a master that is cut off from its Sentinels goes on taking writes that will be lost, and
//! neither it nor the connection says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo};

use super::address::Watched;
use super::dial::failure;
use crate::store::StoreError;

/// How often Sentinels are asked whether the master is still the same.
pub(super) const MASTER_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How long one Sentinel may take to answer, and to be connected to, before the next one is asked.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// Which server to connect to.
#[derive(Clone)]
pub(super) enum Target {
    /// Always this one.
    Fixed(ConnectionInfo),
    /// The one that Sentinels name.
    Master(Arc<Master>),
}

/// A master that has a name, and no fixed place.
pub(super) struct Master {
    watched: Watched,
    /// The Sentinel that answered last; it is asked first.
    good: AtomicUsize,
}

impl Target {
    /// The master that these Sentinels watch over.
    pub(super) fn watched(watched: Watched) -> Self {
        Target::Master(Arc::new(Master { watched, good: AtomicUsize::new(0) }))
    }

    /// Whether it may be another one later.
    pub(super) fn may_change(&self) -> bool {
        match self {
            Target::Fixed(_) => false,
            Target::Master(_) => true,
        }
    }

    /// Where it is now.
    ///
    /// # Errors
    ///
    /// If no Sentinel knows.
    pub(super) async fn locate(&self) -> Result<ConnectionInfo, StoreError> {
        match self {
            Target::Fixed(info) => Ok(info.clone()),
            Target::Master(master) => master.locate().await,
        }
    }
}

impl Master {
    /// Asks one Sentinel after the other.
    async fn locate(&self) -> Result<ConnectionInfo, StoreError> {
        let Watched { sentinels, master, settings } = &self.watched;
        let first = self.good.load(Ordering::Relaxed);
        let mut why = StoreError::Unavailable("no Sentinel was asked".to_owned());
        for place in (first..first + sentinels.len()).map(|place| place % sentinels.len()) {
            match ask(&sentinels[place], master).await {
                Ok(address) => {
                    self.good.store(place, Ordering::Relaxed);
                    return Ok(settings.clone().set_addr(address));
                }
                Err(error) => why = error,
            }
        }
        Err(why)
    }
}

/// What a Sentinel says where the master is.
async fn ask(sentinel: &ConnectionInfo, master: &str) -> Result<ConnectionAddr, StoreError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SENTINEL_TIMEOUT))
        .set_response_timeout(Some(SENTINEL_TIMEOUT));
    let client = Client::open(sentinel.clone()).map_err(failure)?;
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(failure)?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let known: Option<(String, u16)> =
        question.query_async(&mut connection).await.map_err(failure)?;
    let unknown = || StoreError::Unavailable(format!("no Sentinel knows a master {master:?}"));
    known.map(|(host, port)| ConnectionAddr::Tcp(host, port)).ok_or_else(unknown)
}
