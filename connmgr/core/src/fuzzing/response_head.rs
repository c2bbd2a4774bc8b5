//! Responses against a naive client: whatever a handler says, the client reads one response, and just that content.

use zhttp::fuzzing::Choices;

use crate::http1::{
    BodyEncoder, BodyPlan, ErrorResponse, RequestContext, ResponseHead, Version, write_error,
    write_head,
};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Names of header fields, right and wrong. The first ones are about the connection.
const NAMES: &[&str] = &[
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Transfer-Encoding",
    "Upgrade",
    "Trailer",
    "Content-Length",
    "content-length",
    "Date",
    "date",
    "X-A",
    "Set-Cookie",
    "Content-Type",
    "Server",
    "",
    "A B",
    "A:",
    "A\r\nB",
    "\0",
    "\u{e4}",
];

const VALUES: &[&str] = &[
    "5",
    "0",
    "3",
    " 3 ",
    "+3",
    "close",
    "keep-alive",
    "chunked",
    "gzip, chunked",
    "",
    "text/plain",
    "a\r\nX: b",
    "a\nb",
    "\0",
    "\u{e4}",
    "18446744073709551616",
    "\t",
];

/// Fields about the connection, which is the edge's business (RFC 9110 §7.6.1).
const CONNECTION_FIELDS: usize = 6;

type Field = (Vec<u8>, Vec<u8>);

/// What a handler says.
struct Said {
    code: u16,
    reason: String,
    fields: Vec<Field>,
    pieces: Vec<Vec<u8>>,
    is_whole: bool,
}

/// What a client reads of a head.
pub(super) struct Read {
    pub(super) code: u16,
    pub(super) fields: Vec<Field>,
}

/// Writes a response that the choices make, and reads it as a client does.
///
/// # Panics
///
/// If the client could misread it, or gets other content.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let request = RequestContext {
        version: choices.one_of(&[Version::Http11, Version::Http10]),
        is_head: choices.index(4) == 3,
        keep_alive: choices.flag(),
        date: DATE,
    };
    if choices.index(8) == 7 {
        return check_error(&mut choices, &request);
    }
    let said = Said::choose(&mut choices);
    let content = said.pieces.concat();
    let head = ResponseHead {
        code: said.code,
        reason: &said.reason,
        headers: said.fields.iter().map(|(name, value)| (&name[..], &value[..])),
    };
    let plan =
        if said.is_whole { BodyPlan::Whole(content.len() as u64) } else { BodyPlan::Streamed };
    let mut out = b"before".to_vec();
    let Ok(mut written) = write_head(&mut out, &request, head, plan) else {
        assert_eq!(out, b"before", "nothing of what is refused is written");
        assert!(!said.is_innocent(), "nothing is wrong with that");
        return;
    };
    let read = read_head(&out[b"before".len()..]);
    said.check(&read, &request, written.keep_alive);
    if written.body == BodyEncoder::UntilClose {
        assert!(!written.keep_alive, "only the end of the connection ends it");
    }
    let mut body = Vec::new();
    let encoded = said.pieces.iter().try_for_each(|piece| written.body.encode(piece, &mut body));
    let encoded = encoded.and_then(|()| written.body.finish());
    let expected = expected_content(&read, &request, &content);
    match encoded {
        Ok(last) => {
            body.extend_from_slice(last);
            let want = expected.expect("the length was not kept to");
            assert_eq!(read_body(&read, &request, &body), Some(want));
        }
        Err(_) => assert!(expected.is_none(), "the length was kept to"),
    }
}

impl Said {
    fn choose(choices: &mut Choices<'_>) -> Self {
        let code = match choices.index(8) {
            0 => choices.number() as u16,
            1 => choices.one_of(&[199, 600, 100, 101, 0, 299, 599]),
            2 => choices.one_of(&[204, 205, 304, 426]),
            _ => 200,
        };
        let reason = match choices.index(4) {
            0 => String::from_utf8_lossy(choices.bytes(10)).into_owned(),
            1 => choices.one_of(&["OK", "a\r\nb", "a\nX: y", "\0"]).to_owned(),
            _ => String::new(),
        };
        let text = |choices: &mut Choices<'_>, words: &[&str]| match choices.byte() {
            0xf0.. => choices.bytes(12).to_vec(),
            byte => words[usize::from(byte) % words.len()].into(),
        };
        let fields = (0..choices.index(6)).map(|_| (text(choices, NAMES), text(choices, VALUES)));
        let fields = fields.collect();
        let is_whole = choices.flag();
        let pieces = (0..choices.index(4)).map(|_| choices.bytes(20).to_vec()).collect();
        Said { code, reason, fields, pieces, is_whole }
    }

    /// Whether nobody could take offence at it: such a head must not be refused.
    fn is_innocent(&self) -> bool {
        let is_plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        (200..600).contains(&self.code)
            && self.reason.bytes().all(|byte| is_plain(&byte))
            && self.fields.iter().all(|(name, value)| {
                let is_framing = name.eq_ignore_ascii_case(b"content-length")
                    || name.eq_ignore_ascii_case(b"transfer-encoding");
                !name.is_empty()
                    && name.iter().all(is_name)
                    && value.iter().all(is_plain)
                    && !is_framing
            })
    }

    /// The head has what the handler said, in its order, and what the edge has to say, once.
    fn check(&self, read: &Read, request: &RequestContext<'_>, keep_alive: bool) {
        assert_eq!(read.code, self.code);
        let is_own = |name: &[u8]| {
            let own = NAMES[..CONNECTION_FIELDS].iter().chain(&["Content-Length"]);
            own.clone().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
        };
        let mut passed: Vec<(&[u8], &[u8])> = Vec::new();
        for (name, value) in &self.fields {
            // RFC 9110 §15.5.22, §7.8.
            let says_what_to_ask_for = self.code == 426 && name.eq_ignore_ascii_case(b"upgrade");
            if says_what_to_ask_for {
                passed.push((b"Connection", b"upgrade"));
            }
            if says_what_to_ask_for || !is_own(name) {
                passed.push((name, value.trim_ascii()));
            }
        }
        let got = read.fields.iter().map(|(name, value)| (&name[..], value.trim_ascii()));
        assert!(got.take(passed.len()).eq(passed.iter().copied()), "fields, in their order");
        let added = &read.fields[passed.len()..];
        let count = |name: &str| all(added, name).count();
        let lengths = count("content-length");
        let codings = count("transfer-encoding");
        assert!(lengths + codings <= 1, "one way to find the end");
        assert!(codings == 0 || request.version == Version::Http11);
        assert_eq!(all(&read.fields, "date").count().max(1), all(&read.fields, "date").count());
        let said: Vec<&[u8]> = all(added, "connection").collect();
        let want: &[&[u8]] = match (request.version, keep_alive) {
            (_, false) => &[b"close"],
            (Version::Http10, true) => &[b"keep-alive"],
            (Version::Http11, true) => &[],
        };
        assert_eq!(said, want, "the connection");
        assert!(request.keep_alive || !keep_alive, "nobody asked for more");
        let other = ["content-length", "transfer-encoding", "connection", "date"];
        assert_eq!(added.len(), other.into_iter().map(count).sum(), "nothing else");
    }
}

