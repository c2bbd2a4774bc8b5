//! Reading heads for many who ask at once.
//!
//! Each subscriber that connects, and each channel that an edge wants to be fed, needs a head. After
//! a restart they come by the thousand, many for the same channel. So those that ask while a read
//! is underway are put together, each channel once, and read in one pipelined call: the busier it
//! is, the larger the batches, and nobody waits when it is not.
//!
//! Nobody joins a read that is underway already, and nothing is cached: what a reader gets was read
//! after it asked. That is what the callers rely on: a feeder follows first and reads then, and one
//! who wants what comes "from now on" must not get what was published before.

use std::collections::HashMap;

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::store::{ChannelName, Head, Store, StoreError};

/// Channels that are read in one call, unless a single caller asks for more.
const BATCH_CHANNELS_MAX: usize = 1000;

/// Reads that are underway at once. More than one, so that a store that does not answer to one
/// doesn't keep all others waiting for as long; few, so that they become batches.
const READS_MAX: usize = 4;

/// Callers that wait for a read. At the limit further ones wait to be let in.
const CALLERS_MAX: usize = 4096;

type Answer = Result<Vec<Head>, StoreError>;

/// Who asks for what.
struct Call {
    channels: Vec<ChannelName>,
    answer: oneshot::Sender<Answer>,
}

/// Reads heads; a clone asks the same task. It ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct HeadsReader {
    calls: mpsc::Sender<Call>,
}

impl HeadsReader {
    /// Must be called within a tokio runtime.
    pub(crate) fn new<S: Store>(store: S) -> Self {
        let (calls, waiting) = mpsc::channel(CALLERS_MAX);
        tokio::spawn(serve(store, waiting));
        HeadsReader { calls }
    }

    /// Returns when the task has ended, which is a bug.
    pub(super) async fn ended(&self) {
        self.calls.closed().await;
    }

    /// The heads of these channels, in their order, read after this was called.
    pub(crate) async fn read(&self, channels: Vec<ChannelName>) -> Answer {
        let closed = || StoreError::Unavailable("the reader of heads is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { channels, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn serve<S: Store>(store: S, mut waiting: mpsc::Receiver<Call>) {
    let reads = Arc::new(Semaphore::new(READS_MAX));
    loop {
        // First the permit: while all reads are underway the callers gather.
        let permit = Arc::clone(&reads).acquire_owned().await;
        let Some(first) = waiting.recv().await else { return };
        let mut channels = first.channels.len();
        let mut calls = vec![first];
        while channels < BATCH_CHANNELS_MAX
            && let Ok(call) = waiting.try_recv()
        {
            channels += call.channels.len();
            calls.push(call);
        }
        let store = store.clone();
        tokio::spawn(async move {
            read(&store, calls).await;
            drop(permit);
        });
    }
}

/// Reads what all of these want, and answers each.
async fn read<S: Store>(store: &S, calls: Vec<Call>) {
    let mut places = HashMap::new();
    let mut wanted = Vec::new();
    for channel in calls.iter().flat_map(|call| &call.channels) {
        places.entry(channel.clone()).or_insert_with(|| {
            wanted.push(channel.clone());
            wanted.len() - 1
        });
    }
    let heads = store.heads(&wanted).await;
    for Call { channels, answer } in calls {
        let part = |heads: &Vec<Head>| channels.iter().map(|name| heads[places[name]]).collect();
        // Who asked may have left.
        let _ = answer.send(heads.as_ref().map(part).map_err(StoreError::clone));
    }
}
