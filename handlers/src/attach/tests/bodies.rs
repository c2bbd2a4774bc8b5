//! Bodies in both directions, and the credits that they need.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use zhttp::{Fields, Kind};

use super::super::flow::BODY_CREDITS;
use super::super::{BodyError, Request, Response, Service};
use super::{Tuning, World, tuning, within};

/// Reads bodies of up to 100,000 bytes, and says their length, or what is wrong.
async fn length(mut request: Request) -> Response {
    match request.body(100_000).await {
        Ok(body) => Response::text(200, format!("{}", body.len())),
        Err(error @ BodyError::TooLarge { .. }) => Response::text(413, error.to_string()),
        Err(error @ BodyError::NoRoom) => Response::text(503, error.to_string()),
        Err(BodyError::Gone) => Response::text(500, "the task is dropped before this"),
    }
}

#[tokio::test]
async fn a_body_comes_in_pieces_and_credits_are_renewed() {
    let mut world = World::new(length).await;
    let edge = world.edge();
    edge.request("1", "POST", "/", 8192, true).await;
    let credits = edge.expect(Kind::Credit, "1", 0).await.payload().credits as usize;
    assert_eq!(credits, BODY_CREDITS);
    let half = vec![b'x'; BODY_CREDITS / 2];
    edge.piece("1", 1, &half, true).await;
    let credits = edge.expect(Kind::Credit, "1", 1).await.payload().credits as usize;
    assert_eq!(credits, BODY_CREDITS / 2);
    edge.piece("1", 2, &half, true).await;
    edge.expect(Kind::Credit, "1", 2).await;
    edge.piece("1", 3, b"abc", true).await;
    edge.piece("1", 4, b"", false).await;
    let got = edge.expect(Kind::Data, "1", 3).await;
    assert_eq!(got.body(), (BODY_CREDITS + 3).to_string());
}

