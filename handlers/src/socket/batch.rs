//! What a client said at once, done in order, and folded into one change of its hold.
//!
//! Each request becomes one answer. What they do to the hold is gathered: a channel that is subscribed
//! to and then unsubscribed from is only removed, one that is subscribed to twice begins at the second
//! cursor. A subscribe removes its channel too, as the edge keeps the place of a channel that it reads
//! already, and removes first (H-21). The edge writes the answers behind the change, and events of what
//! was added behind them (H-93), so that the order on the socket is that of the requests.
//!
//! A client that comes back subscribes to all its channels at once: subscribes that follow each other
//! are looked up together ([`Batch::look_ahead`]).
//!
//! # Bounds
//!
//! All answers together must fit [`BODIES_BYTES_MAX`]; pages of history are what could be too much for
//! that, and get what the others leave. After a time nothing more is asked of the store, as the edge
//! does not wait for ever. Who brings one token after the other that is refused is sent away
//! ([`REFUSED_TOKENS_MAX`](super::context::REFUSED_TOKENS_MAX)); what it asked for behind them is not
//! done.

use std::collections::HashMap;

use tokio::time::Instant;
use zhttp::hold::{BODIES_BYTES_MAX, CHANNELS_PER_HOLD_MAX};

use super::Sockets;
use super::answers::{self, ANSWER_BYTES_MAX, Code, Problem};
use super::context::{self, Socket};
use super::handshake::expiry;
use super::requests::{Ask, Malformed, Request};
use super::tokens::CLOSE_REFUSED;
use crate::attach::{Answer, ClientMessages, Close, HeldChannel, catch_panic, panic_text};
use crate::auth::{Claims, LEEWAY_S};
use crate::event::MESSAGE_BYTES_MAX;
use crate::fanout::{EVENT_OVERHEAD_BYTES_MAX, PAGE_OVERHEAD_BYTES_MAX, Place, Start};
use crate::publish::{Ack, Published, Publisher};
use crate::store::{ChannelName, RangeLimits, Store, StoreError};

/// Bytes of event data in a page of history, but one event at least: less than over HTTP, as several
/// pages share the room for answers.
const SOCKET_PAGE_BYTES_MAX: usize = 256 * 1024;

/// The largest event, in bytes: rendered, a message may be six times as long.
const EVENT_BYTES_MAX: usize = 6 * MESSAGE_BYTES_MAX + 1024;

/// Which limit pages of history reach that do not fit all answers together.
const ANSWER_BYTES: &str = "answer-bytes";

/// What is being done.
pub(super) struct Batch<'s, S> {
    sockets: &'s Sockets<S>,
    said: &'s ClientMessages,
    socket: Socket,
    are_tokens_new: bool,
    is_context_new: bool,
    /// Whether it was logged that a channel could not be read: once is enough while the store is away.
    is_unread_logged: bool,
    now_ms: u64,
    /// Until then the store may be asked.
    until: Instant,
    remove: Vec<String>,
    add: Vec<HeldChannel>,
    bodies: Vec<String>,
    bodies_bytes: usize,
    /// Requests that have no answer yet, the one that is being done counted in.
    left: usize,
    /// The places of subscribes that were looked up already, by their index.
    ahead: HashMap<usize, Result<Place, StoreError>>,
}

/// A request is done.
struct Done {
    /// JSON.
    result: String,
    /// Said behind the answer.
    behind: Option<String>,
}

impl From<String> for Done {
    fn from(result: String) -> Self {
        Done { result, behind: None }
    }
}

type Parsed<'a> = Result<Request<'a>, Malformed<'a>>;

