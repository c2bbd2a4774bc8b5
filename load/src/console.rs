//! The person or the script in front of it: reports on standard output, progress on a terminal, lines of standard input,
//! and Ctrl-C.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::LoadError;
use crate::report::{Report, grouped};

/// Between two looks at how far it is.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Between two drawings of the progress bar.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Characters of the bar itself.
const BAR_WIDTH: usize = 30;

/// The exit code of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// What came from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A line of standard input.
    Line(String),
    /// Its end.
    EndOfInput,
    /// Ctrl-C, or SIGTERM. The second ends the process.
    Interrupt,
}

/// Where reports go, and where wishes come from.
#[derive(Debug)]
pub(crate) struct Console {
    inbox: Receiver<Heard>,
    is_json: bool,
    is_terminal: bool,
    drawn: Option<Instant>,
}

impl Console {
    /// Listens to signals, and to standard input if that is wanted.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn new(is_json: bool, reads_input: bool) -> Result<Console, LoadError> {
        let (sender, inbox) = mpsc::channel();
        let signals = Signals::new([SIGINT, SIGTERM])
            .map_err(LoadError::system("signals cannot be caught"))?;
        let interrupts = sender.clone();
        spawn("load-signals", move || listen(signals, &interrupts))?;
        if reads_input {
            spawn("load-input", move || read_lines(&sender))?;
        }
        let is_terminal = io::stderr().is_terminal();
        Ok(Console { inbox, is_json, is_terminal, drawn: None })
    }

    /// Waits for what comes from outside, but not longer than this.
    pub(crate) fn hear(&self, patience: Duration) -> Option<Heard> {
        // The thread of the signals lives as long as we do, so an error is that time has passed.
        self.inbox.recv_timeout(patience).ok()
    }

    /// Shows on a terminal how far it is; `what` says of what, and what else is to be told.
    pub(crate) fn progress(&mut self, done: u64, total: u64, what: &str) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= DRAW_INTERVAL);
        if !self.is_terminal || !is_due {
            return;
        }
        self.drawn = Some(Instant::now());
        let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        let full = (share * BAR_WIDTH as f64) as usize;
        let bar = format!("{}{}", "━".repeat(full), " ".repeat(BAR_WIDTH - full));
        let (percent, done, total) = ((share * 100.0) as u32, grouped(done), grouped(total));
        eprint!("\r\x1b[K▕{bar}▏ {percent:3} %  {done} of {total} {what}");
    }

    /// Removes the progress bar.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }

    /// Prints a report: a table, or JSON.
    pub(crate) fn print(&mut self, report: &Report) -> Result<(), LoadError> {
        if self.is_json {
            return self.print_line(report);
        }
        self.write(&report.table())
    }

    /// Prints a report on one line.
    pub(crate) fn print_line(&mut self, report: &Report) -> Result<(), LoadError> {
        let line = if self.is_json { report.json() } else { report.line() };
        self.write(&format!("{line}\n"))
    }

    fn write(&mut self, text: &str) -> Result<(), LoadError> {
        self.clear();
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(LoadError::system("the report cannot be written"))
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), LoadError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(LoadError::system("a thread cannot be started"))
}

fn listen(mut signals: Signals, interrupts: &Sender<Heard>) {
    for (count, _) in signals.forever().enumerate() {
        if count > 0 || interrupts.send(Heard::Interrupt).is_err() {
            std::process::exit(INTERRUPTED);
        }
    }
}

fn read_lines(sender: &Sender<Heard>) {
    for line in io::stdin().lock().lines() {
        // What cannot be read any more is at its end.
        let Ok(line) = line else { break };
        if sender.send(Heard::Line(line)).is_err() {
            return;
        }
    }
    // Nobody may be there to hear it.
    let _ = sender.send(Heard::EndOfInput);
}
