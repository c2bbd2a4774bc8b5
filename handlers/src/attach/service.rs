//! What a handler author writes, and how it is run for one request.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::feed::EdgeId;
use super::message::{Answer, ClientMessages};
use super::request::Request;
use super::respond::{Asked, respond};
use super::response::Response;
use super::session::Session;
use super::stats::Counters;

/// The code of the close when a client says what nobody wants to hear (RFC 6455 §7.4.1).
const CLOSE_UNSUPPORTED: u16 = 1003;

/// Answers requests. An `async` closure or function from [`Request`] to [`Response`] is one, too.
///
/// It is called concurrently, in a task for each request.
///
/// # When the client leaves
///
/// Then the future is dropped, at whatever `await` it stands, and so is a body that is being
/// streamed. Work that has to be finished in any case belongs in a task of its own. The same
/// happens when the connection to the edge is lost, and when
/// [`shutdown`](super::Attached::shutdown) has waited long enough.
///
/// # Panics
///
/// A panic costs its request only: it is logged, and the client gets a 500.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Answers what the client of a held WebSocket has said; comes to handlers that serve the method
    /// `MESSAGE` at the [`messages`](super::Hold::messages) of its hold. By default nobody may say
    /// anything, and the connection is closed with the code 1003.
    ///
    /// It is called concurrently, in a task for each, but never twice at once for one connection, as
    /// far as an edge can know. Unlike that of a request its future is not dropped when the client
    /// leaves or the connection to the edge is lost. A panic closes the connection with 1011.
    fn message(&self, said: ClientMessages) -> impl Future<Output = Answer> + Send {
        drop(said);
        std::future::ready(Answer::close(CLOSE_UNSUPPORTED, ""))
    }

    /// A connection that was held with [`notify`](super::Hold::notify) has closed. An edge tells
    /// one of the handlers that are there, not always the one that took the hold. Runs in the
    /// edge's task, so it must not block: what takes time belongs in a task of its own.
    fn closed(&self, connection: ClosedConnection) {
        drop(connection);
    }
}

/// A held connection that has closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedConnection {
    /// The edge that held it.
    pub edge: EdgeId,
    /// The context of its hold.
    pub context: Bytes,
}

impl<F, R> Service for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    fn call(&self, request: Request) -> impl Future<Output = Response> + Send {
        self(request)
    }
}

/// Has one request answered. Ends early when the session is gone.
pub(super) async fn serve<S: Service>(
    service: Arc<S>,
    request: Request,
    session: Arc<Session>,
    counters: Arc<Counters>,
) {
    let asked = Asked::of(&request);
    let answer = catch_panic(async { service.call(request).await }).await;
    let response = answer.unwrap_or_else(|panic| {
        counters.requests_panicked.add(1);
        tracing::error!(path = asked.path(), panic = panic_text(&*panic), "a service panicked");
        Response::text(500, "Internal Server Error\n")
    });
    // Whoever is gone needs no answer.
    let _ = respond(&session, &asked, response).await;
}

/// Tells a service of a connection that has closed.
pub(super) fn tell_closed<S: Service>(service: &S, connection: ClosedConnection) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| service.closed(connection))) {
        tracing::error!(panic = panic_text(&*panic), "a service panicked");
    }
}

/// Runs a future to its end or its panic. (A task of its own would catch it as well, but would not
/// be dropped together with the one that waits for it.)
pub(crate) async fn catch_panic<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        // What a panic leaves behind half done is the service's own; the future is not polled
        // again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(|text| &**text)).unwrap_or("no message")
}
