//! The log at debug level, for those who ask for it while the process runs.
//!
//! `--log-level` says what goes to standard output and stays. A [`Tap`] is for the moment: whoever follows it gets every
//! line up to debug from then on, and when nobody does, it costs nothing. "Nothing" is literal: `tracing` keeps the
//! highest level that anybody wants in one atomic number, which each `debug!` looks at first; the tap says *off*, and
//! lets the number be worked out anew when the first follower comes and when the last one leaves. A debug event is
//! therefore not even formatted, as long as nobody sees it.
//!
//! **A follower never delays the edge.** Lines go into a ring that all followers share ([`LINES_KEPT_MAX`]). Who falls
//! behind by more than the ring loses the oldest lines, and is told how many.
//!
//! Who calls: [`log::init_with_tap`](super::init_with_tap) makes one for the process, `debug_socket.rs` follows it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Zoned;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Lines that a follower may be behind; a power of two. Past it, it loses the oldest. All followers share them.
pub const LINES_KEPT_MAX: usize = 1024;

/// The longest line that followers get, in bytes with its end; what goes beyond is cut off. With [`LINES_KEPT_MAX`] it
/// bounds the memory of the ring: 4 MiB.
pub const LINE_BYTES_MAX: usize = 4096;

/// Where the log can be followed. See the head of this file.
#[derive(Debug)]
pub struct Tap {
    /// `None` is the end.
    lines: broadcast::Sender<Option<Arc<str>>>,
    /// Whether anybody follows; what the filter looks at.
    is_open: AtomicBool,
    /// How many follow. The lock is held while the level changes, so that the last to leave cannot close the tap for one
    /// who just came.
    followers: Mutex<usize>,
}

/// What a follower gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line with its end.
    Text(Arc<str>),
    /// So many lines are lost, because this follower was too slow.
    Lost(u64),
    /// The log goes on without its followers.
    End,
}

impl Tap {
    pub(crate) fn new() -> Arc<Tap> {
        let (lines, _) = broadcast::channel(LINES_KEPT_MAX);
        Arc::new(Tap { lines, is_open: AtomicBool::new(false), followers: Mutex::new(0) })
    }

    /// Follows the log from here on.
    pub fn follow(self: &Arc<Self>) -> Lines {
        let receiver = self.lines.subscribe();
        self.change(|followers| followers + 1);
        Lines { tap: Arc::clone(self), receiver }
    }

    /// Ends it for all who follow, behind the lines that are on their way to them.
    pub fn end(&self) {
        // An error says that nobody follows.
        let _ = self.lines.send(None);
    }

    /// Gives all who follow a line, with its end.
    pub(crate) fn put(&self, line: &str) {
        // An error says that nobody follows any more.
        let _ = self.lines.send(Some(line.into()));
    }

    /// How many follow.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        *self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        *followers = change(*followers);
        let is_open = *followers > 0;
        if self.is_open.swap(is_open, Ordering::Relaxed) != is_open {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    fn level(&self) -> LevelFilter {
        if self.is_open.load(Ordering::Relaxed) { LevelFilter::DEBUG } else { LevelFilter::OFF }
    }
}

/// The lines of one follower. It stops to follow when this is dropped.
#[derive(Debug)]
pub struct Lines {
    tap: Arc<Tap>,
    receiver: broadcast::Receiver<Option<Arc<str>>>,
}

impl Lines {
    /// Waits for what comes next. Cancel-safe.
    pub async fn next(&mut self) -> Line {
        match self.receiver.recv().await {
            Ok(Some(text)) => Line::Text(text),
            Ok(None) | Err(RecvError::Closed) => Line::End,
            Err(RecvError::Lagged(count)) => Line::Lost(count),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.tap.change(|followers| followers - 1);
    }
}

/// The layer that feeds a tap.
pub(super) fn layer<S>(tap: &Arc<Tap>, now: fn() -> Zoned) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    TapLayer { tap: Arc::clone(tap), now }.with_filter(TapFilter(Arc::clone(tap)))
}

struct TapLayer {
    tap: Arc<Tap>,
    now: fn() -> Zoned,
}

impl<S: Subscriber> Layer<S> for TapLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Cut::default();
        // It fails only if a value's own formatting does, and then there is no line.
        if super::write_event(&mut line, &(self.now)(), event).is_ok() {
            self.tap.put(&line.finish());
        }
    }
}

