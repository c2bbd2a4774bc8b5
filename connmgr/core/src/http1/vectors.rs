//! Runs the test vectors in `vectors/http1/`, whose format is told at the top of each file.
//!
//! Each case is fed whole, byte by byte, cut in two at every place, and with the bytes of a next request behind it; the
//! result must be the same.

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

/// Reads the cases of a file: `case`, `rfc`, any number of `>` lines, `=`.
fn cases(file: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    let mut cited = 0;
    for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, text) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "case" => cases.push(Case { name: text, input: Vec::new(), expected: "" }),
            "rfc" => cited += 1,
            ">" => cases.last_mut().expect("a case").input.extend(unescape(text)),
            "=" => cases.last_mut().expect("a case").expected = text,
            _ => panic!("what is {line:?}?"),
        }
    }
    assert_eq!(cited, cases.len(), "each case cites its rule");
    assert!(cases.iter().all(|case| !case.expected.is_empty()));
    let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
    cases
}

/// `\r`, `\n`, `\t`, `\\`, `\xHH`, and `\{N*text}` for N times that text.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (kind, mut after) = escaped.split_at(1);
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "\\" => bytes.push(b'\\'),
            "x" => {
                let (digits, behind) = after.split_at(2);
                bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
                after = behind;
            }
            "{" => {
                let (repeated, behind) = after.split_once('}').expect("a closing brace");
                let (times, unit) = repeated.split_once('*').expect("a number and *");
                bytes.extend(unescape(unit).repeat(times.parse().expect("a number")));
                after = behind;
            }
            _ => panic!("no escape: {escaped:?}"),
        }
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
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