#[tokio::test]
async fn a_request_without_a_body_needs_no_credits() {
    let mut world = World::new(length).await;
    world.edge().get("1", "/", 8192).await;
    assert_eq!(world.edge().expect(Kind::Data, "1", 0).await.body(), "0");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read_to_its_end() {
    let mut world = World::new(length).await;
    let edge = world.edge();
    edge.request("1", "POST", "/", 8192, true).await;
    let piece = vec![b'x'; BODY_CREDITS];
    edge.expect(Kind::Credit, "1", 0).await;
    edge.piece("1", 1, &piece, true).await;
    edge.expect(Kind::Credit, "1", 1).await;
    edge.piece("1", 2, &piece, true).await;
    let got = edge.expect(Kind::Data, "1", 2).await;
    assert_eq!(got.payload().code, Some(413));

    // Known from the head: not a byte is asked for.
    let fields = |fields: &mut Fields<'_, '_>| {
        fields.bytes("method", b"POST");
        fields.bytes("uri", b"http://host/");
        let length: (&[u8], &[u8]) = (b"Content-Length", b"100001");
        fields.headers([length].into_iter());
        fields.int("credits", 8192);
        fields.flag("more", true);
    };
    edge.send(Kind::Data, &[("2", Some(0))], fields).await;
    let got = edge.expect(Kind::Data, "2", 0).await;
    assert_eq!(got.body(), "a body of 100001 bytes or more is too large");
}

#[tokio::test]
async fn all_bodies_together_have_a_bound() {
    let tuning = Tuning { body_bytes_max: 5, ..tuning() };
    let (service, mut called, gate) = gated_reader();
    let mut world = World::tuned(service, tuning).await;
    let edge = world.edge();
    // One that has three bytes of five, and keeps them.
    edge.request("1", "POST", "/", 8192, true).await;
    edge.expect(Kind::Credit, "1", 0).await;
    edge.piece("1", 1, b"abc", false).await;
    assert_eq!(within(called.recv()).await, Some(Ok(3)));
    edge.request("2", "POST", "/", 8192, true).await;
    edge.expect(Kind::Credit, "2", 0).await;
    edge.piece("2", 1, b"def", false).await;
    assert_eq!(within(called.recv()).await, Some(Err(BodyError::NoRoom)));
    gate.add_permits(2);
    // In whatever order they end, their room is free then.
    for _ in 0..2 {
        assert_eq!(edge.recv().await.kind(), Kind::Data);
    }
    world.until(|stats| stats.requests_in_flight == 0).await;
    let edge = world.edge();
    edge.request("3", "POST", "/", 8192, true).await;
    edge.expect(Kind::Credit, "3", 0).await;
    edge.piece("3", 1, b"abcde", false).await;
    assert_eq!(within(called.recv()).await, Some(Ok(5)));
}

/// A service that reads the body, says how that went, and answers when it is let.
fn gated_reader()
-> (impl Service, mpsc::UnboundedReceiver<Result<usize, BodyError>>, Arc<Semaphore>) {
    let (read, is_read) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let own = Arc::clone(&gate);
    let service = move |mut request: Request| {
        let (read, gate) = (read.clone(), Arc::clone(&own));
        async move {
            let body = request.body(100).await;
            read.send(body.as_ref().map(Bytes::len).map_err(|error| *error)).unwrap();
            gate.acquire().await.unwrap().forget();
            Response::new(204)
        }
    };
    (service, is_read, gate)
}

#[tokio::test]
async fn more_body_than_was_granted_ends_the_session() {
    let mut world = World::new(length).await;
    let edge = world.edge();
    edge.request("1", "POST", "/", 8192, true).await;
    edge.expect(Kind::Credit, "1", 0).await;
    edge.piece("1", 1, &vec![b'x'; BODY_CREDITS + 1], true).await;
    let got = edge.recv().await;
    assert_eq!((got.kind(), got.id()), (Kind::Cancel, ("1".into(), None)));
}

#[tokio::test]
async fn a_cancel_ends_the_reading_of_a_body_elsewhere() {
    let (read, mut is_read) = mpsc::unbounded_channel();
    let service = move |mut request: Request| {
        let read = read.clone();
        // Not dropped with the request's task.
        tokio::spawn(async move { read.send(request.body(100).await) });
        std::future::pending::<Response>()
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.request("1", "POST", "/", 8192, true).await;
    edge.expect(Kind::Credit, "1", 0).await;
    edge.piece("1", 1, b"some", true).await;
    edge.cancel("1", 2).await;
    assert_eq!(within(is_read.recv()).await.unwrap(), Err(BodyError::Gone));
}

#[tokio::test]
async fn a_whole_body_is_cut_to_the_credits() {
    let service = async |_request: Request| Response::new(200).body("0123456789");
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.get("1", "/", 4).await;
    let got = edge.expect(Kind::Data, "1", 0).await;
    assert_eq!((got.body(), got.payload().more), ("0123", true));
    assert_eq!(got.headers(), [("Content-Length".to_owned(), "10".to_owned())]);
    edge.credit("1", 1, 5).await;
    let got = edge.expect(Kind::Data, "1", 1).await;
    assert_eq!((got.body(), got.payload().more), ("45678", true));
    edge.credit("1", 2, 5).await;
    let got = edge.expect(Kind::Data, "1", 2).await;
    assert_eq!((got.body(), got.payload().more, got.payload().code), ("9", false, None));

    edge.get("none", "/", 0).await;
    let got = edge.expect(Kind::Data, "none", 0).await;
    assert_eq!((got.body(), got.payload().more), ("", true));
    edge.credit("none", 1, 10).await;
    let got = edge.expect(Kind::Data, "none", 1).await;
    assert_eq!((got.body(), got.payload().more), ("0123456789", false));

    edge.get("exact", "/", 10).await;
    let got = edge.expect(Kind::Data, "exact", 0).await;
    assert_eq!((got.body(), got.payload().more), ("0123456789", false));
    assert!(got.headers().is_empty());
}

#[tokio::test]
async fn a_stream_goes_as_the_client_reads() {
    let service = async |_request: Request| {
        let (pieces, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            for piece in ["one", "", "two", "three"] {
                pieces.send(Bytes::from(piece)).await.unwrap();
            }
        });
        Response::stream(200, stream)
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.get("1", "/", 5).await;
    let (mut seq, mut edge_seq) = (0, 1);
    // What comes, and what is granted when it has come.
    for (piece, credits) in
        [("", 0), ("one", 0), ("tw", 1), ("o", 2), ("th", 100), ("ree", 0), ("", 0)]
    {
        let got = edge.expect(Kind::Data, "1", seq).await;
        assert_eq!((got.body(), got.payload().more), (piece, seq < 6));
        if credits > 0 {
            edge.credit("1", edge_seq, credits).await;
            edge_seq += 1;
        }
        seq += 1;
    }
}

#[tokio::test]
async fn a_cancel_ends_a_stream() {
    let (stopped, mut is_stopped) = mpsc::unbounded_channel();
    let service = move |_request: Request| {
        let (pieces, stream) = mpsc::channel(1);
        let stopped = stopped.clone();
        tokio::spawn(async move {
            while pieces.send(Bytes::from_static(b"tick")).await.is_ok() {}
            stopped.send(()).unwrap();
        });
        std::future::ready(Response::stream(200, stream))
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.get("1", "/", 8).await;
    for (seq, body) in ["", "tick", "tick"].into_iter().enumerate() {
        assert_eq!(edge.expect(Kind::Data, "1", seq as u32).await.body(), body);
    }
    edge.cancel("1", 1).await;
    within(is_stopped.recv()).await.unwrap();
}

#[tokio::test]
async fn what_has_no_body_gets_none() {
    let service = async |request: Request| match request.path() {
        "/stream" => Response::stream(200, mpsc::channel(1).1),
        "/204" => Response::new(204).body("none of this"),
        _ => Response::new(200).body("0123456789"),
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    for (method, path) in [("HEAD", "/whole"), ("HEAD", "/stream"), ("GET", "/204")] {
        edge.request(path, method, path, 4, false).await;
        let got = edge.expect(Kind::Data, path, 0).await;
        assert_eq!((got.body(), got.payload().more), ("", false), "{path}");
        assert_eq!(got.headers().len(), usize::from(path == "/whole"), "{path}");
    }
}
