//! Chromium as a client: a page and WebSockets over TLS 1.2 and 1.3, with compression and without.
//!
//! It trusts the certificate of the test by its key, and nothing else that is wrong with a certificate is looked over.
//! Where it is not installed this test passes and says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::peers::python;
use crate::tls_client::{HOST, TlsEdge};

#[path = "../../../tests/browser/chromium.rs"]
mod chromium;

use chromium::{Chromium, Page};

/// A version as the DevTools call it, and the options that leave no other.
type Version = (&'static str, [&'static str; 2]);

const VERSIONS: [Version; 2] = [
    ("TLS 1.2", ["--ssl-version-min=tls1.2", "--ssl-version-max=tls1.2"]),
    ("TLS 1.3", ["--ssl-version-min=tls1.3", "--ssl-version-max=tls1.3"]),
];

/// What is agreed on with `--compression`: nothing is kept between messages.
const COMPRESSION: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Says things over a WebSocket and closes it; what came of it.
const ECHO: &str = "new Promise((resolve, reject) => {
    const bytes = Uint8Array.from({ length: 1_000_000 }, (_, at) => at * at);
    const messages = ['hello', '', 'ä'.repeat(400_000), bytes.subarray(0, 5), bytes];
    const plain = (message) => typeof message === 'string' ? message : new Uint8Array(message).join();
    const socket = new WebSocket(`wss://${location.host}/`);
    let same = 0;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => messages.forEach((message) => socket.send(message));
    socket.onmessage = ({ data }) => {
        if (plain(data) !== plain(messages[same])) {
            reject(new Error(`message ${same} is another`));
        }
        same += 1;
        if (same === messages.length) {
            socket.close(4001, 'that is all');
        }
    };
    socket.onclose = ({ code, reason, wasClean }) =>
        resolve({ same, code, reason, wasClean, extensions: socket.extensions });
})";

/// The echo of `examples/python`, a plain handler. Killed when dropped.
struct Echo(std::process::Child);

impl Echo {
    fn start(spec: &str) -> Echo {
        let mut command = Command::new(python());
        command.arg(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/websocket_echo.py"),
        );
        command.args(["--spec", spec]).stdin(Stdio::null());
        Echo(command.spawn().unwrap())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // An error says that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The digest of a certificate's public key, as Chromium wants it.
fn key_digest(certificate: PathBuf) -> String {
    let mut shell = Command::new("sh");
    let script = "openssl x509 -in \"$1\" -pubkey -noout | openssl pkey -pubin -outform der |
        openssl dgst -sha256 -binary | openssl base64";
    let output = shell.args(["-ec", script, "sh"]).arg(certificate).output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Opens a page of the edge, and asks for an echo in it.
fn echoes(chromium: &Chromium, url: &str, (version, _): Version, extensions: &str) {
    let mut page = chromium.open(url);
    assert_eq!(page.value("document.body.innerText"), "speak WebSocket, please\n");
    assert_eq!(protocol(&page), version);
    let expected = json!({
        "same": 5, "code": 4001, "reason": "that is all", "wasClean": true, "extensions": extensions,
    });
    assert_eq!(page.value(ECHO), expected, "{version}");
    assert!(page.troubles().is_empty());
}

/// By what the page has come.
fn protocol(page: &Page) -> Value {
    let response = page.response().unwrap();
    response["securityDetails"]["protocol"].clone()
}

#[tokio::test]
async fn chromium_connects() {
    for (options, extensions) in [(&[][..], ""), (&["--compression"], COMPRESSION)] {
        let tls = TlsEdge::start(options).await;
        let _echo = Echo::start(&tls.edge.spec("zhttp"));
        let port = tls.edge.address.port();
        let trusted = key_digest(tls.identities.path().join("usual.crt"));
        for version in VERSIONS {
            let trust = format!("--ignore-certificate-errors-spki-list={trusted}");
            let echo = move || {
                let resolve = format!("--host-resolver-rules=MAP {HOST} 127.0.0.1");
                let arguments = [&version.1[..], &[&trust, &resolve]].concat();
                let Some(chromium) = Chromium::start(&arguments) else { return };
                echoes(&chromium, &format!("https://{HOST}:{port}/"), version, extensions);
            };
            tokio::task::spawn_blocking(echo).await.unwrap();
        }
    }
}
