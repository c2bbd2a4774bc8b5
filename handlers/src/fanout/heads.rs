//! Reading heads for many who ask at once.
//!
//! Each subscriber that connects, and each channel that an edge wants to be fed, needs a head. After
//! a restart they come by the thousand, many for the same channel. So those that ask while a read
//! is underway are put together, each channel once, and read in one pipelined call: the busier it
//! is, the larger the batches, and nobody waits when it is not.
//!
//! That alone makes batches only when the store is slow. One that answers within a millisecond would
//! still be asked for the same channel by nearly each of its thousand readers. So a channel has a
//! [`Pace`]: some reads of it go at once, further ones [`PACE_INTERVAL`] apart, and all who want it
//! meanwhile get the same one. What a channel costs the store then depends on time, and not on how
//! many read it; other channels are not kept waiting.
//!
//! Nobody joins a read that is underway already, and nothing is cached: what a reader gets was read
//! after it asked. That is what the callers rely on: a feeder follows first and reads then, and one
//! who wants what comes "from now on" must not get what was published before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::store::{ChannelName, Head, Store, StoreError};

/// Reads of one channel that go at once if it was not read lately: a subscriber, the feed that it causes,
/// and a few who come with it.
const PACE_BURST: u32 = 4;

/// Time between further reads of that channel, and the longest time that a caller waits for its turn: a pause that
/// nobody notices. A crowd that comes within two seconds costs its channel at most 24 reads by each handler, however
/// large it is.
const PACE_INTERVAL: Duration = Duration::from_millis(100);

/// Paces that are remembered before those that are over are forgotten. About 150 bytes each.
const PACES_KEPT_MIN: usize = 1024;

/// Channels that are read in one call, unless a single caller asks for more.
const BATCH_CHANNELS_MAX: usize = 1000;

/// Reads that are underway at once. More than one, so that a store that does not answer to one
/// doesn't keep all others waiting for as long; few, so that they become batches.
const READS_MAX: usize = 4;

/// Callers that wait to be heard, and as many whose turn has not come. At the limit further ones wait to
/// be let in.
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
    let mut turns = Turns::default();
    loop {
        // First the permit: while all reads are underway the callers gather.
        let permit = Arc::clone(&reads).acquire_owned().await;
        let Some(calls) = next_batch(&mut waiting, &mut turns).await else { return };
        let store = store.clone();
        tokio::spawn(async move {
            read(&store, calls).await;
            drop(permit);
        });
    }
}