/// An answer of the edge's own is whole.
fn check_error(choices: &mut Choices<'_>, request: &RequestContext<'_>) {
    let text = choices.one_of(&["", "No handler is available", "\u{e4}"]);
    let retry_after_secs = choices.flag().then(|| choices.number() as u32);
    let status = 400 + choices.index(200) as u16;
    let mut out = Vec::new();
    write_error(&mut out, request, &ErrorResponse { status, text, retry_after_secs });
    let head_len = out.windows(4).position(|end| end == b"\r\n\r\n").expect("a head ends") + 4;
    let read = read_head(&out[..head_len]);
    assert_eq!(read.code, status);
    let want = if request.is_head { b"" } else { text.as_bytes() };
    assert_eq!(read_body(&read, request, &out[head_len..]).as_deref(), Some(want));
    assert_eq!(read.says("connection", b"close"), !request.keep_alive);
}

/// Reads a head line by line. It must be one for every reader.
pub(super) fn read_head(bytes: &[u8]) -> Read {
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("an empty line ends it");
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(len) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..len]);
        rest = &rest[len + 2..];
    }
    lines.push(rest);
    for line in &lines {
        assert!(!line.is_empty(), "no end before the end");
        assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)), "{}", line.escape_ascii());
    }
    let status = lines[0].strip_prefix(b"HTTP/1.1 ").expect("a status line");
    let code = std::str::from_utf8(&status[..3]).ok().and_then(|code| code.parse().ok());
    assert_eq!(status[3], b' ');
    let fields = lines[1..].iter().map(|line| {
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        assert!(colon > 0 && line[..colon].iter().all(u8::is_ascii_graphic));
        (line[..colon].to_vec(), line[colon + 1..].trim_ascii().to_vec())
    });
    let read = Read { code: code.expect("three digits"), fields: fields.collect() };
    let is_text = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    if bytes.iter().all(|byte| is_text(byte) || b"\r\n".contains(byte)) {
        check_by_httparse(bytes, &read);
    }
    read
}

/// A parser that others use reads the same.
fn check_by_httparse(bytes: &[u8], read: &Read) {
    let mut table = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut table);
    assert_eq!(response.parse(bytes), Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!(response.code, Some(read.code));
    let fields = response
        .headers
        .iter()
        .map(|field| (field.name.as_bytes().to_vec(), field.value.trim_ascii().to_vec()));
    assert!(fields.eq(read.fields.iter().cloned()));
}

/// The content that the client is to get; `None` if the handler does not keep to the length that it gave.
fn expected_content(read: &Read, request: &RequestContext<'_>, content: &[u8]) -> Option<Vec<u8>> {
    if request.is_head || matches!(read.code, 204 | 205 | 304) {
        return Some(Vec::new());
    }
    let is_kept = read.length().is_none_or(|length| length == content.len() as u64);
    is_kept.then(|| content.to_vec())
}

/// Reads a body as RFC 9112 §6.3 tells a client to; `None` if it is not all of `bytes`.
fn read_body(read: &Read, request: &RequestContext<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    if request.is_head || matches!(read.code, 204 | 304) {
        return bytes.is_empty().then(Vec::new);
    }
    if read.says("transfer-encoding", b"chunked") {
        return super::chunked_body::naive(bytes);
    }
    let is_all = read.length().is_none_or(|length| length == bytes.len() as u64);
    is_all.then(|| bytes.to_vec())
}

impl Read {
    /// The length that the head gives.
    pub(super) fn length(&self) -> Option<u64> {
        let value = all(&self.fields, "content-length").next()?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// Whether it has a field with that value, alone or in a list.
    pub(super) fn says(&self, name: &str, value: &[u8]) -> bool {
        let mut said = all(&self.fields, name).flat_map(|list| list.split(|byte| *byte == b','));
        said.any(|said| said.trim_ascii() == value)
    }
}

/// The values of all fields of that name.
fn all<'f>(fields: &'f [Field], name: &str) -> impl Iterator<Item = &'f [u8]> {
    let named = move |field: &&Field| field.0.eq_ignore_ascii_case(name.as_bytes());
    fields.iter().filter(named).map(|(_, value)| &value[..])
}
