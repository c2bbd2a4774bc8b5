//! The smallest useful handler: it answers every request with a greeting.
//!
//! Start an edge, then this, then ask:
//!
//! ```text
//! forebay connmgr --listen 8080,stream --zclient-stream ipc:///tmp/client
//! cargo run -p forebay-examples --bin hello -- --edge ipc:///tmp/client
//! curl localhost:8080/some/path -d 'a body'
//! curl -N localhost:8080/stream
//! ```
//!
//! Things to try. Start the handler after curl: the request waits for it. Start a second one with
//! another `--id`: they share the requests. Stop one with Ctrl-C while `/stream` runs: it finishes
//! first.

use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use forebay_handlers::attach::{AttachConfig, Attached, BodyError, Request, Response};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// A body is read whole, into memory, so it needs a limit. In bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long requests in flight may take when the handler is stopped.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// Answers every request with a greeting.
#[derive(Parser)]
struct Options {
    /// An edge to attach to: what it was given as --zclient-stream. May be repeated.
    #[arg(long = "edge", value_name = "SPEC", required = true)]
    edges: Vec<String>,
    /// Our name at the edges; no two handlers may have the same.
    #[arg(long, default_value = "hello-1")]
    id: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Options { edges, id } = Options::parse();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    // `*` is any method, and every path begins with `/`; a handler with a longer prefix comes
    // first.
    let serves = vec![("*".to_owned(), "/".to_owned())];
    let config = AttachConfig { id, edges, serves, ..AttachConfig::default() };
    let attached = Attached::start(config, answer).await?;

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // The edges give new requests to others while we finish ours.
    attached.shutdown(SHUTDOWN_MAX).await;
    Ok(())
}

/// Called for each request, many at a time. If the client leaves, this is dropped at its next
/// `await`.
async fn answer(mut request: Request) -> Response {
    if request.path() == "/stream" {
        return Response::stream(200, pieces()).header("Content-Type", "text/plain");
    }
    // The edge begins to read the body here, not before: who refuses a request early, saves the
    // upload.
    match request.body(BODY_BYTES_MAX).await {
        Ok(body) => {
            let (method, path, len) = (&request.method, request.path(), body.len());
            Response::text(200, format!("Hello! {method} {path}, {len} bytes\n"))
        }
        Err(error @ BodyError::TooLarge { .. }) => Response::text(413, format!("{error}\n")),
        Err(error @ BodyError::NoRoom) => {
            Response::text(503, format!("{error}\n")).header("Retry-After", "1")
        }
        // Nobody reads this.
        Err(BodyError::Gone) => Response::new(500),
    }
}

/// A body in three pieces, each sent when the client has room for it.
fn pieces() -> mpsc::Receiver<Bytes> {
    // With room for one piece, so that we are never far ahead of the client.
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        for piece in ["one\n", "two\n", "three\n"] {
            // An error says that the client has left.
            if sender.send(Bytes::from_static(piece.as_bytes())).await.is_err() {
                return;
            }
        }
        // The body ends when the sender is dropped.
    });
    pieces
}
