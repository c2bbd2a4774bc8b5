//! What the store really holds when all is over, read from it past all of Forebay's code.
//!
//! From Redis by its own commands, in the layout that `handlers/src/store/redis/append.lua` documents. Of the embedded store,
//! which nobody else can open, by the HTTP history.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_judge::Id;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cluster::ORG;
use crate::connection::{Address, Connection};
use crate::{ChaosError, PATIENCE};

/// How long a server may take for a command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(2);

/// The `kind` of an entry that is about the stream itself.
const CONTROL_KIND: &str = "c";

/// The log of a channel, as the store holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// The epoch in which it began.
    pub(crate) born: u64,
    pub(crate) events: BTreeMap<Id, KeptEvent>,
}

/// An event of it.
#[derive(Clone, Debug)]
pub(crate) struct KeptEvent {
    /// What it follows, where the store says so.
    pub(crate) prev: Option<Id>,
    pub(crate) end: bool,
    pub(crate) control: bool,
    pub(crate) data: String,
}

/// Connects to a Redis server.
pub(crate) async fn dial(url: &str) -> RedisResult<MultiplexedConnection> {
    let limit = Some(COMMAND_PATIENCE);
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
    Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Sends words to a Redis server, over a connection of their own.
pub(crate) async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> RedisResult<T> {
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut dial(url).await?).await
}

/// Reads these channels from the servers at these addresses, each from the master that has it.
pub(crate) async fn of_redis(
    urls: &[String],
    channels: &[String],
) -> Result<Vec<Kept>, ChaosError> {
    let unreadable = |error: redis::RedisError| ChaosError::Store(error.to_string());
    let mut logs = vec![Kept::default(); channels.len()];
    let mut found = vec![0; channels.len()];
    for url in urls {
        let mut connection = dial(url).await.map_err(unreadable)?;
        let info: String = redis::cmd("INFO")
            .arg("replication")
            .query_async(&mut connection)
            .await
            .map_err(unreadable)?;
        if !info.contains("role:master") {
            continue;
        }
        for (index, channel) in channels.iter().enumerate() {
            match read(&mut connection, channel).await {
                Ok(log) => {
                    found[index] += 1;
                    logs[index] = log;
                }
                // Another master of the cluster has it.
                Err(error) if error.code() == Some("MOVED") => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
    }
    match found.iter().position(|count| *count != 1) {
        None => Ok(logs),
        Some(index) => {
            let (name, count) = (&channels[index], found[index]);
            Err(ChaosError::Store(format!("{count} masters have {name}")))
        }
    }
}

async fn read(connection: &mut MultiplexedConnection, channel: &str) -> RedisResult<Kept> {
    let key = |what: &str| format!("fb:{{{ORG}:{channel}}}:{what}");
    let born: Option<u64> =
        redis::cmd("HGET").arg(key("meta")).arg("born").query_async(connection).await?;
    let entries: Vec<(String, BTreeMap<String, String>)> =
        redis::cmd("XRANGE").arg(key("log")).arg("-").arg("+").query_async(connection).await?;
    let mut events = BTreeMap::new();
    for (id, mut fields) in entries {
        let Some(id) = Id::parse(&id) else { continue };
        let is = |name: &str, value: &str| fields.get(name).is_some_and(|field| field == value);
        let (end, control) = (is("end", "1"), is("kind", CONTROL_KIND));
        let prev = fields.get("prev").and_then(|prev| Id::parse(prev));
        let data = fields.remove("data").unwrap_or_default();
        events.insert(id, KeptEvent { prev, end, control, data });
    }
    Ok(Kept { born: born.unwrap_or_default(), events })
}

/// A page of `GET /channels/…`.
#[derive(Deserialize)]
struct Page {
    events: Vec<PageEvent>,
    head: String,
    ended: bool,
    next: String,
}

#[derive(Deserialize)]
struct PageEvent {
    id: String,
    event: String,
    data: Box<RawValue>,
}

/// Reads these channels by the HTTP history.
pub(crate) async fn of_history(
    address: Address,
    token: &str,
    channels: &[String],
) -> Result<Vec<Kept>, ChaosError> {
    let mut connection = Connection::to(address);
    let mut logs = Vec::new();
    for channel in channels {
        let mut log = Kept::default();
        let mut after = "0-0".to_owned();
        loop {
            let page = page(&mut connection, channel, &after, token).await?;
            let is_last = page.next == page.head || page.events.is_empty();
            for event in page.events {
                let id = Id::parse(&event.id)
                    .ok_or_else(|| ChaosError::Store(format!("{channel} has {}", event.id)))?;
                // This store says nothing of predecessors: the log is what it is.
                let end = page.ended && event.id == page.head;
                let (control, data) = (event.event == "control", event.data.get().to_owned());
                log.events.insert(id, KeptEvent { prev: None, end, control, data });
            }
            after = page.next;
            if is_last {
                break;
            }
        }
        log.born = log.events.keys().next().map_or(0, |first| first.epoch);
        logs.push(log);
    }
    Ok(logs)
}

async fn page(
    connection: &mut Connection,
    channel: &str,
    after: &str,
    token: &str,
) -> Result<Page, ChaosError> {
    let request = format!(
        "GET /channels/{ORG}/{channel}?after={after}&limit=1000 HTTP/1.1\r\nHost: chaos\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    let failed = |why: String| ChaosError::Store(format!("the history of {channel}: {why}"));
    let answer = tokio::time::timeout(PATIENCE, connection.exchange(request.as_bytes())).await;
    let (head, body) = answer
        .map_err(|_| failed("no answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    if head.status != 200 {
        return Err(failed(format!("status {}", head.status)));
    }
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}
