//! The connection for commands to one server: one for a process, multiplexed, and made again when it
//! is lost.
//!
//! A task keeps the connection. Whoever wants to send a command takes the connection that is there,
//! or is told at once that there is none: while Redis is away nobody waits for a timeout, and
//! nothing piles up. The task tries again after 50 ms, and then less often, up to every 500 ms.
//!
//! A connection is lost when the server closes it (RESP3 tells us without being asked), when a
//! command finds it broken, and also when a command gets no answer in time. It is given up when the
//! server is no master any more: when it refuses a write (`READONLY`), or Sentinels name another one.
//! A connection is made to masters only, so an operator's `redis://` to a replica is an error that
//! shows at once, and not with the first write.
//!
//! Behind Sentinels a write needs their word that the server is the master still, and not an old one
//! (`standing`). That they cannot be asked is no reason to leave a server that works: it is read from,
//! and writes are refused until they answer.
//!
//! `redis::aio::ConnectionManager` was considered. It either makes callers wait while it tries
//! again, or, without retries, answers the first command after an outage with the error of the
//! outage, and tries as fast as commands come. `redis`'s client for Sentinel has no limits of time for
//! what it asks, and keeps to a master that Sentinels have replaced.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    Cmd, ConnectionInfo, ErrorKind, Pipeline, PushKind, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::dial::{Backoff, dial, failure, is_over, require_master};
use super::scripts::Scripts;
use super::sentinels::Located;
use super::standing::{MASTER_CHECK_INTERVAL, MASTER_LEASE, Standing, TOO_FEW, Verdict};
use super::target::Target;
use crate::store::StoreError;

/// Reports of lost connections that wait for the task; each is about a connection, and one is
/// enough, so what doesn't fit may be dropped.
const REPORTS_WAITING_MAX: usize = 16;

/// What commands are sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To learn something, or to announce what is in no log.
    Read,
    /// To change what is kept: only a server that is known to be the master now may do that.
    Write,
}

#[derive(Clone)]
enum State {
    /// The first attempt goes on.
    Beginning,
    Up(Live),
    Down(Arc<str>),
}

/// A connection that worked a moment ago.
#[derive(Clone)]
struct Live {
    number: u64,
    connection: MultiplexedConnection,
    standing: Standing,
}

/// The connection that is kept. Clones are of the same one; it is closed with the last.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    lost: mpsc::Sender<u64>,
    scripts: Arc<Scripts>,
}

impl Link {
    /// Begins to keep a connection. Must be called within a tokio runtime.
    pub(super) fn new(target: Target, scripts: Arc<Scripts>) -> Link {
        let (states, state) = watch::channel(State::Beginning);
        let (lost, reports) = mpsc::channel(REPORTS_WAITING_MAX);
        let link = Link { state, lost: lost.clone(), scripts: Arc::clone(&scripts) };
        tokio::spawn(Keeper { target, scripts, states, lost, reports }.run());
        link
    }

    /// Waits for the end of the first attempt, whether it succeeds or not.
    pub(super) async fn begun(&self) {
        let mut state = self.state.clone();
        // An error would mean that the keeper is gone, which the first command finds out too.
        let _ = state.wait_for(|state| !matches!(state, State::Beginning)).await;
    }

