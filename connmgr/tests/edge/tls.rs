//! Handshakes: versions, names, protocols, resumption, and what is no handshake at all.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, ClientConnection, Error, HandshakeKind};

use crate::client::Client;
use crate::handler::Handler;
use crate::peers::within;
use crate::process::{EdgeProcess, fails};
use crate::tls_client::{HOST, Pair, TlsEdge, VERSIONS, config, handshake, plain_config, shown};

/// The alert that a client was refused with.
fn alert(error: &std::io::Error) -> AlertDescription {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error:?}"),
    }
}

/// A request is answered.
async fn is_served(handler: &mut Handler, client: &mut Client) {
    client.ask("/").await;
    let request = handler.request().await;
    handler.answer(&request.id, "secret").await;
    assert_eq!(client.response().await.text(), "secret");
}

#[tokio::test]
async fn requests_are_https_in_both_versions_and_modes() {
    let options = ["--listen=127.0.0.1:0,tls,default-cert=usual", "--listen=127.0.0.1:0"];
    let tls = TlsEdge::start(&options).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    for version in VERSIONS {
        let stream = handshake(tls.edge.address, HOST, &config(&[version], &[&tls.pair])).await;
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let mut client = Client::over(stream);
        client.ask("/path?query").await;
        let request = handler.request().await;
        assert_eq!(request.uri, "https://x.com/path?query");
        handler.answer(&request.id, "secret").await;
        assert_eq!(client.response().await.text(), "secret");
        is_served(&mut handler, &mut client).await;
    }
    // The other port is as it was.
    let _client = Client::get(tls.edge.addresses[1], "/").await;
    assert_eq!(handler.request().await.uri, "http://x.com/");
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let names = ["exact.a.test", "_.a.test", "UPPER.test"];
    let [exact, wildcard, upper] =
        [Pair::new(&["exact.a.test"]), Pair::new(&["*.a.test"]), Pair::new(&["upper.test"])];
    let tls = TlsEdge::start_with(&[], |dir| {
        for (name, pair) in names.iter().zip([&exact, &wildcard, &upper]) {
            pair.write(dir, name);
        }
    })
    .await;
    for (host, pair) in [
        ("exact.a.test", &exact),
        ("EXACT.a.test", &exact),
        ("other.a.test", &wildcard),
        (HOST, &tls.pair),
    ] {
        for version in VERSIONS {
            let config = config(&[version], &[pair]);
            let stream = handshake(tls.edge.address, host, &config).await.unwrap();
            assert_eq!(shown(&stream), pair.certificate, "{host}");
        }
    }
    // An address is no name (RFC 6066 §3): such clients say none, and get the default.
    let local = Pair::new(&["127.0.0.1"]);
    local.write(tls.identities.path(), "usual");
    let mut edge = tls.edge;
    edge.line("TLS identity usual: replaced").await;
    let stream = handshake(edge.address, "127.0.0.1", &config(&VERSIONS, &[&local])).await;
    assert_eq!(shown(&stream.unwrap()), local.certificate);
}

#[tokio::test]
async fn without_a_default_an_unknown_name_is_refused() {
    let tls = TlsEdge::start_with(&["--listen=127.0.0.1:0,tls"], |dir| {
        Pair::new(&[HOST]).write(dir, "_.known.test");
    })
    .await;
    for host in ["unknown.test", "known.test", "a.b.known.test", "127.0.0.1"] {
        for version in VERSIONS {
            let config = config(&[version], &[&tls.pair]);
            let error = handshake(tls.edge.address, host, &config).await.unwrap_err();
            assert_eq!(alert(&error), AlertDescription::UnrecognisedName, "{host}");
        }
    }
}

