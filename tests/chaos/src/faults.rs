//! Carries out what a scenario breaks, when it says so.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::cluster::Cluster;
use crate::scenario::{Ended, Fault, Restart};
use crate::{ChaosError, PATIENCE};

/// What breaking things came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broken {
    /// Processes that were ended.
    pub(crate) ended: u64,
    /// The longest time that a handler took to end.
    pub(crate) slowest_exit: Duration,
    /// Processes that did not end as they should.
    pub(crate) violations: Vec<String>,
}

/// Carries out all faults, in their order, at their time after `since`; late if one takes longer.
/// Redis stays away at least until a publisher was told so, which `store_away` says.
pub(crate) async fn carry_out(
    cluster: &mut Cluster,
    faults: &[Fault],
    since: Instant,
    mut store_away: watch::Receiver<bool>,
) -> Result<Broken, ChaosError> {
    let mut broken = Broken::default();
    for fault in faults {
        sleep_until(since + fault.at).await;
        match fault.what {
            Restart::Handler { index, how } => {
                broken.end_handler(cluster, index, how).await?;
                cluster.handlers[index].start()?;
            }
            Restart::Handlers { how, down } => {
                for index in 0..cluster.handlers.len() {
                    broken.end_handler(cluster, index, how).await?;
                }
                sleep(down).await;
                for handler in &mut cluster.handlers {
                    handler.start()?;
                }
            }
            Restart::Store { down } => {
                broken.violations.extend(cluster.stop_store().await?);
                broken.ended += 1;
                sleep(down).await;
                if timeout(PATIENCE, store_away.wait_for(|is_told| *is_told)).await.is_err() {
                    broken.violations.push("nobody was told that the store is away".to_owned());
                }
                cluster.start_store().await?;
            }
        }
    }
    Ok(broken)
}

impl Broken {
    async fn end_handler(
        &mut self,
        cluster: &mut Cluster,
        index: usize,
        how: Ended,
    ) -> Result<(), ChaosError> {
        let began = Instant::now();
        self.violations.extend(cluster.handlers[index].end(how).await?);
        self.slowest_exit = self.slowest_exit.max(began.elapsed());
        self.ended += 1;
        Ok(())
    }
}