    /// Whether there is a connection now.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// The connection, if there is one.
    fn live(&self) -> Result<Live, StoreError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok(live.clone()),
            State::Down(why) => Err(StoreError::Unavailable(why.to_string())),
            State::Beginning => Err(StoreError::Unavailable("not connected yet".to_owned())),
        }
    }

    /// The connection, once it may be written to: without waiting as a rule, and at most for
    /// [`MASTER_LEASE`] if what is known of the server is too old.
    async fn live_to_write(&self) -> Result<Live, StoreError> {
        let mut state = self.state.clone();
        let waiting = async {
            loop {
                state.borrow_and_update();
                let live = self.live()?;
                match live.standing.verdict(Instant::now()) {
                    Verdict::Yes => return Ok(live),
                    Verdict::No(why) => return Err(unconfirmed(&why)),
                    Verdict::NotYet => {}
                }
                if state.changed().await.is_err() {
                    return Err(unconfirmed("the connection is closed"));
                }
            }
        };
        let late = |_| Err(unconfirmed("Sentinels are still being asked"));
        tokio::time::timeout(MASTER_LEASE, waiting).await.unwrap_or_else(late)
    }

    /// Whether what was just written over this connection may be believed.
    async fn stands(&self, live: &Live) -> Result<(), StoreError> {
        if live.standing == Standing::Fixed || self.live_to_write().await?.number == live.number {
            return Ok(());
        }
        Err(unconfirmed("it was replaced while it wrote"))
    }

    /// Sends commands in one pipeline. The answers come in the same order, each with its own error.
    ///
    /// # Errors
    ///
    /// If there is no connection, or it was lost meanwhile; of writes also if the server may not be
    /// the master any more. Then it is unknown whether they were done.
    pub(super) async fn send(
        &self,
        commands: Pipeline,
        access: Access,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.begun().await;
        match access {
            Access::Read => self.exchange(self.live()?, commands).await,
            Access::Write => {
                let live = self.live_to_write().await?;
                let answers = self.exchange(live.clone(), commands).await?;
                self.stands(&live).await?;
                Ok(answers)
            }
        }
    }

    async fn exchange(
        &self,
        live: Live,
        mut commands: Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = live.connection.clone();
        let report = |error: redis::RedisError| {
            self.look_at(&live, &error);
            failure(error)
        };
        commands.ignore_errors();
        let mut answers: Vec<RedisResult<Value>> =
            commands.query_async(&mut connection).await.map_err(report)?;
        if answers.iter().any(is_no_script) {
            // The server forgot its scripts. What it answered so was not executed, and only that
            // is repeated.
            self.scripts.load().exec_async(&mut connection).await.map_err(report)?;
            for (place, answer) in answers.iter_mut().enumerate() {
                if is_no_script(answer) {
                    *answer = repeat(&mut connection, &commands, place).await;
                }
            }
        }
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            self.look_at(&live, error);
        }
        Ok(answers)
    }

    /// A new connection is made if this error of one is of that kind.
    fn look_at(&self, live: &Live, error: &redis::RedisError) {
        if is_over(error) {
            // If the queue is full the keeper has enough to read.
            let _ = self.lost.try_send(live.number);
        }
    }
}

fn unconfirmed(why: &str) -> StoreError {
    StoreError::Unavailable(format!("Redis: not confirmed as the master: {why}"))
}

fn is_no_script(answer: &RedisResult<Value>) -> bool {
    let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
    answer.as_ref().is_err_and(|error| error.kind() == no_script)
}

/// Sends one of the commands again, after the `ASKING` that it was sent after.
async fn repeat(
    connection: &mut MultiplexedConnection,
    commands: &Pipeline,
    place: usize,
) -> RedisResult<Value> {
    let mut again = redis::pipe();
    for (other, command) in commands.cmd_iter().enumerate().take(place + 1) {
        if other == place {
            again.add_command(command.clone());
        } else if other + 1 == place && is_asking(command) {
            again.add_command(command.clone()).ignore();
        }
    }
    let (answer,): (Value,) = again.query_async(connection).await?;
    Ok(answer)
}

/// The command that lets the next one work on a slot that is on its way to this node.
pub(super) fn asking() -> Cmd {
    redis::cmd("ASKING")
}

fn is_asking(command: &Cmd) -> bool {
    command.args_iter().next() == Some(redis::Arg::Simple(b"ASKING"))
}

/// The task behind a [`Link`].
struct Keeper {
    target: Target,
    scripts: Arc<Scripts>,
    states: watch::Sender<State>,
    lost: mpsc::Sender<u64>,
    reports: mpsc::Receiver<u64>,
}

