//! Tokens on sockets: of which kind one is, and what it adds to what the socket may do.
//!
//! A token of a subscriber lets a socket read, one of a publisher lets it publish; which it is, its
//! keys say. A new one takes the place of the one before, if it covers as much: channels that are read
//! stay covered until the socket is closed, without anybody looking at them again.

use zhttp::hold::CONTEXT_BYTES_MAX;

use super::context::Socket;
use crate::auth::{AuthError, Claims, Verifier};

/// Whose tokens are good.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) subscriber: Verifier,
    /// `None`: those of publishers are unknown here.
    pub(crate) publisher: Option<Verifier>,
}

/// Why a token was refused; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("Token expired")]
    Expired,
    #[error("Invalid token")]
    Invalid,
    #[error("The token does not cover this org")]
    Org,
    #[error("The token covers less than the one before")]
    Narrower,
    #[error(
        "What the tokens cover does not fit the {CONTEXT_BYTES_MAX} bytes that a socket may have"
    )]
    TooLarge,
}

impl TokenError {
    /// The status of the answer to a handshake that brought it.
    pub(super) fn status(self) -> u16 {
        match self {
            TokenError::Expired
            | TokenError::Invalid
            | TokenError::Narrower
            | TokenError::TooLarge => 401,
            TokenError::Org => 403,
        }
    }

    /// The code of the close of a socket that came with it.
    pub(super) fn close_code(self) -> u16 {
        match self {
            TokenError::Expired
            | TokenError::Invalid
            | TokenError::Narrower
            | TokenError::TooLarge => 3500,
            TokenError::Org => 3501,
        }
    }
}

/// What a token is good for.
enum Kind {
    Subscriber(Claims),
    Publisher(Claims),
}

impl Tokens {
    /// The socket as it is with this token, at `now_s`, in seconds since 1970.
    pub(super) fn taken(
        &self,
        socket: &Socket,
        token: &str,
        now_s: u64,
    ) -> Result<Socket, TokenError> {
        let of_this_org = |claims: Claims| {
            let nothing: [&str; 0] = [];
            claims.authorize(&socket.org, &nothing).map_err(|_| TokenError::Org)?;
            // The only thing that they are for from now on. Then all tokens of a socket compare.
            Ok(Claims { org: Some(socket.org.clone()), subject: None, ..claims })
        };
        let mut socket = socket.clone();
        let (place, claims) = match self.verify(token, now_s)? {
            Kind::Subscriber(claims) => (&mut socket.subscriber, of_this_org(claims)?),
            Kind::Publisher(claims) => (&mut socket.publisher, of_this_org(claims)?),
        };
        if place.as_ref().is_some_and(|before| !claims.covers(before)) {
            return Err(TokenError::Narrower);
        }
        *place = Some(claims);
        if socket.encode().is_none() { Err(TokenError::TooLarge) } else { Ok(socket) }
    }

    fn verify(&self, token: &str, now_s: u64) -> Result<Kind, TokenError> {
        let as_subscriber = match self.subscriber.verify(token, now_s) {
            Ok(claims) => return Ok(Kind::Subscriber(claims)),
            Err(error) => error,
        };
        let as_publisher = match &self.publisher {
            Some(verifier) => match verifier.verify(token, now_s) {
                Ok(claims) => return Ok(Kind::Publisher(claims)),
                Err(error) => error,
            },
            None => AuthError::Invalid("publishers are unknown here"),
        };
        // Only a good signature makes a token an expired one.
        if [as_subscriber, as_publisher].contains(&AuthError::Expired) {
            Err(TokenError::Expired)
        } else {
            Err(TokenError::Invalid)
        }
    }
}
