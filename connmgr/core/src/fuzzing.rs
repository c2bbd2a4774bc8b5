//! The bodies of the fuzz targets, as plain functions.
//!
//! `connmgr/core/fuzz/` holds a target for each of them, of one line; they stand here so that `cargo test` runs the same
//! code on the seeds in `fuzz/seeds/<target>/`, on every machine and without a nightly compiler. A crash that a fuzzer
//! finds becomes a seed. Each body holds a machine against a naive oracle or against itself (another way to cut the
//! same bytes), and panics where they differ.
//!
//! Those by bytes (`chunked_body`, `request_head`) hand them to a parser. Those by operations read them as choices, with
//! [`Choices`](zhttp::fuzzing::Choices): what to do, to whom, and how wrong. So a mutator makes a life of a machine out
//! of another one, and what crashes it can be made shorter byte by byte.
//!
//! Nothing outside of tests and fuzz targets calls them.

pub mod chunked_body;
pub mod feeds_ops;
pub mod hub_ops;
mod log;
pub mod members_ops;
pub mod request_head;
pub mod response_body;
pub mod response_head;
pub mod ring_ops;
pub mod session_ops;
pub mod slab_ops;
pub mod wheel_ops;
pub mod worker_ops;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    /// Tests of targets: the seeds of each, and bytes of any kind. A target by bytes alone gets little from those, but
    /// one by operations makes sense of all.
    macro_rules! targets {
        ($($target:ident,)*) => {
            const TARGETS: &[&str] = &[$(stringify!($target),)*];
            $(mod $target {
                use proptest::prelude::*;

                #[test]
                fn seeds() {
                    super::run_seeds(stringify!($target), crate::fuzzing::$target::fuzz);
                }

                proptest! {
                    #[test]
                    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
                        crate::fuzzing::$target::fuzz(&bytes);
                    }
                }
            })*
        };
    }

    targets! {
        chunked_body,
        feeds_ops,
        hub_ops,
        members_ops,
        request_head,
        response_body,
        response_head,
        ring_ops,
        session_ops,
        slab_ops,
        wheel_ops,
        worker_ops,
    }

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    /// Runs a body on each seed of its target, and on prefixes of it.
    fn run_seeds(target: &str, body: fn(&[u8])) {
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder("seeds").join(target)).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            let step = 1 + seed.len() / PREFIXES_MAX;
            (0..seed.len()).step_by(step).for_each(|len| body(&seed[..len]));
            body(&seed);
            seeds += 1;
        }
        assert!(seeds >= 3, "{target} has {seeds} seeds");
    }

    /// Prefixes of a seed that are tried, about.
    const PREFIXES_MAX: usize = 100;

    #[test]
    fn each_target_is_tested() {
        let files = std::fs::read_dir(folder("fuzz_targets")).unwrap();
        let names = files.map(|file| {
            let path = file.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        });
        let tested: BTreeSet<String> = TARGETS.iter().map(ToString::to_string).collect();
        assert_eq!(names.collect::<BTreeSet<String>>(), tested);
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
            picks in prop::collection::vec(prop::sample::select(&FRAGMENTS[..]), 0..20),
        ) {
            let bytes = picks.concat().into_bytes();
            super::request_head::fuzz(&bytes);
            super::request_head::fuzz(&[b"GET / HTTP/1.1\r\nHost: h\r\n", &bytes[..]].concat());
            super::chunked_body::fuzz(&bytes);
        }
    }
}
