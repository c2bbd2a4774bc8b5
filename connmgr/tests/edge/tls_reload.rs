//! Certificates change while they are served.

use std::fs;

use crate::process::EdgeProcess;
use crate::tls_client::{HOST, Pair, TlsEdge, VERSIONS, config, handshake, shown};

/// Whether a client that trusts this certificate gets it.
async fn is_served(edge: &EdgeProcess, host: &str, pair: &Pair) -> bool {
    let config = config(&VERSIONS, &[pair]);
    let served = handshake(edge.address, host, &config).await;
    served.is_ok_and(|stream| shown(&stream) == pair.certificate)
}

#[tokio::test]
async fn a_replaced_certificate_is_served_and_nobody_is_disconnected() {
    let mut tls = TlsEdge::start(&[]).await;
    let mut client = tls.connect().await;
    let dir = tls.identities.path().to_owned();
    // Written in place, then renamed over, then by a link that is turned.
    for way in ["write", "rename", "link"] {
        let pair = Pair::new(&[HOST]);
        match way {
            "write" => pair.write(&dir, "usual"),
            "rename" => {
                pair.write(&dir, ".new");
                for file in ["crt", "key"] {
                    let (from, to) = (format!(".new.{file}"), format!("usual.{file}"));
                    fs::rename(dir.join(from), dir.join(to)).unwrap();
                }
            }
            _ => {
                let version = dir.join("version");
                fs::create_dir(&version).unwrap();
                pair.write(&version, "it");
                for file in ["crt", "key"] {
                    let link = dir.join(format!("link.{file}"));
                    std::os::unix::fs::symlink(version.join(format!("it.{file}")), &link).unwrap();
                    fs::rename(link, dir.join(format!("usual.{file}"))).unwrap();
                }
            }
        }
        tls.edge.line("TLS identity usual: replaced").await;
        assert!(is_served(&tls.edge, HOST, &pair).await, "{way}");
        assert!(!is_served(&tls.edge, HOST, &tls.pair).await, "{way}");
    }
    client.send("nonsense\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "), "who was there goes on");
}

#[tokio::test]
async fn a_broken_replacement_is_told_once_and_the_old_one_stays() {
    let mut tls = TlsEdge::start(&[]).await;
    let dir = tls.identities.path().to_owned();
    let other = Pair::new(&[HOST]);
    for (file, content, reason) in [
        ("usual.crt", "text", "there is no certificate in "),
        ("usual.crt", &other.certificate_pem[..200], "cannot be parsed as PEM"),
        ("usual.crt", &other.certificate_pem, "KeyMismatch"),
    ] {
        // At once: a file that is half written is wrong in another way.
        fs::write(dir.join("new"), content).unwrap();
        fs::rename(dir.join("new"), dir.join(file)).unwrap();
        let line = tls.edge.line("TLS identity usual is refused").await;
        assert!(line.contains(reason) && line.contains("the one before stays"), "{line}");
        assert!(is_served(&tls.edge, HOST, &tls.pair).await, "{reason}");
    }
    // Others come and go meanwhile, so it was looked at again and again.
    let third = Pair::new(&["b.test"]);
    for _ in 0..2 {
        third.write(&dir, "b.test");
        wait_for_the_one_line(&mut tls.edge, "b.test: loaded").await;
        assert!(is_served(&tls.edge, "b.test", &third).await);
        fs::remove_file(dir.join("b.test.crt")).unwrap();
        wait_for_the_one_line(&mut tls.edge, "b.test: removed").await;
        assert!(!is_served(&tls.edge, "b.test", &third).await);
    }
    fs::write(dir.join("usual.key"), &other.key_pem).unwrap();
    wait_for_the_one_line(&mut tls.edge, "usual: replaced").await;
    assert!(is_served(&tls.edge, HOST, &other).await);
}

/// The log has no other line about identities before this one.
async fn wait_for_the_one_line(edge: &mut EdgeProcess, text: &str) {
    let line = edge.line("TLS identity ").await;
    assert!(line.contains(text), "{line}");
}

#[tokio::test]
async fn broken_pairs_in_the_directory_are_told_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    Pair::new(&[HOST]).write(dir.path(), "good");
    fs::write(dir.path().join("bad.crt"), "text").unwrap();
    fs::write(dir.path().join("lonely.crt"), "text").unwrap();
    fs::write(dir.path().join("bad.key"), "text").unwrap();
    let option = format!("--tls-identities-dir={}", dir.path().display());
    // A port that is taken ends it behind what is tested, and its log is all there.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={},tls,default-cert=good", taken.local_addr().unwrap());
    let (text, _) = crate::process::fails(&[&option, &listen]).await;
    for (line, count) in [
        ("TLS identity bad is refused: there is no certificate in ", 1),
        ("TLS identity lonely is refused: there is no certificate in ", 1),
        ("1 TLS identities in ", 1),
        ("address in use", 1),
    ] {
        assert_eq!(text.matches(line).count(), count, "{line}: {text}");
    }
}
