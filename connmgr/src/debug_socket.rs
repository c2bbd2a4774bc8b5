//! The debug socket: the log at debug level, to whoever connects, from then on.
//!
//! ```sh
//! socat - UNIX-CONNECT:/run/forebay/debug      # or: nc -U /run/forebay/debug
//! ```
//!
//! The lines are those of the log ([`crate::log`]). Clients say nothing; one that closes its side, or all of it, has left.
//! One that reads too slowly loses lines and is told how many in a line of its own; the edge never waits for it
//! ([`Tap`]). When the process ends, those who read get its last words.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Level;

use crate::config::{ListenAddress, UnixSpec};
use crate::log::{self, Line, Tap};
use crate::observe::{Client, Incoming, ObserveError, Observer, Stopped};

/// Clients at one time; more are told so and sent away. Each costs a descriptor, and the edge the same as one.
pub const CLIENTS_MAX: usize = 8;

/// How long the end of the process waits for clients that have not read everything.
pub const FLUSH_MAX: Duration = Duration::from_millis(250);

/// A debug socket. When this is dropped, clients get what has been logged so far, and then the end.
#[derive(Debug)]
pub struct DebugSocket {
    _observer: Observer,
}

/// Opens the debug socket.
///
/// # Errors
/// If the path cannot be listened on, or there is no thread to be had.
pub fn serve(spec: &UnixSpec, tap: Arc<Tap>) -> Result<DebugSocket, ObserveError> {
    let address = ListenAddress::Unix(spec.clone());
    let serve = |incoming, stopped| serve_clients(incoming, stopped, tap);
    let observer = Observer::start("debug-socket", &address, serve)?;
    tracing::info!("debug log on {}", observer.place());
    Ok(DebugSocket { _observer: observer })
}

async fn serve_clients(incoming: Incoming, mut stopped: Stopped, tap: Arc<Tap>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            client = incoming.accept() => {
                // Those who have just left make room.
                while clients.try_join_next().is_some() {}
                if clients.len() < CLIENTS_MAX {
                    clients.spawn(serve_client(client, Arc::clone(&tap)));
                } else {
                    refuse(client).await;
                }
            }
            Some(_) = clients.join_next() => {}
        }
    }
    tap.end();
    // Who does not read is left behind.
    let _ = timeout(FLUSH_MAX, async { while clients.join_next().await.is_some() {} }).await;
}

/// Serves a client until it leaves, or everything ends. It fails only because the client has left.
async fn serve_client(client: Box<dyn Client>, tap: Arc<Tap>) -> io::Result<()> {
    let mut lines = tap.follow();
    // For this client the first line: it follows the log now.
    tracing::debug!("a client of the debug socket has come");
    let (mut reader, mut writer) = tokio::io::split(client);
    let leave = async {
        let mut ignored = [0; 64];
        while reader.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let write = async {
        loop {
            match lines.next().await {
                Line::Text(line) => writer.write_all(line.as_bytes()).await?,
                Line::Lost(count) => {
                    let text = format!("{count} lines are lost: this client reads too slowly");
                    writer.write_all(warning(&text).as_bytes()).await?;
                }
                Line::End => return Ok(()),
            }
        }
    };
    tokio::select! {
        () = leave => Ok(()),
        written = write => written,
    }
}

/// Tells one client too many. Its socket is new and has room for a line; if not, it learns by the end.
async fn refuse(mut client: Box<dyn Client>) {
    let line = warning(&format!("{CLIENTS_MAX} clients follow the log already"));
    let _ = timeout(FLUSH_MAX, client.write_all(line.as_bytes())).await;
}

/// A line for one client alone.
fn warning(text: &str) -> String {
    log::line(Level::WARN, module_path!(), text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    /// Lines get into the tap here without the process' log, which tests don't have.
    struct Fixture {
        socket: Option<DebugSocket>,
        tap: Arc<Tap>,
        dir: TempDir,
    }

    impl Fixture {
        fn start() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let tap = Tap::new();
            let spec = UnixSpec { path: dir.path().join("d"), ..UnixSpec::default() };
            let socket = serve(&spec, Arc::clone(&tap)).unwrap();
            Fixture { socket: Some(socket), tap, dir }
        }

        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("d")
        }

        /// Connects, and waits until the tap has so many followers.
        fn connect(&self, followers: usize) -> BufReader<UnixStream> {
            let client = UnixStream::connect(self.path()).unwrap();
            self.wait_for(followers);
            BufReader::new(client)
        }

        fn wait_for(&self, followers: usize) {
            while self.tap.followers() != followers {
                std::thread::yield_now();
            }
        }
    }

    fn line(client: &mut impl BufRead) -> String {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn clients_get_the_lines_from_then_on() {
        let mut fixture = Fixture::start();
        let mut first = fixture.connect(1);
        fixture.tap.put("one\n");
        let mut second = fixture.connect(2);
        fixture.tap.put("two\n");
        assert_eq!([line(&mut first), line(&mut first)], ["one\n", "two\n"]);
        assert_eq!(line(&mut second), "two\n");
        drop(first);
        fixture.wait_for(1);
        fixture.tap.put("last words\n");
        fixture.socket = None;
        let mut rest = String::new();
        second.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last words\n");
        assert!(!Path::exists(&fixture.path()));
    }

    #[test]
    fn a_client_that_does_not_read_delays_nobody() {
        let mut fixture = Fixture::start();
        let mut slow = fixture.connect(1);
        let text = "x".repeat(1000) + "\n";
        // More than the socket and the ring hold. None of it waits for the client.
        for _ in 0..3000 {
            fixture.tap.put(&text);
        }
        // It comes back, and is told in between; and the newest lines are there.
        let mut lost = 0;
        let mut read = 0;
        while lost + read < 3000 {
            let line = line(&mut slow);
            match line.split_once(" lines are lost: ") {
                Some((before, _)) => {
                    assert!(line.starts_with("[WARN] "), "{line}");
                    let (_, count) = before.rsplit_once(' ').unwrap();
                    lost += count.parse::<u64>().unwrap();
                }
                None => {
                    assert_eq!(line, text);
                    read += 1;
                }
            }
        }
        assert!(lost > 0);
        assert_eq!(lost + read, 3000);
        // Nor does one that is stuck keep the process from ending.
        for _ in 0..3000 {
            fixture.tap.put(&text);
        }
        fixture.socket = None;
    }

    #[test]
    fn there_are_only_so_many_clients() {
        let fixture = Fixture::start();
        let mut clients: Vec<_> = (1..=CLIENTS_MAX).map(|count| fixture.connect(count)).collect();
        let mut late = fixture.connect(CLIENTS_MAX);
        let text = line(&mut late);
        assert!(text.ends_with("8 clients follow the log already\n"), "{text}");
        assert_eq!(line(&mut late), "");
        clients.pop();
        fixture.wait_for(CLIENTS_MAX - 1);
        fixture.connect(CLIENTS_MAX);
    }
}
