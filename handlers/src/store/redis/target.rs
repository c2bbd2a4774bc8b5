//! Which server to connect to: always the same, or the one that Sentinels name.
//!
//! Sentinels are asked before each connection, again once it is made ([`Target::confirm`]: making one
//! may take seconds, in which a master is replaced), and while one is up every
//! [`MASTER_CHECK_INTERVAL`](super::standing::MASTER_CHECK_INTERVAL) (`link`): a master that is cut
//! off from its Sentinels, or was stopped for a while, goes on taking writes that will be lost, and
//! neither it nor the connection says so.

use std::sync::Arc;

use redis::ConnectionInfo;
use tokio::time::Instant;

use super::address::Watched;
use super::sentinels::{Located, Sentinels};
use super::standing::Standing;
use crate::store::StoreError;

/// Which server to connect to.
#[derive(Clone)]
pub(super) enum Target {
    /// Always this one.
    Fixed(ConnectionInfo),
    /// The one that Sentinels name.
    Master(Arc<Sentinels>),
}

impl Target {
    /// The master that these Sentinels watch over.
    pub(super) fn watched(watched: Watched) -> Self {
        Target::Master(Arc::new(Sentinels::new(watched)))
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
    /// If it is not known: Sentinels are silent, or don't agree.
    pub(super) async fn locate(&self) -> Result<Located, StoreError> {
        match self {
            Target::Fixed(info) => Ok(Located { info: info.clone(), is_sure: true }),
            Target::Master(sentinels) => sentinels.locate().await,
        }
    }

    /// Whether the server that was connected to is the one still.
    ///
    /// # Errors
    ///
    /// If it is not, or that is not known.
    pub(super) async fn confirm(&self, info: &ConnectionInfo) -> Result<Standing, StoreError> {
        if !self.may_change() {
            return Ok(Standing::Fixed);
        }
        let asked = Instant::now();
        let now = self.locate().await?;
        if now.info.addr() == info.addr() {
            let standing = if now.is_sure { Standing::confirmed } else { Standing::unconfirmed };
            return Ok(standing(asked));
        }
        let why = format!("Redis: {} is not the master any more", info.addr());
        Err(StoreError::Unavailable(why))
    }
}