/// A line that stops to grow at its limit.
#[derive(Default)]
struct Cut {
    line: String,
}

impl Cut {
    /// The line, with its end even if that was cut off.
    fn finish(mut self) -> String {
        if !self.line.ends_with('\n') {
            self.line.push('\n');
        }
        self.line
    }
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_BYTES_MAX - 1 - self.line.len();
        let end = text.floor_char_boundary(room.min(text.len()));
        self.line.push_str(&text[..end]);
        Ok(())
    }
}

/// Lets through what followers want: everything up to debug while there is one, else nothing.
struct TapFilter(Arc<Tap>);

impl<S> Filter<S> for TapFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *metadata.level() <= self.0.level()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // What is said here is kept until the interests are worked out anew, which `Tap::change` sees to.
        if *metadata.level() <= self.0.level() { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

    use tracing::subscriber::with_default;

    use super::*;
    use crate::log;

    /// A line without its time; the time is of now.
    fn text(line: Line) -> String {
        match line {
            Line::Text(line) => {
                let (level, rest) = line.split_once(' ').unwrap();
                let (_, text) = rest.split_once("] ").unwrap();
                format!("{level} {text}")
            }
            Line::Lost(count) => format!("lost {count}"),
            Line::End => "end".to_owned(),
        }
    }

    /// What is there already.
    fn now(lines: &mut Lines) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut texts = Vec::new();
            while !lines.receiver.is_empty() {
                texts.push(text(lines.next().await));
            }
            texts
        })
    }

    fn with_tap(test: impl FnOnce(&Arc<Tap>)) {
        let tap = Tap::new();
        let subscriber = log::subscriber(LevelFilter::ERROR, Zoned::now, io::sink, &tap);
        with_default(subscriber, || test(&tap));
    }

    /// Fails when it is formatted.
    struct Unseen;

    impl fmt::Display for Unseen {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("nobody wanted it");
        }
    }

    #[test]
    fn everything_up_to_debug_from_then_on() {
        with_tap(|tap| {
            tracing::info!("before");
            let mut lines = tap.follow();
            tracing::error!("e");
            tracing::info!(count = 1, "a\nb");
            tracing::debug!("d");
            tracing::trace!("{Unseen}");
            assert_eq!(now(&mut lines), ["[ERR] e\n", "[INFO] a\\nb count=1\n", "[DEBUG] d\n"]);
        });
    }

    #[test]
    fn without_followers_nothing_is_formatted() {
        with_tap(|tap| {
            tracing::debug!("{Unseen}");
            let (first, mut second) = (tap.follow(), tap.follow());
            drop(first);
            // The same place in the code, so that a kept interest would show.
            for _ in 0..2 {
                tracing::debug!("seen");
            }
            assert_eq!(now(&mut second), ["[DEBUG] seen\n"; 2]);
            drop(second);
            tracing::debug!("{Unseen}");
            let mut third = tap.follow();
            tracing::debug!("again");
            assert_eq!(now(&mut third), ["[DEBUG] again\n"]);
        });
    }

    #[test]
    fn who_is_slow_is_told_what_it_lost() {
        with_tap(|tap| {
            let mut lines = tap.follow();
            for index in 0..LINES_KEPT_MAX + 3 {
                tracing::debug!("{index}");
            }
            let texts = now(&mut lines);
            assert_eq!(texts[..2], ["lost 3", "[DEBUG] 3\n"]);
            assert_eq!(texts.len(), LINES_KEPT_MAX + 1);
        });
    }

    #[test]
    fn the_end_comes_last() {
        with_tap(|tap| {
            tap.end();
            let mut lines = tap.follow();
            tracing::debug!("last words");
            tap.end();
            assert_eq!(now(&mut lines), ["[DEBUG] last words\n", "end"]);
        });
    }

    #[test]
    fn long_lines_are_cut() {
        with_tap(|tap| {
            let mut lines = tap.follow();
            tracing::debug!("{}", "é".repeat(LINE_BYTES_MAX));
            tracing::debug!("next");
            let texts = now(&mut lines);
            assert!(texts[0].ends_with("éé\n"));
            assert!((LINE_BYTES_MAX - 100..=LINE_BYTES_MAX).contains(&texts[0].len()));
            assert_eq!(texts[1], "[DEBUG] next\n");
        });
    }
}
