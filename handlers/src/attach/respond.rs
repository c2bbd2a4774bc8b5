//! Sends a response: the head with as much of the body as the edge takes, then pieces as it takes
//! more.
//!
//! | response | packets |
//! | --- | --- |
//! | a body that fits the credits | one |
//! | a larger one | the head and the first piece, with `Content-Length`, then pieces as credits come |
//! | a stream | the head at once, pieces as they come and credits allow, an empty last one |
//! | to HEAD, or 204, 304 | the head |
//! | with a hold | one, after which the session is the edge's alone |
//! | a WebSocket that is not held | `error` with condition `rejected` |

use bytes::Bytes;
use zhttp::hold::{Format, HoldChannel, HoldParams};
use zhttp::{Fields, Kind, Packet, PacketError};

use super::flow::Gone;
use super::request::Request;
use super::response::{Body, Hold, Response, whole_seconds};
use super::session::Session;

/// The most body that one packet carries, in bytes, whatever the credits: far below the 16 MiB of a
/// message, and no other session waits long behind it.
const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// Why a hold was not sent: the handler's fault, found here because the edge could only end the
/// session.
#[derive(Debug, thiserror::Error)]
enum HoldError {
    #[error("the edge did not offer to hold this connection")]
    NotOffered,
    #[error("a hold is taken with one packet: its body must be whole and at most {credits} bytes")]
    Body { credits: usize },
    #[error("format sse is for HTTP, ws for WebSockets")]
    Format,
    #[error(transparent)]
    Packet(#[from] PacketError),
}

/// What a response depends on in its request.
#[derive(Debug)]
pub(super) struct Asked {
    head_only: bool,
    websocket: bool,
    can_hold: bool,
    /// For the log, where a token in a query has no place.
    path: String,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        Asked {
            head_only: request.method == "HEAD",
            websocket: request.is_websocket(),
            can_hold: request.can_hold(),
            path: request.path().to_owned(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// Sends a response, whole.
pub(super) async fn respond(
    session: &Session,
    asked: &Asked,
    mut response: Response,
) -> Result<(), Gone> {
    if let Some(hold) = response.hold.take() {
        let held = match check_hold(session, asked, &response, &hold)? {
            Ok(()) => send_held(session, &response, &hold).await?,
            Err(error) => Err(error),
        };
        match held {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::error!(path = asked.path, %error, "a hold that cannot be");
                response = Response::text(500, "Internal Server Error\n");
            }
        }
    }
    if asked.websocket {
        return send_rejection(session, response).await;
    }
    let head_only = asked.head_only || response.is_bodyless();
    match std::mem::replace(&mut response.body, Body::Whole(Bytes::new())) {
        Body::Whole(body) if head_only => {
            if asked.head_only && !body.is_empty() {
                add_content_length(&mut response, body.len());
            }
            send_head(session, &response, b"", false).await
        }
        Body::Whole(mut body) => {
            let first = take_piece(&mut body, |wanted| session.try_credits(wanted))?;
            if !body.is_empty() {
                add_content_length(&mut response, first.len() + body.len());
            }
            send_head(session, &response, &first, !body.is_empty()).await?;
            send_pieces(session, body, false).await
        }
        Body::Stream(_) if head_only => send_head(session, &response, b"", false).await,
        Body::Stream(mut pieces) => {
            send_head(session, &response, b"", true).await?;
            while let Some(piece) = pieces.recv().await {
                send_pieces(session, piece, true).await?;
            }
            send_piece(session, b"", false).await
        }
    }
}

/// So that the client knows the size although the edge sees only a part of the body.
fn add_content_length(response: &mut Response, len: usize) {
    if !response.has_header("content-length") {
        response.headers.push(("Content-Length".into(), len.to_string()));
    }
}

/// Cuts off as much as `credits` grants.
fn take_piece(
    body: &mut Bytes,
    credits: impl FnOnce(usize) -> Result<usize, Gone>,
) -> Result<Bytes, Gone> {
    let taken = credits(body.len().min(PIECE_BYTES_MAX))?;
    Ok(body.split_to(taken))
}

/// Sends all of `body` as the edge takes it; `more` follows it or not.
async fn send_pieces(session: &Session, mut body: Bytes, more: bool) -> Result<(), Gone> {
    while !body.is_empty() {
        let taken = session.credits(body.len().min(PIECE_BYTES_MAX)).await?;
        let piece = body.split_to(taken);
        send_piece(session, &piece, more || !body.is_empty()).await?;
    }
    Ok(())
}

async fn send_piece(session: &Session, piece: &[u8], more: bool) -> Result<(), Gone> {
    let payload = |fields: &mut Fields<'_, '_>| {
        fields.bytes("body", piece);
        fields.flag("more", more);
    };
    session.send(Kind::Data, |_| {}, payload).await
}

async fn send_head(
    session: &Session,
    response: &Response,
    piece: &[u8],
    more: bool,
) -> Result<(), Gone> {
    let payload = |fields: &mut Fields<'_, '_>| {
        write_head(fields, response);
        fields.bytes("body", piece);
        fields.flag("more", more);
    };
    session.send(Kind::Data, |_| {}, payload).await
}

fn write_head(fields: &mut Fields<'_, '_>, response: &Response) {
    fields.int("code", response.code.into());
    let headers = response.headers.iter();
    fields.headers(headers.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
}

/// Refuses the handshake of a WebSocket with an ordinary response. It is one packet, so a body that
/// is streamed, or larger than the edge takes, is left out.
async fn send_rejection(session: &Session, response: Response) -> Result<(), Gone> {
    let body = match &response.body {
        Body::Whole(body) if session.try_credits(body.len())? == body.len() => body.clone(),
        Body::Whole(_) | Body::Stream(_) => Bytes::new(),
    };
    let payload = |fields: &mut Fields<'_, '_>| {
        fields.bytes("condition", b"rejected");
        write_head(fields, &response);
        fields.bytes("body", &body);
    };
    session.send(Kind::Error, |_| {}, payload).await
}

async fn send_held(
    session: &Session,
    response: &Response,
    hold: &Hold,
) -> Result<Result<(), HoldError>, Gone> {
    let payload = |fields: &mut Fields<'_, '_>| write_held_payload(fields, response);
    // Read as the edge will read it, so that its rules stand in one place, the codec.
    let check = |packet: &[u8]| HoldParams::read(&Packet::parse(packet)?).map(drop);
    let sent = session.send_checked(Kind::Data, |ext| write_hold(ext, hold), payload, check);
    Ok(sent.await?.map_err(|error| {
        // The answer that takes its place needs the credits that were taken for the body.
        if let Body::Whole(body) = &response.body {
            session.handle_credits(u32::try_from(body.len()).unwrap_or(u32::MAX));
        }
        HoldError::Packet(error)
    }))
}

fn write_held_payload(fields: &mut Fields<'_, '_>, response: &Response) {
    write_head(fields, response);
    if let Body::Whole(body) = &response.body {
        fields.bytes("body", body);
    }
}

/// Whether the edge can take this hold, as far as that is not said by the packet itself. Takes the
/// credits for the body, if so.
fn check_hold(
    session: &Session,
    asked: &Asked,
    response: &Response,
    hold: &Hold,
) -> Result<Result<(), HoldError>, Gone> {
    if !asked.can_hold {
        return Ok(Err(HoldError::NotOffered));
    }
    if asked.websocket != (hold.format == Format::Ws) {
        return Ok(Err(HoldError::Format));
    }
    let wanted = match &response.body {
        Body::Whole(body) => body.len(),
        Body::Stream(_) => return Ok(Err(HoldError::Body { credits: session.try_credits(0)? })),
    };
    let credits = session.try_credits(wanted)?;
    if credits == wanted {
        return Ok(Ok(()));
    }
    session.handle_credits(u32::try_from(credits).unwrap_or(u32::MAX));
    Ok(Err(HoldError::Body { credits }))
}

fn write_hold(ext: &mut Fields<'_, '_>, hold: &Hold) {
    let params = HoldParams {
        format: hold.format,
        // Written from the iterator.
        channels: zhttp::hold::Channels::default(),
        keep_alive_ms: u64::try_from(hold.keep_alive.as_millis()).unwrap_or(u64::MAX),
        expires_s: hold.expires.map_or(0, whole_seconds),
        expires_code: hold.expires_code,
        context: &hold.context,
        notify: hold.notify,
        persistent: hold.persistent,
        messages: &hold.messages,
    };
    params.write_channels(ext, hold.channels.iter().map(HoldChannel::from));
}
