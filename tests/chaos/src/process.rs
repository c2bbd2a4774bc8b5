//! A program that is started, ended and started again, with everything that it says in a file.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::ChaosError;
use crate::scenario::Ended;

/// How long a process may take to end after SIGTERM: the handlers' own limit, and some more.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a process that was told to end is asked whether it has.
const EXIT_PROBE_INTERVAL: Duration = Duration::from_millis(2);

/// How long after its start a process may end by SIGTERM itself, as it has not taken the signal over yet.
const STARTING: Duration = Duration::from_secs(1);

/// signal(7).
const SIGTERM: i32 = 15;

/// A program, running or not. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
    started: Option<Instant>,
}

impl Process {
    /// A program that does not run yet, and writes what it says into a file in `dir`.
    pub(crate) fn new(name: &'static str, program: &Path, dir: &Path) -> Self {
        Process {
            name,
            program: program.to_owned(),
            arguments: Vec::new(),
            log: dir.join(format!("{name}.log")),
            child: None,
            started: None,
        }
    }

    /// Adds arguments.
    pub(crate) fn args<A: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts it, without our environment: its settings are those that are given here.
    pub(crate) fn start(&mut self) -> Result<(), ChaosError> {
        debug_assert!(self.child.is_none());
        let spawn = || -> io::Result<Child> {
            let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
            let mut command = Command::new(&self.program);
            command.args(&self.arguments).env_clear();
            if let Some(path) = std::env::var_os("PATH") {
                command.env("PATH", path);
            }
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr::<File>(log).spawn()
        };
        self.child = Some(spawn().map_err(|source| self.error(source))?);
        self.started = Some(Instant::now());
        Ok(())
    }

    /// Ends it, and waits until it is gone. What was not right about that, if anything.
    pub(crate) async fn end(&mut self, how: Ended) -> Result<Option<String>, ChaosError> {
        if self.has_ended() {
            self.child = None;
            return Ok(Some(format!("{} ended by itself", self.name)));
        }
        let is_starting = self.started.is_some_and(|started| started.elapsed() < STARTING);
        let Some(child) = &mut self.child else { return Ok(None) };
        let told = match how {
            Ended::Killed => child.kill(),
            Ended::Terminated => signal(child.id(), "TERM"),
        };
        let status = match told {
            Ok(()) => exit_status(child).await,
            Err(error) => Err(error),
        };
        let status = status.map_err(|source| self.error(source))?;
        let wrong = match status {
            None => Some(format!("{} did not end within {EXIT_TIMEOUT:?}", self.name)),
            Some(status) if is_starting && status.signal() == Some(SIGTERM) => None,
            Some(status) if how == Ended::Terminated && !status.success() => {
                Some(format!("{} was told to end: {status}", self.name))
            }
            Some(_) => None,
        };
        self.kill();
        Ok(wrong)
    }

    /// Sends a signal to it, `STOP` or `CONT`. Whether it runs.
    pub(crate) fn signal(&mut self, name: &str) -> Result<bool, ChaosError> {
        if self.has_ended() {
            return Ok(false);
        }
        let Some(child) = &self.child else { return Ok(false) };
        signal(child.id(), name).map_err(|source| self.error(source))?;
        Ok(true)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Ends it at once, if it runs.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Whether or not it ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it runs no more, though nobody ended it.
    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id, if it was started.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Resident memory, in bytes; 0 if it does not run.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let pid = self.child.as_ref().map(Child::id);
        let status =
            pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let kib = status.and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        kib.unwrap_or(0) * 1024
    }

    /// Lines of the log that tell of a panic.
    pub(crate) fn panics(&self) -> Vec<String> {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter(|line| line.contains("panicked at"));
        lines.map(|line| format!("{}: {line}", self.name)).collect()
    }

    /// What it said, for an error.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(2000)..];
        format!("{}: {}", self.name, String::from_utf8_lossy(tail))
    }

    fn error(&self, source: io::Error) -> ChaosError {
        ChaosError::Process { name: self.name, source }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal, by kill(1): the standard library has no call for it.
fn signal(pid: u32, name: &str) -> io::Result<()> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill: {status}"))) }
}

/// Waits until a process has ended; `None` if it has not in time.
async fn exit_status(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + EXIT_TIMEOUT;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        tokio::time::sleep(EXIT_PROBE_INTERVAL).await;
    }
}