/// Why a connection is no longer waited on.
enum Over {
    /// It is of no use any more.
    Lost,
    /// Nobody needs one any more.
    Closed,
}

impl Keeper {
    const BACKOFF_FIRST: Duration = Duration::from_millis(50);
    const BACKOFF_MAX: Duration = Duration::from_millis(500);

    async fn run(mut self) {
        let mut backoff = Backoff::new(Self::BACKOFF_FIRST, Self::BACKOFF_MAX);
        let mut number = 0;
        loop {
            number += 1;
            match self.connect(number).await {
                Ok((connection, info, standing)) => {
                    backoff.reset();
                    self.states.send_replace(State::Up(Live { number, connection, standing }));
                    match self.wait_for_loss(number, &info).await {
                        Over::Lost => {}
                        Over::Closed => return,
                    }
                    tracing::warn!(address = %info.addr(), "the connection to Redis is lost");
                    let why = "Redis: the connection is lost".into();
                    self.states.send_replace(State::Down(why));
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection to Redis");
                    let why = format!("not connected: {error}").into();
                    self.states.send_replace(State::Down(why));
                    tokio::select! {
                        () = tokio::time::sleep(backoff.delay()) => {}
                        () = self.states.closed() => return,
                    }
                }
            }
        }
    }

    async fn connect(
        &self,
        number: u64,
    ) -> Result<(MultiplexedConnection, ConnectionInfo, Standing), StoreError> {
        let info = self.target.locate().await?.info;
        let lost = self.lost.clone();
        let mut connection = dial(&info, move |push| {
            if push.kind == PushKind::Disconnection {
                let _ = lost.try_send(number);
            }
        })
        .await?;
        require_master(&mut connection).await?;
        self.scripts.load().exec_async(&mut connection).await.map_err(failure)?;
        // All that may have taken long.
        let standing = self.target.confirm(&info).await?;
        Ok((connection, info, standing))
    }

    /// Returns when that connection is reported lost, or is to another server than it should be.
    async fn wait_for_loss(&mut self, number: u64, info: &ConnectionInfo) -> Over {
        let Keeper { target, states, reports, .. } = self;
        let mut replaced = pin!(replaced(target, info, states));
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) if report == number => return Over::Lost,
                    Some(_) => {}
                    None => return Over::Closed,
                },
                () = &mut replaced => return Over::Lost,
                () = states.closed() => return Over::Closed,
            }
        }
    }
}

/// Asks Sentinels again and again and writes down what they say of the connection that is up to this
/// address. Returns when they name another one.
async fn replaced(target: &Target, info: &ConnectionInfo, states: &watch::Sender<State>) {
    if !target.may_change() {
        std::future::pending::<()>().await;
    }
    let first = Instant::now() + MASTER_CHECK_INTERVAL;
    let mut ticks = tokio::time::interval_at(first, MASTER_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_refusing = false;
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        let located = target.locate().await;
        if located.as_ref().is_ok_and(|now| now.info.addr() != info.addr()) {
            return;
        }
        states.send_modify(|state| {
            let State::Up(Live { standing, .. }) = state else { return };
            match located {
                Ok(Located { is_sure: true, .. }) => {
                    *standing = Standing::confirmed(asked);
                    if std::mem::take(&mut is_refusing) {
                        tracing::info!("Sentinels name the same master again");
                    }
                    return;
                }
                Ok(Located { is_sure: false, .. }) => standing.doubt(asked, TOO_FEW),
                Err(error) => standing.doubt(asked, &error.to_string()),
            }
            let verdict = standing.verdict(Instant::now());
            if let Verdict::No(why) = verdict
                && !std::mem::replace(&mut is_refusing, true)
            {
                tracing::warn!(%why, "writes are refused: who is the master?");
            }
        });
    }
}
