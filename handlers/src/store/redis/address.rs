//! Where Redis is, as the operator writes it.
//!
//! | address | what it is |
//! | --- | --- |
//! | `redis://[[user]:password@]host[:port][/db]` | one server |
//! | `unix:///path`, `redis+unix:///path` | one server, on a unix socket |
//! | `redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/MASTER[/db]` | a master that Sentinels watch over, by its name |
//! | `redis+cluster://[[user]:password@]host[:port][,host[:port]…]` | a Redis Cluster, by some of its nodes |
//!
//! The names with a `+` are the ones that other clients of Redis use. User and password are those of
//! the servers that keep the data; Sentinels are asked without. A cluster has no numbered databases.

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::store::OpenError;

const SENTINEL_SCHEME: &str = "redis+sentinel://";
const CLUSTER_SCHEME: &str = "redis+cluster://";

/// The port of a Sentinel whose address has none.
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is.
#[derive(Clone)]
pub(super) enum Address {
    /// One server.
    One(ConnectionInfo),
    /// The master that these Sentinels watch over.
    Sentinel(Watched),
    /// A cluster that these nodes belong to.
    Cluster(Vec<ConnectionInfo>),
}

/// A master that Sentinels watch over.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) sentinels: Vec<ConnectionInfo>,
    /// Its name.
    pub(super) master: String,
    /// How to connect to it, but for its host and port.
    pub(super) settings: ConnectionInfo,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        if let Some(rest) = url.strip_prefix(SENTINEL_SCHEME) {
            return sentinel(rest);
        }
        if let Some(rest) = url.strip_prefix(CLUSTER_SCHEME) {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            if rest.contains(['/', '?', '#']) {
                return Err(bad("a cluster has no databases: nothing may follow its nodes"));
            }
            let (credentials, hosts) = split_credentials(rest);
            return Ok(Address::Cluster(nodes(credentials, hosts, "")?));
        }
        Ok(Address::One(one(url)?))
    }
}

fn sentinel(rest: &str) -> Result<Address, OpenError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (master, db) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(bad("the name of the master must follow the Sentinels: …/MASTER[/db]"));
    }
    let (credentials, hosts) = split_credentials(authority);
    let with_port = |host: &str| {
        // The colons of an IPv6 address stand in brackets.
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") }
    };
    let hosts: Vec<String> = hosts.split(',').map(with_port).collect();
    let sentinels = nodes("", &hosts.join(","), "")?;
    let sentinels = sentinels.into_iter().map(plain).collect();
    let settings = one(&format!("redis://{credentials}master/{db}"))?;
    Ok(Address::Sentinel(Watched { sentinels, master: master.to_owned(), settings }))
}

/// Older Sentinels don't speak RESP3.
fn plain(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    info.set_redis_settings(settings)
}

/// Parts `user:password@` from the hosts.
fn split_credentials(authority: &str) -> (&str, &str) {
    authority.split_at(authority.rfind('@').map_or(0, |at| at + 1))
}

fn nodes(credentials: &str, hosts: &str, db: &str) -> Result<Vec<ConnectionInfo>, OpenError> {
    hosts.split(',').map(|host| one(&format!("redis://{credentials}{host}/{db}"))).collect()
}

/// One server, to be spoken to in RESP3.
fn one(url: &str) -> Result<ConnectionInfo, OpenError> {
    let info = url.into_connection_info().map_err(|error| bad(&error.to_string()))?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

fn bad(why: &str) -> OpenError {
    OpenError::Address(why.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(info: &ConnectionInfo) -> String {
        let settings = info.redis_settings();
        let part = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let (user, password) = (part(settings.username()), part(settings.password()));
        format!("{} {user} {password} {}", info.addr(), settings.db())
    }

    #[test]
    fn one_server() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379", "127.0.0.1:6379 - - 0"),
            ("redis://:secret@host/2", "host:6379 - secret 2"),
            ("unix:///run/redis.sock", "/run/redis.sock - - 0"),
            ("redis+unix:///run/redis.sock", "/run/redis.sock - - 0"),
        ] {
            let Address::One(info) = Address::parse(url).unwrap() else { panic!("{url}") };
            assert_eq!(shown(&info), expected);
        }
    }

    #[test]
    fn a_master_by_its_name() {
        let url = "redis+sentinel://me:s%40fe@one,two:5000,[::1],[::1]:7/main/3";
        let Address::Sentinel(watched) = Address::parse(url).unwrap() else { panic!("{url}") };
        let sentinels: Vec<String> = watched.sentinels.iter().map(shown).collect();
        let expected = ["one:26379 - - 0", "two:5000 - - 0", "::1:26379 - - 0", "::1:7 - - 0"];
        assert_eq!(
            sentinels.iter().map(|info| info.replace(['[', ']'], "")).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(watched.master, "main");
        assert_eq!(shown(&watched.settings), "master:6379 me s@fe 3");
    }

    #[test]
    fn a_cluster_by_its_nodes() {
        let url = "redis+cluster://:secret@one:7000,two/";
        let Address::Cluster(seeds) = Address::parse(url).unwrap() else { panic!("{url}") };
        let seeds: Vec<String> = seeds.iter().map(shown).collect();
        assert_eq!(seeds, ["one:7000 - secret 0", "two:6379 - secret 0"]);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://host",
            "redis://host:port",
            "redis+sentinel://host:1",
            "redis+sentinel://host:1/",
            "redis+sentinel:///main",
            "redis+sentinel://host:1/main/x",
            "redis+cluster://",
            "redis+cluster://host,",
            "redis+cluster://host/1",
        ] {
            assert!(matches!(Address::parse(bad), Err(OpenError::Address(_))), "{bad}");
        }
    }
}