impl<'s, S: Store> Batch<'s, S> {
    /// Nothing is done yet. The store may be asked until a time.
    pub(super) fn new(
        sockets: &'s Sockets<S>,
        socket: Socket,
        said: &'s ClientMessages,
        (now_ms, until): (u64, Instant),
    ) -> Self {
        Batch {
            sockets,
            said,
            socket,
            are_tokens_new: false,
            is_context_new: false,
            is_unread_logged: false,
            now_ms,
            until,
            remove: Vec::new(),
            add: Vec::new(),
            bodies: Vec::new(),
            bodies_bytes: 0,
            left: 0,
            ahead: HashMap::new(),
        }
    }

    /// Does all of it.
    pub(super) async fn run(mut self) -> Answer {
        let bodies = self.said.bodies.iter();
        let requests: Vec<Parsed<'_>> =
            bodies.map(|body| Request::parse(body, &self.socket.org)).collect();
        for (index, request) in requests.iter().enumerate() {
            self.left = requests.len() - index;
            let behind = &requests[index + 1..];
            let done = catch_panic(self.perform(index, request, behind)).await;
            let done = done.unwrap_or_else(|panic| {
                tracing::error!(panic = panic_text(&*panic), "a request on a socket failed");
                Err(Problem::internal())
            });
            self.count_refused(request, &done);
            let (Ok(Request { id, .. }) | Err(Malformed { id, .. })) = request;
            self.say(*id, done);
            if self.socket.has_tried_enough() {
                return self.close();
            }
        }
        self.finish()
    }

    fn finish(self) -> Answer {
        let expires = self.are_tokens_new.then(|| expiry(&self.socket, self.now_ms));
        Answer {
            remove: self.remove,
            add: self.add,
            // That it fits was seen when its last token was taken.
            context: if self.is_context_new { self.socket.encode() } else { None },
            expires,
            bodies: self.bodies,
            close: None,
        }
    }

    /// Too many tokens were refused. The context says so, too: a close can be lost with the link, and
    /// then what the client says next is answered so again.
    fn close(self) -> Answer {
        let reason = "Too many tokens were refused".to_owned();
        Answer {
            // Of what was unsubscribed from no event comes, not even before the close.
            remove: self.remove,
            context: Some(context::refused(CLOSE_REFUSED)),
            bodies: self.bodies,
            close: Some(Close { code: CLOSE_REFUSED, reason }),
            ..Answer::default()
        }
    }

    fn say(&mut self, id: Option<&str>, done: Result<Done, Problem>) {
        let (answer, behind) = match done {
            Ok(Done { result, behind }) => (answers::answer(id, &result), behind),
            Err(problem) => (answers::error(id, &problem), None),
        };
        for body in std::iter::once(answer).chain(behind) {
            self.bodies_bytes += body.len();
            self.bodies.push(body);
        }
    }

