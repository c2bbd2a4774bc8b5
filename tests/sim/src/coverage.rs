//! Rare states that a run has been in, counted: what is never reached is not tested.

use std::fmt;

macro_rules! marks {
    ($($(#[$doc:meta])* $mark:ident = $name:literal,)*) => {
        /// A state that runs should come into, now and then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark { $($(#[$doc])* $mark,)* }

        impl Mark {
            /// All of them.
            pub const ALL: &[Mark] = &[$(Mark::$mark,)*];

            /// How it is called in a report.
            pub const fn name(self) -> &'static str {
                match self { $(Mark::$mark => $name,)* }
            }
        }
    };
}

marks! {
    /// The store lets go of old events, and a reader is told.
    GapTrimmed = "gap: trimmed",
    /// The log is another one.
    GapRecreated = "gap: recreated",
    /// A fail-over lost what the reader had, or was to get.
    GapLost = "gap: lost by a fail-over",
    /// A reader from beyond the end is led back by the handler that takes its hold.
    GapBack = "gap: led back by a handler",
    /// A control event from the log.
    ControlStored = "control event from the log",
    /// An end is delivered to one who was behind when it came.
    EndWhileBehind = "END while behind",
    /// A response ends because all its channels have.
    EndedByChannels = "response ended by its channels",
    /// A response ends at its time.
    EndedByExpiry = "response ended at its time",
    /// A handler closes a response.
    EndedByHandler = "response ended by a handler",
    /// The connection carries another request behind the end.
    Reused = "connection used again behind a hold",
    /// There is nothing to read any more.
    Rested = "204: everything has ended",
    /// A client comes back with a cursor.
    ResumePlain = "resumed by a plain cursor",
    /// A client comes back with a composite cursor.
    ResumeComposite = "resumed by a composite cursor",
    /// A client comes with a cursor of another channel.
    ResumeForeign = "resumed by a foreign cursor",
    /// A client comes with what is no cursor.
    CursorInvalid = "400: invalid cursor",
    /// A channel is added to a hold, or taken from it.
    HoldChanged = "hold changed",
    /// The same while the client is behind.
    HoldChangedBehind = "hold changed while behind",
    /// A handler writes to a client.
    NoteSeen = "send delivered",
    /// The edge tells a handler that a held client left.
    ClosedTold = "closed told",
    /// A comment keeps a connection alive.
    Comment = "comment on a silent connection",
    /// A held client's socket is full and its backlog too.
    Blocked = "held client blocked",
    /// It reads on.
    Drained = "blocked client drained",
    /// A worker's turn is over, and it has more to deliver.
    TurnUnfinished = "turn ended with deliveries left",
    /// Events come meanwhile.
    EventsInFanout = "events came during a fan-out",
    /// More of them than it keeps.
    FanoutFull = "more events than wait for a fan-out",
    /// An event for more members than are served in one go.
    CrowdServed = "event for more members than a slice",
    /// A client that is there no more is given up.
    HalfDeadEnded = "half-dead client given up",
    /// A client resets its connection.
    ClientReset = "client reset",
    /// A client closes its side of a response that goes on.
    ClientHalfClosed = "client half-closed",
    /// A `feed` names what the edge has.
    FeedWithHead = "feed with a head",
    /// A channel's feeder changes while a range is on its way.
    FeederChangedInRange = "feeder changed while a range was in flight",
    /// A range is asked again since nothing came.
    RangeAgain = "range asked again",
    /// A range finds nothing.
    RangeEmpty = "range answered by a head",
    /// A worker is served from the tail.
    TailServed = "tail served",
    /// A range asks beyond the end of the log.
    RangeBeyond = "range or feed beyond the end of the log",
    /// A channel without members is let go.
    Unfed = "channel let go",
    /// A channel gets a member again in time.
    LingerSaved = "channel kept by its linger",
    /// A worker's queue is full: events are dropped.
    WorkerMissed = "worker missed events",
    /// It is told where they end.
    WorkerTold = "worker told heads for what it missed",
    /// A fail-over loses what was acknowledged.
    LostAcknowledged = "fail-over lost acknowledged events",
    /// And what was not.
    LostUnacknowledged = "fail-over lost unacknowledged events",
    /// And a whole log.
    LostLog = "fail-over lost a log",
    /// A reader of a log that is gone is told by the end of another.
    GoneTold = "log that is gone made known by an end",
    /// A feeder makes the loss known by an event.
    LossTold = "loss made known by a control event",
    /// Announcements are interrupted.
    Interrupted = "announcements interrupted",
    /// The store's clock jumps back, and a new epoch begins.
    EpochAheadOfClock = "epoch ahead of the clock",
    /// The cleaner ends and deletes an idle log.
    IdleDeleted = "idle log deleted",
    /// The cleaner comes too late: somebody has appended.
    FenceHeld = "deletion stopped by its fence",
    /// Packets are lost, or come twice.
    PacketLost = "packet lost",
    /// Packets come twice.
    PacketRepeated = "packet repeated",
    /// A link is cut in one direction.
    Partitioned = "link partitioned one way",
    /// A handler's queue is full.
    PeerFull = "handler's queue full",
    /// So much waits for it that packets are dropped.
    PeerDropped = "packet dropped for a stalled handler",
    /// A handler is there but its ttl has passed.
    HandlerExpired = "handler expired",
    /// The edge is killed.
    EdgeKilled = "edge killed",
    /// The edge stops in order.
    EdgeDrained = "edge drained",
    /// It does so with events on their way.
    DrainInDelivery = "drain in mid-delivery",
    /// The edge does nothing for a while.
    EdgePaused = "edge paused",
    /// Its clock stands and leaps.
    ClockFrozen = "clock stalled and leapt",
    /// A request is given to another handler.
    GivenAgain = "request given to another handler",
    /// A handler that it was taken from answers late.
    Withdrawn = "late answer cancelled",
    /// Whoever has no session is told so.
    UnknownCancelled = "unknown session cancelled",
    /// One packet for several sessions.
    MultiCancel = "cancel of several sessions",
    /// The edge keeps a session alive.
    SessionKeptAlive = "session kept alive",
    /// A session goes to another handler.
    HandedOff = "session handed over",
    /// A handler waits for credits.
    CreditsAwaited = "response waited for credits",
    /// A body is sent up under credits.
    Uploaded = "body uploaded in pieces",
    /// A session's numbers have a hole.
    BadSequence = "wrong number in a session",
    /// 502, and the client comes back.
    Retried502 = "502 retried",
    /// Nobody is there.
    Refused503 = "503: no handler",
    /// A handler says nothing.
    TimedOut504 = "504: handler silent",
    /// Nobody ever served it.
    Unserved404 = "404: never served",
    /// A response is cut in its body.
    CutInBody = "response cut in its body",
    /// A visitor asks on a connection that has carried an answer.
    VisitorReused = "connection used again behind an answer",
    /// A request that was sent ahead has its turn.
    Pipelined = "pipelined request has its turn",
    /// A request that was sent ahead is behind the last answer.
    PipelineDropped = "pipelined request behind the last answer",
    /// A client asks for the end of its connection.
    ClosedAsAsked = "connection closed as its client asked",
    /// A visitor is told to send its body.
    Continued = "100: body sent",
    /// It is not, and sends it after a while.
    ContinueUnheard = "100 awaited in vain",
    /// It gets an answer instead.
    ContinueRefused = "answer instead of 100",
    /// A handler answers without the request's body.
    AnsweredEarly = "answer before the body was read",
    /// A visitor that has closed its side is answered.
    HalfClosedAnswered = "half-closed visitor answered",
    /// It is taken for gone.
    HalfClosedGone = "half-closed visitor given up",
    /// A visitor's socket is full.
    AnswerWaits = "answer waited for its client",
    /// A plain handler takes no push.
    PushRefused = "push refused",
    /// A client reads on a WebSocket.
    SocketHeld = "WebSocket held",
    /// With compression.
    SocketDeflated = "WebSocket held, compressed",
    /// It comes back with a place in each channel.
    SocketResumed = "WebSocket resumed",
    /// Somebody speaks before it has an answer to its handshake.
    SaidAhead = "message before the WebSocket is held",
    /// What a client says is answered.
    SaidAnswered = "message answered",
    /// A `message` has several.
    SaidInBatch = "several messages in one packet",
    /// A message is given to another handler.
    SaidAgain = "message given to another handler",
    /// A handler answers again.
    AnsweredTwice = "message answered twice by a handler",
    /// One answers when another has.
    AnsweredLate = "message answered by a former handler too",
    /// A client that is full is answered.
    AnswerToFull = "answer to a client that takes nothing",
    /// A draining edge lets an answer through.
    AnswerInDrain = "answer while the edge drains",
    /// A client subscribes while it is behind in another channel.
    SubscribedBehind = "subscribed while another channel is behind",
    /// One is led back in a channel that it subscribes to.
    SubscribedBack = "subscribed from beyond the end",
    /// An event comes on a WebSocket that was not over when all its channels were.
    PersistentOutlives = "persistent WebSocket outlives all ENDs",
    /// A ping is answered.
    Ponged = "ping answered",
    /// A client's close is answered.
    CloseAnswered = "close answered",
    /// Only when all that it had said before was.
    CloseWaited = "close answered behind the answers",
    /// A message has no answer in time.
    Unanswered1013 = "1013: message not answered",
    /// Nobody takes it.
    Refused1013 = "1013: message refused",
    /// A client that sends nothing more has all its answers.
    HalfClosedHeard = "half-closed WebSocket answered",
    /// A client does not get to the end of a message.
    Unfinished1008 = "1008: message not finished",
    /// A client says too much.
    TooLong1009 = "1009: message too long",
    /// Nobody would hear it.
    Unheard1003 = "1003: messages not taken",
    /// The edge stops.
    Stopping1001 = "1001: the edge stops",
    /// The time of a WebSocket is up, with a code.
    ExpiredWithCode = "WebSocket expired with a code",
    /// A handler ends it, with a code.
    ClosedWithCode = "WebSocket closed by a handler",
    /// All its channels have ended.
    SocketEnded = "WebSocket ended by its channels",
    /// A request of req mode is answered.
    ReqAnswered = "req mode answered",
    /// A request of req mode is not.
    ReqFailed = "req mode failed",
}

/// How often each was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage([u64; Mark::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Coverage([0; Mark::ALL.len()])
    }
}

impl Coverage {
    /// It was reached.
    pub fn count(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// How often it was.
    pub fn of(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds what another run has reached.
    pub fn add(&mut self, other: &Coverage) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// What was never reached.
    pub fn missing(&self) -> impl Iterator<Item = Mark> + '_ {
        Mark::ALL.iter().copied().filter(|mark| self.of(*mark) == 0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in Mark::ALL {
            writeln!(f, "{:>12}  {}", self.of(*mark), mark.name())?;
        }
        Ok(())
    }
}
