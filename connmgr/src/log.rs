//! Log lines, in Condure's form, on standard output:
//!
//! ```text
//! [INFO] 2026-01-31 12:00:00.123 [forebay_connmgr::edge] listening on 0.0.0.0:8000 workers=2
//! ```
//!
//! That is `[LEVEL] date time [module] text`, in local time, then the event's fields as `key=value`. The levels are
//! `ERR`, `WARN`, `INFO`, `DEBUG` and `TRACE` (measured on Condure 1.9.1). Pushpin's runner
//! reads its children's standard output and inserts the service's name after the third space of a line that begins
//! with a bracket, so the form up to there is a contract; and it is why nothing goes to standard error.
//!
//! **One event is one line.** Control characters are escaped, as in `\n` and `\u{1b}`, so that nothing that came from a
//! client can forge a line or drive a terminal. A line is written with one call, under standard output's lock, and
//! leaves the process at its end.
//!
//! **A log that cannot be written is lost.** Whoever reads our output may go away before us; an edge that holds a
//! million clients does not die of it, and there is nobody left to be told.
//!
//! Besides, the log can be tapped at debug level while the process runs, whatever goes to standard output: [`Tap`].
//!
//! Spans are not printed: the workers have none. What can happen at any rate (a failing accept, packets that nobody
//! understands) is logged through [`OncePerSecond`].

mod tap;

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;

use jiff::Zoned;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{self as lines, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry};

pub use tap::{LINE_BYTES_MAX, LINES_KEPT_MAX, Line, Lines, Tap};

/// How often [`OncePerSecond`] lets a line through, in milliseconds.
pub const LINE_INTERVAL_MS: u64 = 1000;

/// The log of this process has been set up before.
#[derive(Debug, thiserror::Error)]
#[error("the log is set up already")]
pub struct LogError(#[from] tracing::subscriber::SetGlobalDefaultError);

/// Sends all events of this process, up to a level, to standard output.
///
/// # Errors
/// If that was done before: a process has one log.
pub fn init(level: LevelFilter) -> Result<(), LogError> {
    init_with_tap(level).map(drop)
}

/// The same, for a process in which others may follow the log at debug level.
///
/// # Errors
/// If there is a log already.
pub fn init_with_tap(level: LevelFilter) -> Result<Arc<Tap>, LogError> {
    let tap = Tap::new();
    let subscriber = subscriber(level, Zoned::now, io::stdout, &tap);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(tap)
}

fn subscriber<W>(
    level: LevelFilter,
    now: fn() -> Zoned,
    writer: W,
    tap: &Arc<Tap>,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let output = lines::layer()
        .with_ansi(false)
        // Otherwise it complains on standard error, and panics if that is closed as well.
        .log_internal_errors(false)
        .event_format(LineFormat { now })
        .with_writer(writer)
        .with_filter(level);
    Registry::default().with(output).with(tap::layer(tap, now))
}

/// Writes an event as a line, up to and with its end.
fn write_event(out: &mut dyn fmt::Write, now: &Zoned, event: &Event<'_>) -> fmt::Result {
    write_start(out, now, *event.metadata().level(), event.metadata().target())?;
    let mut fields = Fields { line: OneLine { out }, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    out.write_char('\n')
}

/// A line that is for one reader alone, and so not an event.
pub(crate) fn line(level: Level, module: &str, text: &str) -> String {
    let mut line = String::new();
    write_start(&mut line, &Zoned::now(), level, module).expect("a string takes all");
    write!(OneLine { out: &mut line }, " {text}").expect("a string takes all");
    line + "\n"
}

fn write_start(out: &mut dyn fmt::Write, now: &Zoned, level: Level, module: &str) -> fmt::Result {
    let level = match level {
        Level::ERROR => "ERR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    };
    write!(out, "[{level}] {} [{module}]", now.strftime("%Y-%m-%d %H:%M:%S%.3f"))
}

/// Writes an event as a line.
struct LineFormat {
    /// The wall clock, with the time zone.
    now: fn() -> Zoned,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write_event(&mut writer, &(self.now)(), event)
    }
}

/// Writes the fields of an event behind each other. The text of a message is the field `message`, and the first.
struct Fields<'a> {
    line: OneLine<'a>,
    /// A visitor cannot fail, so the first failure is kept here.
    result: fmt::Result,
}

impl Visit for Fields<'_> {
    /// Also called for what has no method of its own here, such as numbers and `%` values.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = match field.name() {
                "message" => write!(self.line, " {value:?}"),
                name => write!(self.line, " {name}={value:?}"),
            };
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{}", Causes(value)));
    }
}

/// An error with all that caused it, on one line. The cause is what an operator needs most: an error says what failed, its
/// source says why.
///
/// Some errors of other crates repeat their source in their own text. So a cause that the line already ends with is left
/// out.
pub(crate) struct Causes<'e>(pub(crate) &'e dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&line)
    }
}

/// Escapes control characters.
struct OneLine<'a> {
    out: &'a mut dyn fmt::Write,
}

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            write!(self.out, "{}{}", &rest[..at], control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.out.write_str(rest)
    }
}

/// Lets one line a second through, and counts the others.
///
/// Each place that logs has its own. What happened while it was silent is in the next line, not lost; a burst that
/// nothing follows keeps its count to itself.
#[derive(Clone, Debug, Default)]
pub struct OncePerSecond {
    /// When the next line may be printed. `None`: at any time.
    silent_until_ms: Option<u64>,
    suppressed: u64,
}

