//! The authority: `uri-host [":" port]` (RFC 9110 §7.2, RFC 3986 §3.2).
//!
//! It comes as the `Host` field or inside an absolute-form target, and goes on to handlers, who build URLs and choose
//! tenants with it. So only what RFC 3986 allows gets through. An IP literal must be an IPv6 address: the RFC's
//! `IPvFuture` was never used. User information (`user@host`) is not part of a `Host` and is refused in a target
//! (RFC 9110 §4.2.4).

use std::net::Ipv6Addr;

/// Whether that is a valid authority. An empty one is: it says that the target has none (RFC 9112 §3.2).
pub(super) fn is_valid(authority: &[u8]) -> bool {
    let (host, port) = match authority {
        [b'[', rest @ ..] => {
            let Some(literal_len) = memchr::memchr(b']', rest) else { return false };
            let (literal, port) = (&rest[..literal_len], &rest[literal_len + 1..]);
            let is_ipv6 = std::str::from_utf8(literal)
                .is_ok_and(|literal| literal.parse::<Ipv6Addr>().is_ok());
            return is_ipv6 && is_port_suffix(port);
        }
        _ => authority.split_at(memchr::memchr(b':', authority).unwrap_or(authority.len())),
    };
    is_reg_name(host) && is_port_suffix(port)
}

/// `*( unreserved / pct-encoded / sub-delims )` (RFC 3986 §3.2.2); an IPv4 address is one, too.
fn is_reg_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..]
                if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) =>
            {
                rest
            }
            _ => return false,
        }
    }
}

/// Nothing, or a colon and `*DIGIT` of a TCP port.
fn is_port_suffix(suffix: &[u8]) -> bool {
    match suffix {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn knows_authorities() {
        for good in [
            "",
            "a",
            "A.example",
            "a_b",
            "localhost:8080",
            "a:",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:65535",
            "a%20b",
            "x-y.z~",
            "a.",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "a/b",
            "u@a",
            "a:b",
            "a:1:2",
            "a:65536",
            "a:+1",
            "[::1",
            "::1",
            "[::g]",
            "[a]",
            "[::1]x",
            "[::1%25eth0]",
            "[v1.a]",
            "a%2",
            "a%zz",
            "a,\u{e4}",
            "a?b",
            "a#b",
            "a\\b",
            "a, b",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }
}