#[tokio::test]
async fn http_is_what_is_spoken() {
    let tls = TlsEdge::start(&[]).await;
    let offers: [(&[&str], Option<&str>); 3] = [
        (&[], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1", "x"], Some("http/1.1")),
    ];
    for version in VERSIONS {
        let with = |offer: &[&str]| {
            let mut config = plain_config(&[version], &[&tls.pair]);
            config.alpn_protocols = offer.iter().map(|&name| name.into()).collect();
            Arc::new(config)
        };
        for (offer, agreed) in offers {
            let stream = handshake(tls.edge.address, HOST, &with(offer)).await.unwrap();
            let protocol = stream.get_ref().1.alpn_protocol();
            assert_eq!(protocol, agreed.map(str::as_bytes), "{offer:?}");
        }
        let error = handshake(tls.edge.address, HOST, &with(&["h2"])).await.unwrap_err();
        assert_eq!(alert(&error), AlertDescription::NoApplicationProtocol);
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_any_worker() {
    let tls = TlsEdge::start(&["--workers=2"]).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    for version in VERSIONS {
        let mut config = plain_config(&[version], &[&tls.pair]);
        config.resumption = Resumption::in_memory_sessions(4);
        let config = Arc::new(config);
        for round in 0..8 {
            let stream = handshake(tls.edge.address, HOST, &config).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            let expected = if round == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(kind, expected, "{version:?}");
            // The tickets of 1.3 come behind the handshake.
            is_served(&mut handler, &mut Client::over(stream)).await;
        }
    }
}

/// What a client gets that is none of TLS.
async fn answer_to(edge: &EdgeProcess, bytes: &[u8]) -> Vec<u8> {
    let mut stream = within(TcpStream::connect(edge.address)).await.unwrap();
    within(stream.write_all(bytes)).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn nonsense_gets_an_alert_and_harms_nobody() {
    let tls = TlsEdge::start(&["--workers=1"]).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    let mut client = tls.connect().await;
    let long_name = [b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c".as_slice(), &[0xff; 12]].concat();
    let table: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x.com\r\n\r\n",
        &[0; 1000],
        &[0xff; 5000],
        b"\x16\x03\x01\xff\xff",
        b"\x15\x03\x03\x00\x02\x02\x28\x16",
        &long_name,
    ];
    for bytes in table {
        let answer = answer_to(&tls.edge, bytes).await;
        // An alert (21), fatal (2); but for an alert of the client's own, which is no question.
        let is_alert = answer.len() == 7 && answer[0] == 21 && answer[5] == 2;
        assert!(is_alert || answer.is_empty() && bytes[0] == 0x15, "{bytes:?}: {answer:?}");
        is_served(&mut handler, &mut client).await;
    }
}

/// The first flight of a client.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from(HOST).unwrap();
    let mut client = ClientConnection::new(config(&VERSIONS, &[]), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn clients_that_stall_in_their_handshake_stall_nobody() {
    let mut tls = TlsEdge::start(&["--workers=1", "--drain-timeout=60"]).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    let hello = client_hello();
    let mut stalled = Vec::new();
    for bytes in 0..100 {
        let mut stream = within(TcpStream::connect(tls.edge.address)).await.unwrap();
        // Nothing, a part of it, all of it.
        let part = &hello[..hello.len() * bytes / 99];
        within(stream.write_all(part)).await.unwrap();
        stalled.push(stream);
    }
    let mut client = tls.connect().await;
    is_served(&mut handler, &mut client).await;
    // One that goes on with its own goes on, byte by byte.
    let slow = config(&VERSIONS, &[&tls.pair]);
    let (mut near, far) = tokio::io::duplex(1);
    let mut socket = within(TcpStream::connect(tls.edge.address)).await.unwrap();
    let relay = tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut socket, 1, 1).await;
    });
    let connector = tokio_rustls::TlsConnector::from(slow);
    let name = ServerName::try_from(HOST).unwrap();
    let stream = within(connector.connect(name, far)).await.unwrap();
    let mut slow = Client::over(stream);
    is_served(&mut handler, &mut slow).await;
    drop((slow, client));
    // A drain does not wait for them.
    tls.edge.signal("-TERM");
    tls.edge.line("stopped").await;
    assert_eq!(tls.edge.wait().await.code(), Some(0));
    relay.abort();
}

#[tokio::test]
async fn a_crowd_shakes_hands_at_once() {
    let tls = TlsEdge::start(&["--workers=1"]).await;
    let mut handler = Handler::plain(&tls.edge, "h").await;
    let mut patient = tls.connect().await;
    let config = config(&VERSIONS, &[&tls.pair]);
    let address = tls.edge.address;
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let config = Arc::clone(&config);
            tokio::spawn(async move { handshake(address, HOST, &config).await.unwrap() })
        })
        .collect();
    is_served(&mut handler, &mut patient).await;
    for client in crowd {
        is_served(&mut handler, &mut Client::over(client.await.unwrap())).await;
    }
}

#[tokio::test]
async fn a_default_that_cannot_be_used_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let option = format!("--tls-identities-dir={path}");
    let listen = "--listen=127.0.0.1:0,tls,default-cert=site";
    let (pair, other) = (Pair::new(&[HOST]), Pair::new(&[HOST]));
    let missing = format!("cannot read {path}/site.crt: No such file or directory");
    let broken = format!("there is no certificate in {path}/site.crt");
    let mismatch = format!("{path}/site.crt and {path}/site.key cannot be used: ");
    for (certificate, key, reason) in [
        (None, &pair.key_pem, missing),
        (Some("text"), &pair.key_pem, broken),
        (Some(pair.certificate_pem.as_str()), &other.key_pem, mismatch),
    ] {
        if let Some(certificate) = certificate {
            std::fs::write(dir.path().join("site.crt"), certificate).unwrap();
        }
        std::fs::write(dir.path().join("site.key"), key).unwrap();
        let (text, code) = fails(&[&option, listen]).await;
        assert_eq!(code, Some(1), "{text}");
        let named = "cannot listen on 127.0.0.1:0 with default-cert=site: ";
        assert!(text.contains(named) && text.contains(&reason), "{text}");
    }
}
