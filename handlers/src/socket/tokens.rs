//! Tokens on sockets: of which kind one is, and what it adds to what the socket may do.
//!
//! A token of a subscriber lets a socket read, one of a publisher lets it publish; which it is, its
//! keys say. One that is good for both kinds counts for both, as it does over HTTP. A new one takes the
//! place of the one before, if it covers as much: channels that are read stay covered until the socket
//! is closed, without anybody looking at them again.

use zhttp::hold::CONTEXT_BYTES_MAX;

use super::context::Socket;
use crate::auth::{AuthError, Claims, Verifier};

/// The code of the close when a token was refused.
pub(super) const CLOSE_REFUSED: u16 = 3500;

/// The code of the close when a token is of another org.
const CLOSE_OTHER_ORG: u16 = 3501;

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
            | TokenError::TooLarge => CLOSE_REFUSED,
            TokenError::Org => CLOSE_OTHER_ORG,
        }
    }
}

/// What a token is good for: one of them at least.
struct Kinds {
    subscriber: Option<Claims>,
    publisher: Option<Claims>,
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
        let Kinds { subscriber, publisher } = self.verify(token, now_s)?;
        let mut socket = socket.clone();
        let mut is_taken = false;
        let kinds = [(&mut socket.subscriber, subscriber), (&mut socket.publisher, publisher)];
        for (place, claims) in kinds {
            let Some(claims) = claims.map(of_this_org).transpose()? else { continue };
            // One that covers less than that of one kind may be all there is of the other.
            if place.as_ref().is_none_or(|before| claims.covers(before)) {
                *place = Some(claims);
                is_taken = true;
            }
        }
        match (is_taken, socket.encode()) {
            (false, _) => Err(TokenError::Narrower),
            (true, None) => Err(TokenError::TooLarge),
            (true, Some(_)) => Ok(socket),
        }
    }

    fn verify(&self, token: &str, now_s: u64) -> Result<Kinds, TokenError> {
        let unknown = Err(AuthError::Invalid("publishers are unknown here"));
        let as_subscriber = self.subscriber.verify(token, now_s);
        let verifier = self.publisher.as_ref();
        let as_publisher = verifier.map_or(unknown, |verifier| verifier.verify(token, now_s));
        match (as_subscriber, as_publisher) {
            // Only a good signature makes a token an expired one.
            (Err(AuthError::Expired), Err(_)) | (Err(_), Err(AuthError::Expired)) => {
                Err(TokenError::Expired)
            }
            (Err(_), Err(_)) => Err(TokenError::Invalid),
            (subscriber, publisher) => {
                Ok(Kinds { subscriber: subscriber.ok(), publisher: publisher.ok() })
            }
        }
    }
}