    /// Does one of them; `behind` are those that follow it.
    async fn perform(
        &mut self,
        index: usize,
        request: &Parsed<'_>,
        behind: &[Parsed<'_>],
    ) -> Result<Done, Problem> {
        let (Ok(Request { token, .. }) | Err(Malformed { token, .. })) = request;
        if let Some(token) = token {
            self.take(token)?;
        }
        let Request { ask, .. } =
            request.as_ref().map_err(|malformed| Problem::bad_request(&*malformed.text))?;
        match ask {
            Ask::Ping => Ok("{}".to_owned().into()),
            Ask::Refresh => {
                let expires_s = self.socket.expires_s();
                Ok(serde_json::json!({"expires": expires_s}).to_string().into())
            }
            Ask::Subscribe { channel, start } => {
                self.check_read(channel)?;
                self.check_room(channel)?;
                self.subscribe(index, (channel, start), behind).await
            }
            Ask::Unsubscribe { channel } => {
                self.forget(channel);
                Ok(serde_json::json!({"channel": channel.channel()}).to_string().into())
            }
            Ask::Publish { channel, expect, ack, text } => {
                self.publish(channel, (*expect, *ack), (index, text)).await
            }
            Ask::History { channel, start, limit } => {
                self.check_read(channel)?;
                self.history(channel, start, *limit).await
            }
            Ask::Head { channel } => {
                self.check_read(channel)?;
                self.check_time()?;
                let head = self.sockets.pages.head(channel).await;
                head.map(Done::from).map_err(|error| self.unread(channel, &error))
            }
        }
    }

    /// Takes a token, or counts that it was refused.
    fn take(&mut self, token: &str) -> Result<(), Problem> {
        self.is_context_new = true;
        match self.sockets.tokens.taken(&self.socket, token, self.now_ms / 1000) {
            Ok(socket) => {
                self.socket = Socket { refused_tokens: 0, ..socket };
                self.are_tokens_new = true;
                Ok(())
            }
            Err(error) => {
                self.socket.refused_tokens += 1;
                Err(error.into())
            }
        }
    }

    async fn subscribe(
        &mut self,
        index: usize,
        (channel, start): (&ChannelName, &Start),
        behind: &[Parsed<'_>],
    ) -> Result<Done, Problem> {
        self.check_time()?;
        let place = match self.ahead.remove(&index) {
            Some(place) => place,
            None => self.look_ahead(index, (channel, start), behind).await,
        };
        let place = place.map_err(|error| self.unread(channel, &error))?;
        self.forget(channel);
        let Place { cursor, finished, .. } = place;
        self.add.push(HeldChannel { name: channel.to_string(), cursor, ended: finished });
        let result = serde_json::json!({
            "channel": channel.channel(), "cursor": cursor.to_string()
        });
        let behind = place.gap(channel).map(|gap| answers::control(channel, cursor, &gap));
        Ok(Done { result: result.to_string(), behind })
    }

    /// Finds the place of the subscribe at `index`, and with the same look at the store those of the
    /// ones right behind it. One that brings a token is not looked up before that was taken.
    async fn look_ahead(
        &mut self,
        index: usize,
        (channel, start): (&ChannelName, &Start),
        behind: &[Parsed<'_>],
    ) -> Result<Place, StoreError> {
        let more = behind.iter().map_while(|request| match request {
            Ok(Request { token: None, ask: Ask::Subscribe { channel, start }, .. })
                if self.check_read(channel).is_ok() =>
            {
                Some((channel, start))
            }
            Ok(_) | Err(_) => None,
        });
        let wanted: Vec<(ChannelName, Start)> = std::iter::once((channel, start))
            .chain(more)
            .map(|(channel, start)| (channel.clone(), start.in_channel(channel)))
            .collect();
        let places = match self.sockets.placer.places(&wanted, self.now_ms).await {
            Ok(places) => places.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); wanted.len()],
        };
        let mut places = places.into_iter();
        let first = places.next().expect("the first of them is wanted");
        self.ahead.extend((index + 1..).zip(places));
        first
    }

    /// Forgets what was to be read of a channel, here and at the edge.
    fn forget(&mut self, channel: &ChannelName) {
        let name = channel.as_str();
        self.add.retain(|added| added.name != name);
        if !self.remove.iter().any(|removed| removed == name) {
            self.remove.push(name.to_owned());
        }
    }

    async fn history(
        &mut self,
        channel: &ChannelName,
        start: &Start,
        limit: u32,
    ) -> Result<Done, Problem> {
        let taken = self.bodies_bytes + self.left * ANSWER_BYTES_MAX;
        let overhead = PAGE_OVERHEAD_BYTES_MAX + limit as usize * EVENT_OVERHEAD_BYTES_MAX;
        let room = BODIES_BYTES_MAX.saturating_sub(taken + overhead);
        if room < EVENT_BYTES_MAX {
            let text = "Too much history is asked for at once";
            return Err(Problem::limited(text, ANSWER_BYTES));
        }
        self.check_time()?;
        let bytes_max = room.min(SOCKET_PAGE_BYTES_MAX) as u64;
        let limits = RangeLimits { events_max: limit, bytes_max };
        let page = self.sockets.pages.page(channel, start, limits, self.now_ms).await;
        page.map(Done::from).map_err(|error| self.unread(channel, &error))
    }

    async fn publish(
        &self,
        channel: &ChannelName,
        how: (Option<u64>, Ack),
        (index, text): (usize, &[u8]),
    ) -> Result<Done, Problem> {
        let publisher = self.check_publish(channel)?;
        self.check_time().inspect_err(|_| publisher.count_unavailable())?;
        let new_id = self.socket.message_id(self.said.number, index);
        let result = match publisher.publish_one(channel.clone(), how, text, new_id).await? {
            Published::Stored(stored) => {
                let mut result = serde_json::json!({"id": stored.id.to_string()});
                if stored.duplicate {
                    result["duplicate"] = true.into();
                }
                result
            }
            Published::Accepted => serde_json::json!({}),
        };
        Ok(result.to_string().into())
    }

    /// What would be asked of the store now comes too late.
    fn check_time(&self) -> Result<(), Problem> {
        if Instant::now() < self.until { Ok(()) } else { Err(Problem::unavailable()) }
    }

    /// One more channel may be read. Whether the edge reads this one already is not known here, nor
    /// whether it reads those that were unsubscribed from: so they count.
    fn check_room(&self, channel: &ChannelName) -> Result<(), Problem> {
        let others = self.add.iter().filter(|added| added.name != channel.as_str()).count();
        if self.said.channels.saturating_add(others as u64) < CHANNELS_PER_HOLD_MAX as u64 {
            return Ok(());
        }
        let text = format!("A socket reads at most {CHANNELS_PER_HOLD_MAX} channels");
        Err(Problem::new(Code::TooManyChannels, text))
    }

    fn check_read(&self, channel: &ChannelName) -> Result<(), Problem> {
        let claims = self.socket.subscriber.as_ref();
        let claims = claims.ok_or_else(|| {
            Problem::new(Code::Unauthorized, "This needs the token of a subscriber")
        })?;
        self.check_covers(claims, channel)
    }

    fn check_publish(&self, channel: &ChannelName) -> Result<&'s Publisher<S>, Problem> {
        let (claims, publisher) = (&self.socket.publisher, &self.sockets.publisher);
        let (Some(claims), Some(publisher)) = (claims, publisher) else {
            return Err(Problem::new(Code::Unauthorized, "This needs the token of a publisher"));
        };
        self.check_covers(claims, channel)?;
        Ok(publisher)
    }

