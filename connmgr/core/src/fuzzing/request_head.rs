//! Request heads: the same verdict however the bytes are cut, and nothing in a head that could mean two things.

use crate::http1::{
    BodyFraming, HeadError, HeadLimits, HeadScanner, RequestHead, TargetForm, Version,
};

/// Small, so that inputs of a fuzzer reach them.
const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 512, target_bytes_max: 64 };

/// What a scanner and a parser say of an input: how long the head is, or why it is refused.
type Verdict = Result<Option<usize>, HeadError>;

/// Reads one head from `bytes`, whole and byte by byte.
///
/// # Panics
///
/// If the verdicts differ, or a head was accepted that should not have been.
pub fn fuzz(bytes: &[u8]) {
    let whole = verdict(&mut HeadScanner::new(), bytes);
    let mut scanner = HeadScanner::new();
    let cut = (0..=bytes.len())
        .map(|len| verdict(&mut scanner, &bytes[..len]))
        .find(|verdict| *verdict != Ok(None))
        .unwrap_or(Ok(None));
    assert_eq!(whole, cut, "{}", bytes.escape_ascii());
}

fn verdict(scanner: &mut HeadScanner, input: &[u8]) -> Verdict {
    let Some(span) = scanner.scan(input, &LIMITS)? else { return Ok(None) };
    assert!(span.start < span.end && span.end <= LIMITS.head_bytes_max);
    let head = RequestHead::parse(input, span, &LIMITS)?;
    assert_eq!(head.head_bytes, span.end);
    check(&head, &input[span.start..span.end]);
    Ok(Some(span.end))
}

/// What holds for every head that is accepted, told in another way than the parser tells it.
fn check(head: &RequestHead<'_>, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let lines: Vec<&str> = text.trim_end_matches("\r\n").split("\r\n").collect();
    assert!(!lines.iter().any(|line| line.contains(['\r', '\n', '\0'])));
    assert_eq!(head.headers().count(), lines.len() - 1);
    let count = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
    match head.body {
        BodyFraming::None => assert_eq!(count("content-length:") + count("transfer-encoding:"), 0),
        BodyFraming::Length(length) => {
            assert_eq!((count("content-length:"), count("transfer-encoding:")), (1, 0));
            let value = head.header("Content-Length").expect("it was counted");
            let digits = std::str::from_utf8(value).expect("it is a number");
            assert_eq!(digits.parse(), Ok(length));
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
        }
        BodyFraming::Chunked => {
            assert_eq!((count("content-length:"), count("transfer-encoding:")), (0, 1));
            assert_eq!(head.version, Version::Http11);
        }
    }
    assert!(count("host:") <= 1 && (count("host:") == 1 || head.version == Version::Http10));
    if head.target_form == TargetForm::Absolute {
        let mut hosts = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        assert!(hosts.all(|(_, host)| host == head.host.as_bytes()), "one authority for all");
    }
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
    for (name, value) in head.headers() {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'));
    }
}
