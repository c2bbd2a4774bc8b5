//! Runs the test vectors in `vectors/http1/`, whose format is told at the top of each file;
//! [`table`] reads them.
//!
//! Each case is fed whole, byte by byte, cut in two at every place, and with the bytes of a next request behind it; the
//! result must be the same.

pub(crate) mod table;

use std::fmt::Write as _;

use super::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 2048, target_bytes_max: 1024 };

/// Bytes that follow a case on the same connection. They could go on with anything that is unfinished.
const BEHIND: [&[u8]; 3] = [b"GET /next HTTP/1.1\r\n", b"\r\n\r\n", b"0"];

/// One case of a vector file.
struct Case<'f> {
    name: &'f str,
    input: Vec<u8>,
    expected: &'f str,
}

/// Reads the cases of a file: any number of `>` lines, and `=`.
fn cases(file: &str) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for table::Record { name, lines, .. } in table::records(&[file]) {
        let mut case = Case { name, input: Vec::new(), expected: "" };
        for (key, text) in lines {
            match key {
                ">" => case.input.extend(table::unescape(text)),
                "=" => case.expected = text,
                _ => panic!("{name}: what is {key:?}?"),
            }
        }
        assert!(!case.expected.is_empty(), "{name} has no result");
        cases.push(case);
    }
    cases
}

/// Feeds a head in those growing prefixes; what comes out, in the words of the vector file.
fn head_result(input: &[u8], prefixes: impl Iterator<Item = usize>) -> String {
    let mut scanner = HeadScanner::new();
    for len in prefixes {
        let input = &input[..len];
        let head = scanner
            .scan(input, &LIMITS)
            .and_then(|span| span.map(|span| RequestHead::parse(input, span, &LIMITS)).transpose());
        match head {
            Ok(None) => {}
            Ok(Some(head)) => return accepted(&head),
            Err(error) => return format!("refuse {} {error:?}", error.status()),
        }
    }
    "more".to_owned()
}

fn accepted(head: &RequestHead<'_>) -> String {
    let version = match head.version {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
    };
    let body = match head.body {
        BodyFraming::None => "none".to_owned(),
        BodyFraming::Length(length) => length.to_string(),
        BodyFraming::Chunked => "chunked".to_owned(),
    };
    let mut text = format!("accept {} {} {version} host={}", head.method, head.target, head.host);
    let next = if head.keep_alive { "keep-alive" } else { "close" };
    write!(text, " body={body} {next}").expect("a String takes all");
    if head.expect_continue {
        text.push_str(" continue");
    }
    text
}

#[test]
fn request_heads() {
    let cases = cases(include_str!("../../vectors/http1/request-heads.txt"));
    assert!(cases.len() >= 80, "{}", cases.len());
    for Case { name, input, expected } in cases {
        let len = input.len();
        assert_eq!(head_result(&input, [len].into_iter()), expected, "{name}, whole");
        assert_eq!(head_result(&input, 0..=len), expected, "{name}, byte by byte");
        for cut in 0..len {
            assert_eq!(
                head_result(&input, [cut, len].into_iter()),
                expected,
                "{name}, cut at {cut}"
            );
        }
        for behind in BEHIND.iter().filter(|_| expected != "more") {
            let input = [&input, *behind].concat();
            let whole = head_result(&input, [input.len()].into_iter());
            assert_eq!(whole, expected, "{name}, with bytes behind");
        }
    }
}

/// Feeds a chunked body in pieces of that size; what comes out, in the words of the vector file.
fn body_result(mut input: &[u8], piece_bytes: usize) -> (String, usize) {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let (mut body, mut consumed) = (Vec::new(), 0);
    while !input.is_empty() && !decoder.is_done() {
        match decoder.decode(&input[..piece_bytes.min(input.len())]) {
            Ok(decoded) => {
                body.extend_from_slice(&input[decoded.data]);
                consumed += decoded.consumed;
                input = &input[decoded.consumed..];
            }
            Err(error) => return (format!("refuse {} {error:?}", error.status()), 0),
        }
    }
    let verdict = if decoder.is_done() { "accept" } else { "more" };
    (format!("{verdict} [{}]", body.escape_ascii()), consumed)
}

#[test]
fn chunked_bodies() {
    for Case { name, input, expected } in
        cases(include_str!("../../vectors/http1/chunked-bodies.txt"))
    {
        for piece_bytes in (1..=input.len()).chain([usize::MAX]) {
            let (result, consumed) = body_result(&input, piece_bytes);
            assert_eq!(result, expected, "{name}, in pieces of {piece_bytes}");
            if expected.starts_with("accept") {
                assert_eq!(consumed, input.len(), "{name}");
            }
        }
        for behind in BEHIND.iter().filter(|_| !expected.starts_with("more")) {
            let (result, consumed) = body_result(&[&input, *behind].concat(), usize::MAX);
            assert_eq!(result, expected, "{name}, with bytes behind");
            assert!(consumed <= input.len(), "{name}");
        }
    }
}