impl OncePerSecond {
    /// Asks for a line. `Some(n)` grants it, `n` being how many have been refused since the last one.
    pub fn handle_line(&mut self, now_ms: u64) -> Option<u64> {
        if self.silent_until_ms.is_some_and(|until| now_ms < until) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.silent_until_ms = Some(now_ms.saturating_add(LINE_INTERVAL_MS));
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    /// What was written, call by call.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn noon() -> Zoned {
        "2026-01-31T12:00:00.1239+01:00[+01:00]".parse().unwrap()
    }

    fn lines(level: LevelFilter, events: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        with_default(subscriber(level, noon, move || writer.clone(), &Tap::new()), events);
        std::mem::take(&mut *written.0.lock().unwrap())
    }

    #[test]
    fn a_line_is_as_condures() {
        let lines = lines(LevelFilter::TRACE, || {
            tracing::info!(target: "forebay_connmgr::edge", "listening on {}", "0.0.0.0:8000");
            tracing::error!(target: "a", "e");
            tracing::warn!(target: "a", "w");
            tracing::debug!(target: "a", "d");
            tracing::trace!(target: "a", "t");
        });
        let expected = [
            "[INFO] 2026-01-31 12:00:00.123 [forebay_connmgr::edge] listening on 0.0.0.0:8000\n",
            "[ERR] 2026-01-31 12:00:00.123 [a] e\n",
            "[WARN] 2026-01-31 12:00:00.123 [a] w\n",
            "[DEBUG] 2026-01-31 12:00:00.123 [a] d\n",
            "[TRACE] 2026-01-31 12:00:00.123 [a] t\n",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_module_is_the_default_target() {
        let lines = lines(LevelFilter::INFO, || tracing::info!("x"));
        assert_eq!(lines, ["[INFO] 2026-01-31 12:00:00.123 [forebay_connmgr::log::tests] x\n"]);
    }

    #[test]
    fn fields_follow_the_text() {
        let error: &dyn std::error::Error = &io::Error::other("out of paper");
        let lines = lines(LevelFilter::INFO, || {
            tracing::info!(target: "a", count = 3, peer = "x y", ok = true, id = %"1-2", "text {}", 1);
            tracing::info!(target: "a", error, "cannot print");
            tracing::info!(target: "a", count = 3);
        });
        let expected = [
            "text 1 count=3 peer=\"x y\" ok=true id=1-2\n",
            "cannot print error=out of paper\n",
            "count=3\n",
        ]
        .map(|text| format!("[INFO] 2026-01-31 12:00:00.123 [a] {text}"));
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_error_comes_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("no\nluck"));
        let lines = lines(LevelFilter::INFO, || {
            tracing::error!(target: "a", error = &error as &dyn std::error::Error);
        });
        let line = "[ERR] 2026-01-31 12:00:00.123 [a] error=cannot listen: no\\nluck\n";
        assert_eq!(lines, [line]);
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Link {
            text: &'static str,
            source: Option<Box<Link>>,
        }
        let chain = |texts: &[&'static str]| {
            let wrap = |source: Option<Box<Link>>, text: &&'static str| {
                Some(Box::new(Link { text, source }))
            };
            texts.iter().rev().fold(None, wrap).unwrap()
        };
        for (texts, line) in [
            (
                &["cannot bind x", "io error: no luck", "no luck"][..],
                "cannot bind x: io error: no luck",
            ),
            (&["no thread: no luck", "no luck"], "no thread: no luck"),
            (&["no", "no", "why", "no"], "no: why: no"),
            (&["a", "", "b"], "a: b"),
        ] {
            assert_eq!(Causes(&*chain(texts)).to_string(), line);
        }
    }

    #[test]
    fn levels_above_the_limit_are_dropped() {
        let lines = lines(LevelFilter::WARN, || {
            tracing::info!("no");
            tracing::warn!(target: "a", "yes");
        });
        assert_eq!(lines, ["[WARN] 2026-01-31 12:00:00.123 [a] yes\n"]);
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let evil = "a\r\n[INFO] \u{1b}[31m\0\u{9b}é";
        let lines = lines(LevelFilter::INFO, || {
            tracing::info!(target: "a", shown = %evil, debugged = evil, "{evil}");
        });
        let shown = "a\\r\\n[INFO] \\u{1b}[31m\\u{0}\\u{9b}é";
        // A string's own Debug has escaped it before we see it, with its own escape for NUL.
        let debugged = shown.replace("\\u{0}", "\\0");
        let line = format!(
            "[INFO] 2026-01-31 12:00:00.123 [a] {shown} shown={shown} debugged=\"{debugged}\"\n"
        );
        assert_eq!(lines, [line]);
    }

    #[test]
    fn a_closed_output_is_no_reason_to_die() {
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let subscriber = subscriber(LevelFilter::INFO, noon, || Closed, &Tap::new());
        with_default(subscriber, || tracing::info!("x"));
    }

    #[test]
    fn one_line_a_second() {
        let mut line = OncePerSecond::default();
        assert_eq!(line.handle_line(0), Some(0));
        assert_eq!(line.handle_line(0), None);
        assert_eq!(line.handle_line(999), None);
        assert_eq!(line.handle_line(1000), Some(2));
        assert_eq!(line.handle_line(1999), None);
        assert_eq!(line.handle_line(5000), Some(1));
        assert_eq!(line.handle_line(6000), Some(0));
        assert_eq!(line.handle_line(u64::MAX), Some(0));
    }
}