    fn check_covers(&self, claims: &Claims, channel: &ChannelName) -> Result<(), Problem> {
        if claims.expires_s.saturating_add(LEEWAY_S) < self.now_ms / 1000 {
            return Err(Problem::new(Code::InvalidToken, "Token expired"));
        }
        claims
            .authorize(channel.org(), &[channel.channel()])
            .map_err(|_| Problem::new(Code::Forbidden, "The token does not cover this channel"))
    }

    /// Counts a message that nobody was allowed to publish, or that is none.
    fn count_refused(&self, request: &Parsed<'_>, done: &Result<Done, Problem>) {
        let is_publish = match request {
            Ok(Request { ask, .. }) => matches!(ask, Ask::Publish { .. }),
            Err(malformed) => malformed.is_publish,
        };
        let (true, Err(problem)) = (is_publish, done) else { return };
        let refused = [Code::Unauthorized, Code::InvalidToken, Code::Forbidden];
        if refused.contains(&problem.code) {
            self.count_invalid("token");
        } else if request.is_err() {
            self.count_invalid("request");
        }
    }

    fn count_invalid(&self, reason: &'static str) {
        if let Some(publisher) = &self.sockets.publisher {
            publisher.count_invalid(reason);
        }
    }

    fn unread(&mut self, channel: &ChannelName, error: &StoreError) -> Problem {
        if !std::mem::replace(&mut self.is_unread_logged, true) {
            tracing::warn!(%channel, %error, "a channel could not be read for a socket");
        }
        Problem::from(error)
    }
}
