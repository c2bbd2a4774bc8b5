//! The `Authorization` header with a bearer token (RFC 6750 §2.1).

/// The scheme, compared without case (RFC 9110 §11.1).
const SCHEME: &[u8] = b"bearer";

/// Why there is no token in a header. The text is the body of the answer, with status 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// There is no `Authorization` header.
    #[error("Missing authorization header")]
    Missing,
    /// The header is not `Bearer <token>`.
    #[error("Invalid authorization format")]
    Format,
}

impl BearerError {
    /// The HTTP status that answers it.
    pub const STATUS: u16 = 401;
}

/// The token in the value of an `Authorization` header. That it is a token is not checked, only
/// that it is one word of ASCII.
pub fn bearer(header: Option<&[u8]>) -> Result<&str, BearerError> {
    let header = header.ok_or(BearerError::Missing)?.trim_ascii();
    let (scheme, rest) = header.split_at_checked(SCHEME.len()).ok_or(BearerError::Format)?;
    let token = rest.strip_prefix(b" ").ok_or(BearerError::Format)?.trim_ascii_start();
    let is_word = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    if !scheme.eq_ignore_ascii_case(SCHEME) || !is_word {
        return Err(BearerError::Format);
    }
    std::str::from_utf8(token).map_err(|_| BearerError::Format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found() {
        for header in ["Bearer a.b.c", "bearer a.b.c", " BEARER   a.b.c "] {
            assert_eq!(bearer(Some(header.as_bytes())), Ok("a.b.c"));
        }
    }

    #[test]
    fn other_headers_are_refused() {
        assert_eq!(bearer(None), Err(BearerError::Missing));
        for header in ["", "Bearer", "Bearer ", "Bearera", "Basic a", "Bearer a b", "Bearer \u{e9}"]
        {
            assert_eq!(bearer(Some(header.as_bytes())), Err(BearerError::Format), "{header}");
        }
        assert_eq!(BearerError::Missing.to_string(), "Missing authorization header");
        assert_eq!(BearerError::Format.to_string(), "Invalid authorization format");
    }
}
