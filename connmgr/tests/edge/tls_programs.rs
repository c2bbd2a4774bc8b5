//! Programs of Debian as clients: `openssl s_client` and `curl`, to keys in every format that openssl writes.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::handler::Handler;
use crate::peers::within;
use crate::tls_client::TlsEdge;

const ANSWER: &str = "for programs";

/// Identities, and how each is made: K is its key, C its certificate.
const FORMATS: [(&str, &str); 3] = [
    ("pkcs8.test", "openssl req -x509 -newkey rsa:2048 -nodes -keyout K -out C $SUBJECT"),
    (
        "pkcs1.test",
        "openssl genrsa -traditional -out K 2048; openssl req -x509 -key K -out C $SUBJECT",
    ),
    (
        "sec1.test",
        "openssl ecparam -name prime256v1 -genkey -out K; openssl req -x509 -key K -out C $SUBJECT",
    ),
];

/// A version as s_client calls it, and the options of both programs for it.
type Version = (&'static str, &'static str, [&'static str; 3]);

const VERSIONS: [Version; 2] = [
    ("TLSv1.2", "-tls1_2", ["--tlsv1.2", "--tls-max", "1.2"]),
    ("TLSv1.3", "-tls1_3", ["--tlsv1.3", "--tls-max", "1.3"]),
];

fn make_identities(dir: &Path) {
    for (host, script) in FORMATS {
        let script = script.replace(" K", &format!(" {host}.key"));
        let script = script.replace(" C", &format!(" {host}.crt"));
        let subject = format!("-days 30 -subj /CN={host} -addext subjectAltName=DNS:{host}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", &script]).env("SUBJECT", subject).current_dir(dir);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
    }
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    within(stdin.write_all(input.as_bytes())).await.unwrap();
    // Open until it ends: s_client would leave with its input.
    let output = within(child.wait_with_output()).await.unwrap();
    drop(stdin);
    output
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn s_client(tls: &TlsEdge, host: &str, certificate: &str, (version, option, _): Version) {
    let address = tls.edge.address.to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-servername", host, option];
    arguments.extend(["-CAfile", certificate, "-verify_return_error"]);
    arguments.extend(["-alpn", "http/1.1", "-ign_eof"]);
    let input = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let output = run("openssl", &arguments, &input).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", errors(&output));
    let expected = [version, "Verify return code: 0 (ok)", "ALPN protocol: http/1.1", ANSWER];
    for expected in expected {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

async fn curl(tls: &TlsEdge, host: &str, certificate: &str, (version, _, options): Version) {
    let port = tls.edge.address.port();
    let (url, to) = (format!("https://{host}:{port}/"), format!("{host}:{port}:127.0.0.1"));
    let mut arguments = vec!["-sSv", "--cacert", certificate, "--resolve", &to, &url];
    arguments.extend(options);
    let output = run("curl", &arguments, "").await;
    let said = errors(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), ANSWER, "{said}");
    assert!(said.contains(&format!("SSL connection using {version} ")), "{said}");
}

#[tokio::test]
async fn openssl_and_curl_connect() {
    let tls = TlsEdge::start_with(&[], make_identities).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    for (host, _) in FORMATS {
        let certificate = tls.identities.path().join(format!("{host}.crt"));
        let certificate = certificate.to_str().unwrap();
        for version in VERSIONS {
            let answers = async {
                for _ in 0..2 {
                    let request = handler.request().await;
                    assert!(request.uri.starts_with("https://"), "{}", request.uri);
                    handler.answer(&request.id, ANSWER).await;
                }
            };
            let asks = async {
                s_client(&tls, host, certificate, version).await;
                curl(&tls, host, certificate, version).await;
            };
            tokio::join!(answers, asks);
        }
    }
}

#[tokio::test]
async fn old_versions_are_refused() {
    let tls = TlsEdge::start(&[]).await;
    let address = tls.edge.address.to_string();
    let arguments = ["s_client", "-connect", &address, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let output = run("openssl", &arguments, "").await;
    let errors = errors(&output);
    assert!(!output.status.success() && errors.contains(" alert "), "{errors}");
}
