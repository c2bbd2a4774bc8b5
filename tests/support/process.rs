//! A child process: what it prints, the signals that it gets, and how it ends.
//!
//! Two threads read its output, so that it never blocks on a full pipe, and so that a test that fails shows all of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::{PATIENCE, eventually};

/// The `forebay` command, with nothing of the environment but `PATH`.
pub fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

/// A running process. Killed when dropped; if the test has failed, what it printed is shown.
pub struct Process {
    name: String,
    child: Child,
    /// Lines of standard output that nobody asked for yet.
    lines: Receiver<String>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended, and all that it printed.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The exit code; panics if a signal ended the process.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    /// The standard output of a process that has ended well.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.status.code(), Some(0), "{self:?}");
        self.stdout
    }
}

impl Process {
    /// A Redis on `redis.sock` in a directory, with these options beyond that.
    #[track_caller]
    pub fn redis(directory: &Path, options: &[&str]) -> Process {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", ""]).args(options).arg("--dir").arg(directory);
        let process = Process::spawn(command.arg("--unixsocket").arg(directory.join("redis.sock")));
        eventually("Redis is ready", || {
            let line = process.line();
            assert!(!line.contains("Fatal"), "{line}");
            line.contains("ready to accept connections").then_some(())
        });
        process
    }

    /// Starts it. Its standard input stays open until [`Process::close_stdin`].
    pub fn spawn(command: &mut Command) -> Process {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            read(child.stdout.take().unwrap(), Arc::clone(&stdout), Some(sender)),
            read(child.stderr.take().unwrap(), Arc::clone(&stderr), None),
        ];
        Process { name, child, lines, stdout, stderr, readers }
    }

    /// Runs a command without input to its end.
    pub fn run(command: &mut Command) -> Ended {
        let mut process = Process::spawn(command);
        process.close_stdin();
        process.wait()
    }

    /// Runs a command to its end, with this input.
    pub fn run_with(command: &mut Command, input: &str) -> Ended {
        let mut process = Process::spawn(command);
        process.write(input);
        process.close_stdin();
        process.wait()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    pub fn write(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input is closed");
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// The next line of its standard output that begins so, without what it begins with. Lines before it are passed
    /// over.
    #[track_caller]
    pub fn line_with(&self, prefix: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return rest.to_owned();
                    }
                }
                Err(error) => panic!("no line with {prefix:?} came ({error}) from {}", self.name),
            }
        }
    }

    /// The next line of its standard output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.line_with("")
    }

    /// A line if there is one already.
    pub fn line_now(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Sends a signal by its name: `TERM`, `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.unwrap().success(), "kill -s {name}");
    }

    /// Whether it is running still.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error says that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let name = self.name.clone();
        let status = eventually(&format!("{name} ends"), || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let text = |text: &Mutex<String>| text.lock().unwrap().clone();
        Ended { status, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text =
                |text: &Mutex<String>| text.lock().unwrap_or_else(|e| e.into_inner()).clone();
            eprintln!("--- {}\n{}{}---", self.name, text(&self.stdout), text(&self.stderr));
        }
    }
}

/// Reads a pipe to its end: into a text, and line by line to whoever waits for lines.
fn read(
    pipe: impl Read + Send + 'static,
    text: Arc<Mutex<String>>,
    lines: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let new = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            text.lock().unwrap().push_str(&new);
            if let Some(lines) = &lines {
                // Nobody may be waiting any more.
                let _ = lines.send(new.strip_suffix('\n').unwrap_or(&new).to_owned());
            }
        }
    })
}
