//! Reads the vector files of `vectors/http1/`, whose format is told in the README there.
//!
//! It is plain Rust without any crate, because it is compiled twice: here, and by `connmgr/tests/conformance.rs`, which
//! runs the same requests against the real process.

use std::fmt;

/// What stands under one name in a vector file: lines as keys and texts, whose escapes are not undone yet.
pub(crate) struct Record<'f> {
    pub(crate) name: &'f str,
    /// The rule that the case rests on.
    pub(crate) rfc: &'f str,
    pub(crate) lines: Vec<(&'f str, &'f str)>,
}

/// Reads the records of some files. No two of them have the same name, and each cites its rule.
pub(crate) fn records<'f>(files: &[&'f str]) -> Vec<Record<'f>> {
    let mut records: Vec<Record<'f>> = Vec::new();
    let lines = files.iter().flat_map(|file| file.lines());
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, text) = line.split_once(' ').unwrap_or((line, ""));
        match (key, records.last_mut()) {
            ("case", _) => records.push(Record { name: text, rfc: "", lines: Vec::new() }),
            ("rfc", Some(record)) => record.rfc = text,
            (_, Some(record)) => record.lines.push((key, text)),
            (_, None) => panic!("{line:?} stands before the first case"),
        }
    }
    let mut names: Vec<&str> = records.iter().map(|record| record.name).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "two cases have the same name");
    }
    for Record { name, rfc, .. } in &records {
        let is_cited = ["9110 ", "9112 ", "6585 "].iter().any(|number| rfc.starts_with(number));
        assert!(is_cited, "{name} cites no rule");
    }
    records
}

/// The bytes of a text: `\r`, `\n`, `\t`, `\\`, `\xHH`, and `\{N*text}` for N times that text.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
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

/// A request as a handler gets it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Vec<u8>,
    pub(crate) uri: Vec<u8>,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.escape_ascii(), self.uri.escape_ascii())?;
        for (name, value) in &self.headers {
            write!(f, " [{}: {}]", name.escape_ascii(), value.escape_ascii())?;
        }
        write!(f, " {:?}", self.body.escape_ascii().to_string())
    }
}

/// What becomes of a connection behind a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The request is answered, and another one may come.
    Keep,
    /// The request is answered, and the connection is closed.
    Close,
    /// The server answers by itself, and closes.
    Refuse { status: u16, text: String },
    /// More bytes are needed.
    Incomplete,
}

/// A case of `requests/`.
#[derive(Clone, Debug)]
pub(crate) struct RequestCase {
    pub(crate) name: String,
    pub(crate) input: Vec<u8>,
    /// What a handler gets, if it gets anything.
    pub(crate) request: Option<Request>,
    /// Who sends the head alone gets `100 Continue`.
    pub(crate) interim: bool,
    pub(crate) end: End,
}

/// All cases of `requests/`, and how many were written: one with `each` is several.
pub(crate) fn request_cases() -> (Vec<RequestCase>, usize) {
    let records = records(&REQUEST_FILES);
    let written = records.len();
    (records.iter().flat_map(request_cases_of).collect(), written)
}

fn request_cases_of(record: &Record<'_>) -> Vec<RequestCase> {
    let each = record.lines.iter().find(|(key, _)| *key == "each");
    let Some((_, bytes)) = each else { return vec![request_case(record, None)] };
    unescape(bytes).into_iter().map(|byte| request_case(record, Some(byte))).collect()
}

/// Reads one case. That byte stands where the record has `\@`.
fn request_case(record: &Record<'_>, each: Option<u8>) -> RequestCase {
    let spelled = each.map(|byte| format!("\\x{byte:02x}"));
    let name =
        spelled.as_ref().map_or(record.name.into(), |byte| format!("{} {byte}", record.name));
    let bytes_of = |text: &str| unescape(&text.replace("\\@", spelled.as_deref().unwrap_or("\\@")));
    let (mut input, mut request, mut interim, mut end) = (Vec::new(), None, false, None);
    for &(key, text) in &record.lines {
        let of_request = || panic!("{name}: {key} belongs behind a request");
        match key {
            "each" => {}
            ">" => input.extend(bytes_of(text)),
            "request" => {
                let (method, uri) = text.split_once(' ').expect("a method and a URI");
                let (method, uri) = (bytes_of(method), bytes_of(uri));
                request = Some(Request { method, uri, ..Request::default() });
            }
            "header" => {
                let header = header(text, bytes_of);
                request.as_mut().unwrap_or_else(of_request).headers.push(header);
            }
            "body" => request.as_mut().unwrap_or_else(of_request).body = bytes_of(text),
            "interim" => interim = true,
            "keep" => end = Some(End::Keep),
            "close" => end = Some(End::Close),
            "incomplete" => end = Some(End::Incomplete),
            "refuse" => {
                let (status, text) = text.split_once(' ').expect("a status and a text");
                let status = status.parse().expect("a number");
                end = Some(End::Refuse { status, text: text.into() });
            }
            _ => panic!("{name}: what is {key:?}?"),
        }
    }
    let end = end.unwrap_or_else(|| panic!("{name} has no end"));
    RequestCase { name, input, request, interim, end }
}

/// `NAME: VALUE`, or `NAME:` with an empty value.
pub(crate) fn header(text: &str, bytes_of: impl Fn(&str) -> Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let (name, value) = text
        .split_once(": ")
        .or_else(|| text.strip_suffix(':').map(|name| (name, "")))
        .expect("a name and a value");
    (bytes_of(name), bytes_of(value))
}

const REQUEST_FILES: [&str; 10] = [
    include_str!("../../../vectors/http1/requests/lines.txt"),
    include_str!("../../../vectors/http1/requests/targets.txt"),
    include_str!("../../../vectors/http1/requests/field-lines.txt"),
    include_str!("../../../vectors/http1/requests/host.txt"),
    include_str!("../../../vectors/http1/requests/connection.txt"),
    include_str!("../../../vectors/http1/requests/content-length.txt"),
    include_str!("../../../vectors/http1/requests/transfer-encoding.txt"),
    include_str!("../../../vectors/http1/requests/transfer-codings.txt"),
    include_str!("../../../vectors/http1/requests/chunks.txt"),
    include_str!("../../../vectors/http1/requests/chunk-extras.txt"),
];
