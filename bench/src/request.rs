//! Just enough of an HTTP/1.1 request: its method, its target, and a body of a `Content-Length`.
//!
//! The generator of the load sends nothing else; what is malformed closes its connection.

/// Header fields of a request; one with more is refused. The generator sends five.
const HEADERS_MAX: usize = 32;

/// A request, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Whether it is a `POST`.
    pub(crate) is_post: bool,
    /// The target as it stands.
    pub(crate) path: &'a str,
    /// The body; empty if there is none.
    pub(crate) body: &'a [u8],
    /// Bytes of head and body together.
    pub(crate) len: usize,
}

/// The bytes are no request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Request<'a> {
    /// Reads the request at the begin of the bytes; `None` if it is not whole yet.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        let head_len = match head.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed),
        };
        let (Some(method), Some(path)) = (head.method, head.path) else { return Err(Malformed) };
        let is_length = |header: &&httparse::Header<'_>| {
            header.name.eq_ignore_ascii_case("content-length") && !header.value.is_empty()
        };
        let body_len = match head.headers.iter().find(is_length) {
            None => 0,
            Some(header) => {
                let text = std::str::from_utf8(header.value).map_err(|_| Malformed)?;
                text.parse::<usize>().map_err(|_| Malformed)?
            }
        };
        let len = head_len.checked_add(body_len).ok_or(Malformed)?;
        let Some(body) = bytes.get(head_len..len) else { return Ok(None) };
        Ok(Some(Request { is_post: method == "POST", path, body, len }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_request_is_read_when_it_is_whole() {
        let bytes = b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET";
        let whole = bytes.len() - 3;
        for len in 0..whole {
            assert_eq!(Request::read(&bytes[..len]), Ok(None), "{len}");
        }
        let read = Request { is_post: true, path: "/c", body: b"body", len: whole };
        assert_eq!(Request::read(bytes).unwrap().unwrap(), read);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bytes in [&b"\0"[..], b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
            assert_eq!(Request::read(bytes), Err(Malformed));
        }
    }
}
