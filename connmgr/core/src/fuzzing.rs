//! The bodies of the fuzz targets, as plain functions.
//!
//! `connmgr/core/fuzz/` holds a target for each of them, of one line; they stand here so that `cargo test` runs the same
//! code on the seeds in `fuzz/seeds/<target>/`, on every machine and without a nightly compiler. A crash that a fuzzer
//! finds becomes a seed. Each body holds a machine against a naive oracle or against itself (another way to cut the
//! same bytes), and panics where they differ.
//!
//! Nothing outside of tests and fuzz targets calls them.

pub mod chunked_body;
pub mod request_head;
pub mod wheel_ops;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use proptest::prelude::*;

    /// Runs a body on each seed of its target, and on each prefix of it.
    fn run_seeds(target: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut seeds = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            for len in 0..=seed.len() {
                body(&seed[..len]);
            }
            seeds += 1;
        }
        assert!(seeds >= 3, "{target} has {seeds} seeds");
    }

    #[test]
    fn request_head() {
        run_seeds("request_head", super::request_head::fuzz);
    }

    #[test]
    fn chunked_body() {
        run_seeds("chunked_body", super::chunked_body::fuzz);
    }

    #[test]
    fn wheel_ops() {
        run_seeds("wheel_ops", super::wheel_ops::fuzz);
    }

    /// What heads and chunked bodies are made of, right and wrong. Strings of these get further than random bytes.
    const FRAGMENTS: [&str; 32] = [
        "GET ",
        "/ ",
        "HTTP/1.1",
        "HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r\n",
        "\r",
        "\n",
        " ",
        "\t",
        ":",
        ",",
        ";",
        "a",
        "0",
        "5",
        "hello",
        "ffffffffffffffff",
        "\0",
        "\u{e4}",
        "Host: h\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:",
        "gzip",
        "chunked",
        "Connection: close\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "http://h",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn fragments(
            picks in proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..20),
        ) {
            let bytes = picks.concat().into_bytes();
            super::request_head::fuzz(&bytes);
            super::request_head::fuzz(&[b"GET / HTTP/1.1\r\nHost: h\r\n", &bytes[..]].concat());
            super::chunked_body::fuzz(&bytes);
        }

        #[test]
        fn operations(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::wheel_ops::fuzz(&bytes);
        }
    }
}
