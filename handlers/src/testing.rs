//! What the tests of the roles share: a store that can go away, tokens, and answers as text.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zhttp::Cursor;

use crate::attach::{Body, Response};
use crate::auth::{
    Grant, KeyMaterial, KeySource, MintKey, Minter, MinterConfig, Role, SecretText, Verifier,
    VerifierConfig,
};
use crate::store::*;

/// The time at which tokens are made, in seconds since 1970.
pub(crate) const NOW_S: u64 = 1_800_000_000;

/// The same in milliseconds.
pub(crate) const NOW_MS: u64 = NOW_S * 1000;

const SECRET: &str = "a secret that only tests know, of some length";

/// What the tokens of a role are checked with.
pub(crate) fn verifier_config(role: Role) -> VerifierConfig {
    let material = KeyMaterial::Secret(SecretText::new(SECRET.to_owned()));
    let keys = vec![KeySource { name: "test".to_owned(), material }];
    VerifierConfig { role, issuer: None, audience: Some(audience(role)), keys }
}

/// Who has the tokens of a role is told by their audience, as they have one secret.
fn audience(role: Role) -> String {
    format!("{role:?}")
}

/// Checks the tokens of a role.
pub(crate) fn verifier(role: Role) -> Verifier {
    Verifier::new(verifier_config(role)).unwrap()
}

/// A token that is good for a minute.
pub(crate) fn token(role: Role, org: &str, channels: &[&str]) -> String {
    token_at(role, org, channels, NOW_S)
}

/// A token that is good for a minute from then on.
pub(crate) fn token_at(role: Role, org: &str, channels: &[&str], now_s: u64) -> String {
    let key = MintKey::Secret(SecretText::new(SECRET.to_owned()));
    let audience = Some(audience(role));
    let minter = Minter::new(MinterConfig { role, issuer: None, audience, key }).unwrap();
    minter.mint(&Grant { org: Some(org), channels, ttl_s: 60, now_s }).unwrap()
}

/// Status and body.
pub(crate) fn answer(response: &Response) -> (u16, &str) {
    let Body::Whole(body) = &response.body else { panic!("a stream") };
    (response.code, std::str::from_utf8(body).unwrap())
}

/// The value of a header.
pub(crate) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut named = response.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
    let value = named.next().map(|(_, value)| value.as_str());
    assert!(named.next().is_none(), "{name} stands there twice");
    value
}

/// Asks until the answer is yes. Fails after a time that only something broken needs.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < Duration::from_secs(60), "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An embedded store in a directory of its own that can be made to fail, and counts what it is asked.
#[derive(Clone)]
pub(crate) struct TestStore {
    inner: EmbeddedStore,
    away: Arc<AtomicBool>,
    corrupt: Arc<AtomicBool>,
    panicking: Arc<AtomicBool>,
    heads_calls: Arc<AtomicUsize>,
    overtaken: Arc<AtomicUsize>,
    _directory: Arc<tempfile::TempDir>,
}

impl TestStore {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inner = EmbeddedStore::open(directory.path(), Fsync::default()).await.unwrap();
        TestStore {
            inner,
            away: Arc::default(),
            corrupt: Arc::default(),
            panicking: Arc::default(),
            heads_calls: Arc::default(),
            overtaken: Arc::default(),
            _directory: Arc::new(directory),
        }
    }

    /// Whether all but following fails from now on.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Whether what it holds makes no sense from now on.
    pub(crate) fn set_corrupt(&self, corrupt: bool) {
        self.corrupt.store(corrupt, Ordering::SeqCst);
    }

    /// Whether asking it for something is a bug from now on.
    pub(crate) fn set_panicking(&self, panicking: bool) {
        self.panicking.store(panicking, Ordering::SeqCst);
    }

    /// So many of the next appends each find that another one, with the data `faster`, came before.
    pub(crate) fn overtake(&self, appends: usize) {
        self.overtaken.store(appends, Ordering::SeqCst);
    }

    /// How often heads were read.
    pub(crate) fn heads_calls(&self) -> usize {
        self.heads_calls.load(Ordering::SeqCst)
    }

    fn there(&self) -> Result<(), StoreError> {
        assert!(!self.panicking.load(Ordering::SeqCst), "a bug");
        if self.corrupt.load(Ordering::SeqCst) {
            return Err(StoreError::Corrupt("corrupt".to_owned()));
        }
        let is_away = self.away.load(Ordering::SeqCst);
        if is_away { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(()) }
    }

    /// Appends an event with this data, or an END.
    pub(crate) async fn put(&self, channel: &ChannelName, data: &str, end: bool) -> Cursor {
        let data = bytes::Bytes::copy_from_slice(data.as_bytes());
        let event = NewEvent { message_id: None, end, kind: EventKind::Stream, data };
        self.inner.append(channel, event, &Conditions::default()).await.unwrap().id
    }
}

impl Store for TestStore {
    async fn append(
        &self,
        channel: &ChannelName,
        event: NewEvent,
        conditions: &Conditions,
    ) -> Result<Appended, AppendError> {
        self.there()?;
        let left = self.overtaken.load(Ordering::SeqCst);
        if left > 0 {
            self.overtaken.store(left - 1, Ordering::SeqCst);
            self.put(channel, "faster", false).await;
        }
        self.inner.append(channel, event, conditions).await
    }

    async fn range(
        &self,
        channel: &ChannelName,
        after: Cursor,
        limits: RangeLimits,
    ) -> Result<Range, StoreError> {
        self.there()?;
        self.inner.range(channel, after, limits).await
    }

    async fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Head>, StoreError> {
        self.there()?;
        self.heads_calls.fetch_add(1, Ordering::SeqCst);
        self.inner.heads(channels).await
    }

    fn follow(&self) -> (FollowHandle, FollowStream) {
        self.inner.follow()
    }

    async fn delete(
        &self,
        channel: &ChannelName,
        if_head: Option<Cursor>,
    ) -> Result<bool, StoreError> {
        self.there()?;
        self.inner.delete(channel, if_head).await
    }

    async fn delete_idle(&self, idle: &Idle) -> Result<bool, StoreError> {
        self.there()?;
        self.inner.delete_idle(idle).await
    }

    async fn idle(
        &self,
        shard: u32,
        before_ms: u64,
        limit: usize,
    ) -> Result<Vec<Idle>, StoreError> {
        self.there()?;
        self.inner.idle(shard, before_ms, limit).await
    }

    async fn lease(&self, shard: u32, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        self.there()?;
        self.inner.lease(shard, owner, ttl_ms).await
    }

    async fn now_ms(&self) -> Result<u64, StoreError> {
        self.there()?;
        self.inner.now_ms().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.there()?;
        self.inner.ping().await
    }
}
