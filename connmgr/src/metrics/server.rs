//! The metrics port: an HTTP server for one kind of answer.
//!
//! Any path answers, as in pushpin-connmgr. A connection carries one request: Prometheus comes every few seconds, and what
//! is not kept open cannot be held against us. Clients may be slow or hostile, for the port is often open to a whole
//! network: there are never more than [`CLIENTS_MAX`], more wait in the kernel's backlog, and each has
//! [`EXCHANGE_MAX`] from its first byte to its last, so that the next in line has its turn.
//!
//! Heads are read and written by the pieces that clients of the edge meet (`forebay_core::http1`): the same strictness,
//! and no HTTP library for a hundred bytes a minute.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use forebay_core::http1::{
    BodyPlan, ErrorResponse, HeadError, HeadLimits, HeadScanner, RequestContext, RequestHead,
    ResponseHead, write_error, write_head,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Metrics;
use crate::clock::Clock;
use crate::config::PrometheusSpec;
use crate::observe::{Client, Incoming, ObserveError, Observer, Stopped};

/// Clients at one time; those beyond wait to be accepted. A descriptor and some 20 KiB for each.
pub const CLIENTS_MAX: usize = 32;

/// How long a client may take, from when it is accepted until it has closed. Less than the ten seconds that Prometheus
/// waits by itself.
pub const EXCHANGE_MAX: Duration = Duration::from_secs(5);

/// How large the head of a request may be.
const HEAD_LIMITS: HeadLimits = HeadLimits { head_bytes_max: 8192, target_bytes_max: 4096 };

/// The text format, and its version.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metrics port. It is closed when this is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    observer: Observer,
}

impl MetricsServer {
    /// Where it listens, with the real port where that was left to the system. `None` if it is a path.
    pub fn address(&self) -> Option<SocketAddr> {
        self.observer.address()
    }
}

/// Opens the metrics port, and logs where it is. It answers from then on.
///
/// # Errors
/// If the place cannot be listened on, or there is no thread to be had.
pub fn serve(spec: &PrometheusSpec, metrics: Metrics) -> Result<MetricsServer, ObserveError> {
    let page = Page { metrics, prefix: spec.prefix.clone() };
    let serve = |incoming, stopped| serve_clients(incoming, stopped, page);
    let observer = Observer::start("metrics", &spec.address, serve)?;
    tracing::info!("metrics on {}", observer.place());
    Ok(MetricsServer { observer })
}

/// What there is to see.
#[derive(Clone, Debug)]
struct Page {
    metrics: Metrics,
    prefix: String,
}

async fn serve_clients(incoming: Incoming, mut stopped: Stopped, page: Page) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            client = incoming.accept(), if clients.len() < CLIENTS_MAX => {
                let page = page.clone();
                // Whether a client got its answer is its own affair.
                clients.spawn(async move { timeout(EXCHANGE_MAX, exchange(client, &page)).await });
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Reads a request, answers it, and waits for the client to close: if we did so first, with something unread, a reset might
/// overtake the answer (RFC 9112 §9.6).
async fn exchange(mut client: Box<dyn Client>, page: &Page) -> io::Result<()> {
    let mut input = Vec::new();
    let mut scanner = HeadScanner::new();
    let head = loop {
        if client.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        match scanner.scan(&input, &HEAD_LIMITS) {
            Ok(None) => {}
            Ok(Some(span)) => break RequestHead::parse(&input, span, &HEAD_LIMITS),
            Err(error) => break Err(error),
        }
    };
    let answer = answer(head, page);
    client.write_all(&answer).await?;
    client.shutdown().await?;
    let mut rest = [0; 1024];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The whole response.
fn answer(head: Result<RequestHead<'_>, HeadError>, page: &Page) -> Vec<u8> {
    let date = Clock::http_date(Clock::unix_s());
    let mut out = Vec::new();
    let head = match head {
        Ok(head) => head,
        Err(error) => {
            let text = error.to_string();
            let error = ErrorResponse::new(error.status(), &text);
            write_error(&mut out, &RequestContext::unreadable(&date), &error);
            return out;
        }
    };
    let is_head = head.method == "HEAD";
    let version = head.version;
    let request = RequestContext { version, is_head, keep_alive: false, date: &date };
    let (code, field, body) = if is_head || head.method == "GET" {
        (200, ("Content-Type", CONTENT_TYPE), page.metrics.render(&page.prefix))
    } else {
        (405, ("Allow", "GET, HEAD"), String::new())
    };
    let headers = [field].into_iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let response = ResponseHead { code, reason: "", headers };
    let plan = BodyPlan::Whole(body.len() as u64);
    let written = write_head(&mut out, &request, response, plan).expect("our own fields are valid");
    debug_assert!(!written.keep_alive, "the head says that the connection ends");
    if !is_head {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::config::UnixSpec;

    fn start(spec: &str) -> MetricsServer {
        serve(&spec.parse().unwrap(), Metrics::new(1)).unwrap()
    }

    fn connect(server: &MetricsServer) -> TcpStream {
        TcpStream::connect(server.address().unwrap()).unwrap()
    }

    /// Sends a request and reads to the end.
    fn ask(mut client: impl Read + Write, request: &str) -> String {
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn any_path_answers() {
        let server = start("127.0.0.1:0,prefix=a");
        for request in [
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
        ] {
            let answer = ask(connect(&server), request);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            let type_line = "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
            assert!(head.contains(type_line), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(head.contains("\r\nConnection: close\r\n") || request.contains("HTTP/1.0"));
            assert!(body.contains("\na_connmgr_requests_total 0\n"), "{body}");
        }
    }

    #[test]
    fn head_has_no_body_and_other_methods_are_not_allowed() {
        let server = start("127.0.0.1:0");
        let answer = ask(connect(&server), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"));
        let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let answer = ask(connect(&server), post);
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    }

    #[test]
    fn nonsense_is_refused() {
        let server = start("127.0.0.1:0");
        for (request, status) in [
            ("GET /\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\n\r\n", "400"),
            (&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000)), "431"),
        ] {
            let answer = ask(connect(&server), request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        let client = connect(&server);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ask_nothing(client), "");
    }

    fn ask_nothing(mut client: impl Read) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Those who only sit there lose their place, and then the next one has its turn.
    #[test]
    fn idle_clients_shut_nobody_out() {
        let server = start("127.0.0.1:0");
        let idle: Vec<TcpStream> = (0..CLIENTS_MAX).map(|_| connect(&server)).collect();
        let answer = ask(connect(&server), "GET / HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for client in idle {
            assert_eq!(ask_nothing(client), "");
        }
    }

    #[test]
    fn a_path_will_do_and_goes_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m");
        let server = start(&format!("{},local,mode=600", path.display()));
        assert_eq!(server.address(), None);
        let answer = ask(UnixStream::connect(&path).unwrap(), "GET / HTTP/1.0\r\n\r\n");
        assert!(answer.contains("\nconnmgr_requests_total 0\n"), "{answer}");
        // One that is there does not keep it from ending.
        let _idle = UnixStream::connect(&path).unwrap();
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_place_that_is_taken_is_an_error() {
        let server = start("127.0.0.1:0");
        let address = server.address().unwrap();
        let spec = address.to_string().parse().unwrap();
        let error = serve(&spec, Metrics::new(1)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}: address in use"));
        let unix = UnixSpec { path: "/no/such/directory/x".into(), ..UnixSpec::default() };
        let address = crate::config::ListenAddress::Unix(unix);
        let spec = PrometheusSpec { address, prefix: String::new() };
        assert!(matches!(serve(&spec, Metrics::new(1)), Err(ObserveError::Listen(_))));
    }
}
