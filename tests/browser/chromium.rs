//! Chromium without a window, driven over its DevTools protocol, which is JSON over a WebSocket.
//!
//! A few commands of it are all that these tests need (<https://chromedevtools.github.io/devtools-protocol/>), so there is
//! no library: a page is opened, and then everything is a JavaScript expression that is evaluated in it. What a test waits
//! for is an expression, too, at which the page itself looks until it is true. An exception that nobody has caught, and
//! what the browser forbids the page to do, are failures.
//!
//! Also used by the tests of the edge (`connmgr/tests/edge/tls_chromium.rs`): so it needs nothing of this crate.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// Nothing in these tests takes longer, on however slow a machine. Passing it is a failure, not a way to wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the browser may take to end in good order before it is killed.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

/// What Debian calls it, and what others do.
const PROGRAMS: [&str; 2] = ["chromium", "google-chrome"];

/// No window, no sandbox (which does not work for root), and nothing that it does by itself in the background.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
];

/// What stands before the URL of the DevTools, on standard error.
const ENDPOINT_PREFIX: &str = "DevTools listening on ";

/// A running browser with a profile of its own. Ended when dropped.
pub struct Chromium {
    child: Child,
    /// Its profile, and its home.
    _profile: TempDir,
    /// `ws://127.0.0.1:PORT/devtools/browser/…`
    endpoint: String,
}

impl Chromium {
    /// Starts it with these arguments besides the usual ones; `None`, and a note, where it is not installed.
    pub fn start(arguments: &[&str]) -> Option<Chromium> {
        let profile = tempfile::tempdir().unwrap();
        let Some(mut child) = PROGRAMS.iter().find_map(|name| spawn(name, &profile, arguments))
        else {
            // Not by println, which is shown only when a test fails.
            let note = b"a test with Chromium is passed over: apt-get install chromium\n";
            std::io::stderr().write_all(note).unwrap();
            return None;
        };
        let endpoint = endpoint(child.stderr.take().unwrap());
        Some(Chromium { child, _profile: profile, endpoint })
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&self, url: &str) -> Page {
        let mut browser = DevTools::connect(&self.endpoint);
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let id = target["targetId"].as_str().unwrap();
        let (host, _) = self.endpoint.split_once("/devtools/").unwrap();
        let mut tools = DevTools::connect(&format!("{host}/devtools/page/{id}"));
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tools.call(&format!("{domain}.enable"), &json!({}));
        }
        let navigated = tools.call("Page.navigate", &json!({"url": url}));
        assert_eq!(navigated.get("errorText"), None, "{url}: {navigated}");
        let mut page = Page { tools };
        page.wait("document.readyState === 'complete'");
        page
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // In good order its processes end together. If it cannot any more, then by force.
        if let Ok((mut socket, _)) = tungstenite::connect(&self.endpoint) {
            let close = json!({"id": 1, "method": "Browser.close"}).to_string();
            let _ = socket.send(Message::from(close));
            let deadline = Instant::now() + EXIT_PATIENCE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program; `None` if there is none of that name.
fn spawn(program: &str, profile: &TempDir, arguments: &[&str]) -> Option<Child> {
    let mut command = Command::new(program);
    command.args(ARGUMENTS).args(arguments).env("HOME", profile.path());
    command.arg(format!("--user-data-dir={}", profile.path().join("profile").display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("cannot start {program}: {error}"),
    }
}

/// Where its DevTools listen, which it says first; what it says later is read and forgotten.
fn endpoint(stderr: ChildStderr) -> String {
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    loop {
        let Some(Ok(line)) = lines.next() else { panic!("Chromium has ended: {said:#?}") };
        if let Some(endpoint) = line.strip_prefix(ENDPOINT_PREFIX) {
            std::thread::spawn(move || lines.for_each(drop));
            return endpoint.to_owned();
        }
        said.push(line);
    }
}

/// A page that is open in the browser.
pub struct Page {
    tools: DevTools,
}

impl Page {
    /// The value of an expression, as JSON; of what it comes to, if it is a promise.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        match self.try_value(expression) {
            Ok(value) => value,
            Err(error) => panic!("{expression}: {error}"),
        }
    }

    /// The same, or what was thrown.
    pub fn try_value(&mut self, expression: &str) -> Result<Value, String> {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.tools.call("Runtime.evaluate", &parameters);
        match result.get("exceptionDetails") {
            Some(thrown) => Err(thrown["exception"]["description"].to_string()),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// Waits until an expression is true; its value.
    #[track_caller]
    pub fn wait(&mut self, condition: &str) -> Value {
        let patience_ms = PATIENCE.as_millis();
        self.value(&format!(
            "new Promise((resolve, reject) => {{
                const deadline = performance.now() + {patience_ms};
                const look = () => {{
                    const seen = ({condition});
                    if (seen) resolve(seen);
                    else if (performance.now() < deadline) setTimeout(look, 5);
                    else reject(new Error('never came true; the page shows ' + document.body.innerText));
                }};
                look();
            }})"
        ))
    }

    /// How it was answered when it was loaded: `Network.Response` of the DevTools; `None` if it is a file.
    #[allow(dead_code, reason = "shared by two test files, one of which has only files")]
    pub fn response(&self) -> Option<&Value> {
        self.tools.response.as_ref()
    }

    /// What went wrong in it by itself: exceptions that nobody has caught, and what was forbidden.
    pub fn troubles(&mut self) -> &[String] {
        // Whatever happened before this is answered has been told.
        self.value("0");
        &self.tools.troubles
    }
}

/// A connection to the browser or to one page.
struct DevTools {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    troubles: Vec<String>,
    /// What was answered for the page itself.
    response: Option<Value>,
}

impl DevTools {
    fn connect(url: &str) -> DevTools {
        let (socket, _) = tungstenite::connect(url).unwrap();
        let MaybeTlsStream::Plain(stream) = socket.get_ref() else { panic!("{url}") };
        // The page has the same patience, and says what it shows; so it may answer first.
        stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        DevTools { socket, next_id: 1, troubles: Vec::new(), response: None }
    }

    /// Gives a command, and waits for its result.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let command = json!({"id": id, "method": method, "params": parameters});
        self.socket.send(Message::from(command.to_string())).unwrap();
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == id {
                assert_eq!(message.get("error"), None, "{method}: {message}");
                return message["result"].take();
            }
            self.troubles.extend(trouble(&message));
            if message["method"] == "Network.responseReceived"
                && message["params"]["type"] == "Document"
            {
                self.response = Some(message["params"]["response"].take());
            }
        }
    }
}

/// What an event of the DevTools tells that must not be.
fn trouble(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(parameters.to_string()),
        // By the page's own policy. What went wrong in the network is told there, too, and is what many tests are about.
        "Log.entryAdded" if parameters["entry"]["source"] == "security" => {
            Some(parameters.to_string())
        }
        _ => None,
    }
}