/// Waits for calls whose turn it is. None if there will be no more.
async fn next_batch(
    waiting: &mut mpsc::Receiver<Call>,
    turns: &mut Turns<Call>,
) -> Option<Vec<Call>> {
    let mut is_closed = false;
    loop {
        let now = Instant::now();
        while turns.len() < CALLERS_MAX
            && let Ok(call) = waiting.try_recv()
        {
            turns.add(now, call);
        }
        let calls = turns.take(now);
        if !calls.is_empty() {
            return Some(calls);
        }
        let next = turns.next();
        if is_closed && next.is_none() {
            return None;
        }
        tokio::select! {
            call = waiting.recv(), if !is_closed && turns.len() < CALLERS_MAX => match call {
                Some(call) => turns.add(Instant::now(), call),
                None => is_closed = true,
            },
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// Something that wants channels.
trait Wants {
    fn channels(&self) -> &[ChannelName];
}

impl Wants for Call {
    fn channels(&self) -> &[ChannelName] {
        &self.channels
    }
}

/// How often a channel was read lately, as the time until which its reads use up its pace: each adds
/// [`PACE_INTERVAL`] to it. (The generic cell rate algorithm, ITU-T I.371.)
#[derive(Clone, Copy, Debug)]
struct Pace {
    used_until: Instant,
}

impl Pace {
    /// When the channel may be read again.
    fn next(self) -> Instant {
        // A clock that has not run that long yet makes it wait a little longer.
        self.used_until.checked_sub(PACE_INTERVAL * (PACE_BURST - 1)).unwrap_or(self.used_until)
    }
}

/// Calls in the order in which they may be read.
#[derive(Debug)]
struct Turns<C> {
    calls: BTreeMap<(Instant, u64), C>,
    added: u64,
    paces: HashMap<ChannelName, Pace>,
    paces_kept_max: usize,
}

impl<C> Default for Turns<C> {
    fn default() -> Self {
        let (calls, paces) = (BTreeMap::new(), HashMap::new());
        Turns { calls, added: 0, paces, paces_kept_max: PACES_KEPT_MIN }
    }
}

impl<C: Wants> Turns<C> {
    fn len(&self) -> usize {
        self.calls.len()
    }

    /// A call waits until each of its channels may be read.
    fn add(&mut self, now: Instant, call: C) {
        let paces = call.channels().iter().filter_map(|channel| self.paces.get(channel));
        let turn = paces.map(|pace| pace.next()).fold(now, Instant::max);
        self.calls.insert((turn, self.added), call);
        self.added += 1;
    }

    /// When there is something to take.
    fn next(&self) -> Option<Instant> {
        self.calls.first_key_value().map(|((turn, _), _)| *turn)
    }

    /// The calls whose turn it is, as many as fit one read, which begins now.
    fn take(&mut self, now: Instant) -> Vec<C> {
        let mut calls: Vec<C> = Vec::new();
        let mut channels = HashSet::new();
        while channels.len() < BATCH_CHANNELS_MAX
            && let Some(first) = self.calls.first_entry()
            && first.key().0 <= now
        {
            let call = first.remove();
            channels.extend(call.channels().iter().cloned());
            calls.push(call);
        }
        for channel in channels {
            let pace = self.paces.entry(channel).or_insert(Pace { used_until: now });
            // No further than that: who reads it with others, which had to wait, does not make it wait longer.
            let used_until = pace.used_until.max(now) + PACE_INTERVAL;
            pace.used_until = used_until.min(now + PACE_INTERVAL * PACE_BURST);
        }
        if self.paces.len() > self.paces_kept_max {
            self.paces.retain(|_, pace| pace.used_until > now);
            self.paces_kept_max = PACES_KEPT_MIN.max(2 * self.paces.len());
        }
        calls
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    impl Wants for Vec<ChannelName> {
        fn channels(&self) -> &[ChannelName] {
            self
        }
    }

    fn room(name: &str) -> ChannelName {
        ChannelName::new("acme", name).unwrap()
    }

    #[test]
    fn a_channel_costs_the_same_however_many_want_it() {
        let start = Instant::now();
        let mut turns = Turns::default();
        let (mut reads, mut served) = (0, 0);
        // Ten callers each millisecond, for two seconds.
        for ms in 0..2000 {
            let now = start + Duration::from_millis(ms);
            (0..10).for_each(|_| turns.add(now, vec![room("a")]));
            let calls = turns.take(now);
            reads += u32::from(!calls.is_empty());
            served += calls.len();
            assert!(turns.next().is_none_or(|turn| turn <= now + PACE_INTERVAL));
        }
        assert_eq!(reads, PACE_BURST + 19);
        assert_eq!(served + turns.len(), 20_000);
        assert_eq!(turns.take(start + Duration::from_secs(3)).len(), 20_000 - served);
    }

    #[test]
    fn a_channel_waits_for_no_other() {
        let now = Instant::now();
        let mut turns = Turns::default();
        for _ in 0..PACE_BURST {
            turns.add(now, vec![room("a")]);
            assert_eq!(turns.take(now).len(), 1, "a few go at once");
        }
        turns.add(now, vec![room("a"), room("b")]);
        turns.add(now, vec![room("b")]);
        assert_eq!(turns.take(now), [[room("b")]], "who wants both waits for the slower one");
        assert_eq!(turns.next(), Some(now + PACE_INTERVAL));
        assert_eq!(turns.take(now + PACE_INTERVAL).len(), 1);
    }

    #[test]
    fn paces_that_are_over_are_forgotten() {
        let start = Instant::now();
        let mut turns = Turns::default();
        for number in 0..10 * PACES_KEPT_MIN {
            let now = start + PACE_INTERVAL * u32::try_from(number / 100).unwrap();
            turns.add(now, vec![room(&number.to_string())]);
            assert_eq!(turns.take(now).len(), 1);
            assert!(turns.paces.len() <= PACES_KEPT_MIN + 1);
        }
    }

    #[test]
    fn many_channels_are_read_in_pieces() {
        let now = Instant::now();
        let mut turns = Turns::default();
        for number in 0..BATCH_CHANNELS_MAX + 5 {
            let channel = room(&number.to_string());
            turns.add(now, vec![channel.clone()]);
            turns.add(now, vec![channel]);
        }
        let first = turns.take(now);
        let channels: HashSet<_> = first.iter().flatten().collect();
        assert_eq!(channels.len(), BATCH_CHANNELS_MAX);
        assert_eq!(first.len() + turns.take(now).len(), 2 * (BATCH_CHANNELS_MAX + 5));
        assert!(turns.take(now).is_empty());
    }
}
