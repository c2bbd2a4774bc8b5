//! What a subscriber asks for: the parameters of `GET /events/{org}`, checked.
//!
//! Everything that is wrong is a 400 that names the parameter; nothing malformed reaches the store
//! (`docs/channels.md`, "Subscribe").
//!
//! # Where to begin
//!
//! `Last-Event-ID` (the header, which an EventSource sends by itself when it reconnects) wins over
//! `last_event_id` (the query, which is part of the URL and stays what it was at first). An empty
//! one counts as absent. For one channel it is a cursor, or a composite one in which that channel
//! is; for several it is a composite cursor, as those are the ids that such a connection gets. `$`
//! is "from now on" for all of them.

use std::borrow::Cow;
use std::collections::HashSet;

use zhttp::composite::{self, CHANNELS_MAX, Composite, CompositeError};
use zhttp::{Cursor, CursorError};

use crate::auth::bearer;
use crate::store::{ChannelName, NameError};
use crate::web::{Malformed, RequestHead};

/// "From now on".
const NOW: &str = "$";

/// A request to read channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) org: String,
    /// At least one, each once.
    pub(crate) channels: Vec<ChannelName>,
    pub(crate) start: Start,
    pub(crate) token: Option<String>,
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the oldest event that is kept.
    Oldest,
    /// With the first one after this moment.
    Now,
    /// After this one.
    After(Cursor),
    /// After those in here; channels that are not in it begin with their oldest one.
    Composite(Composite),
}

impl Start {
    /// Reads a cursor in any of its forms.
    pub(crate) fn parse(text: &str) -> Result<Start, CursorProblem> {
        match text {
            "" => Ok(Start::Oldest),
            NOW => Ok(Start::Now),
            text if composite::is_composite(text) => {
                Ok(composite::decode(text).map(Start::Composite)?)
            }
            text => Ok(text.parse().map(Start::After)?),
        }
    }

    /// Where this is in one channel.
    pub(crate) fn in_channel(&self, channel: &ChannelName) -> Start {
        match self {
            Start::Composite(cursors) => {
                cursors.cursor_of(channel.as_str()).map_or(Start::Oldest, Start::After)
            }
            Start::Oldest | Start::Now | Start::After(_) => self.clone(),
        }
    }
}

/// What is wrong with a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CursorProblem {
    #[error(transparent)]
    Plain(#[from] CursorError),
    #[error(transparent)]
    Composite(#[from] CompositeError),
}

/// What is wrong with a request; the text is the body of the 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParamError {
    #[error("Invalid path: {0}")]
    Org(NameError),
    #[error("Invalid path: {0}")]
    Path(Malformed),
    #[error("Invalid query: {0}")]
    Query(#[from] Malformed),
    #[error("Missing channel_id")]
    NoChannel,
    #[error("Invalid channel_id: {0}")]
    Channel(NameError),
    #[error("Too many channels: at most {CHANNELS_MAX}")]
    TooManyChannels,
    #[error("Invalid last_event_id: {0}")]
    Cursor(#[from] CursorProblem),
    #[error("Invalid last_event_id: several channels need the id of an event of all of them")]
    PlainForSeveral,
}

impl Subscription {
    /// Reads the request for `org`, as it stands in the path.
    pub(crate) fn parse(head: &RequestHead<'_>, org: &str) -> Result<Self, ParamError> {
        let org = crate::web::percent_decoded(org).map_err(ParamError::Path)?.into_owned();
        let channels = channels_of(head, &org)?;
        let start = start_of(head)?;
        // But for the cursor before everything, which is so in any channel.
        let is_of_one = matches!(start, Start::After(cursor) if cursor != Cursor::START);
        if is_of_one && channels.len() > 1 {
            return Err(ParamError::PlainForSeveral);
        }
        let token = token_of(head)?.map(Cow::into_owned);
        Ok(Subscription { org, channels, start, token })
    }
}

/// The token of a reader: `token` in the query, since an EventSource cannot send headers, or else a
/// bearer token. A malformed header is as good as none: both are a 401.
pub(crate) fn token_of<'a>(head: &RequestHead<'a>) -> Result<Option<Cow<'a, str>>, Malformed> {
    let in_query = head.parameter("token")?.filter(|token| !token.is_empty());
    Ok(in_query.or_else(|| bearer(head.header("authorization")).ok().map(Cow::Borrowed)))
}

fn channels_of(head: &RequestHead<'_>, org: &str) -> Result<Vec<ChannelName>, ParamError> {
    // The org is wrong whatever the channels are.
    ChannelName::new(org, "any").map_err(ParamError::Org)?;
    let (mut channels, mut seen) = (Vec::new(), HashSet::new());
    for channel in head.parameters("channel_id")? {
        if channel.is_empty() {
            return Err(ParamError::NoChannel);
        }
        let name = ChannelName::new(org, &channel).map_err(ParamError::Channel)?;
        if seen.insert(name.clone()) {
            channels.push(name);
        }
        if channels.len() > CHANNELS_MAX {
            return Err(ParamError::TooManyChannels);
        }
    }
    if channels.is_empty() { Err(ParamError::NoChannel) } else { Ok(channels) }
}

fn start_of(head: &RequestHead<'_>) -> Result<Start, ParamError> {
    let header = head.header("last-event-id").map(<[u8]>::trim_ascii);
    if let Some(header) = header.filter(|header| !header.is_empty()) {
        let text = std::str::from_utf8(header).map_err(|_| CursorProblem::Plain(CursorError))?;
        return Ok(Start::parse(text)?);
    }
    Ok(Start::parse(&head.parameter("last_event_id")?.unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::web::tests::{head_of, headers_of};

    fn parse(query: &str, headers: &[(&str, &str)]) -> Result<Subscription, ParamError> {
        let headers = headers_of(headers);
        let uri = format!("/events/acme?{query}");
        Subscription::parse(&head_of("GET", &uri, &headers), "acme")
    }

    fn start(query: &str, header: Option<&str>) -> Result<Start, String> {
        let headers: Vec<_> = header.map(|header| ("Last-Event-ID", header)).into_iter().collect();
        let parsed = parse(&format!("channel_id=a&{query}"), &headers);
        parsed.map(|subscription| subscription.start).map_err(|error| error.to_string())
    }

    fn encoded(channels: &[(&str, Cursor)]) -> String {
        let mut out = Vec::new();
        composite::encode(channels.iter().copied(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn channels_are_decoded_and_collapse() {
        let uuid = "97f58c19-ce38-4c6b-8a5b-47f3405691f0";
        let query =
            format!("channel_id=a%3Ab&channel_id={}&channel_id={uuid}", uuid.to_uppercase());
        let subscription = parse(&query, &[]).unwrap();
        let names: Vec<_> = subscription.channels.iter().map(ChannelName::channel).collect();
        assert_eq!(names, ["a:b", uuid]);
        assert_eq!(subscription.start, Start::Oldest);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |query: &str| parse(query, &[]).unwrap_err().to_string();
        assert_eq!(error(""), "Missing channel_id");
        assert_eq!(error("channel_id="), "Missing channel_id");
        assert_eq!(
            error("channel_id=a%20b"),
            "Invalid channel_id: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -"
        );
        assert_eq!(error("channel_id=%zz"), "Invalid query: Malformed percent-encoding");
        let many = |count: usize| {
            (0..count).map(|number| format!("channel_id={number}&")).collect::<String>()
        };
        assert_eq!(parse(&many(100), &[]).unwrap().channels.len(), 100);
        assert_eq!(error(&many(101)), "Too many channels: at most 100");
        let head = head_of("GET", "/events/x?channel_id=a", &[]);
        assert_eq!(
            Subscription::parse(&head, "a.b").unwrap_err().to_string(),
            "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -"
        );
        let malformed = Subscription::parse(&head, "a%").unwrap_err().to_string();
        assert_eq!(malformed, "Invalid path: Malformed percent-encoding");
    }

    #[test]
    fn the_header_wins_and_empty_is_absent() {
        let after = |epoch, offset| Ok(Start::After(Cursor::new(epoch, offset)));
        assert_eq!(start("last_event_id=5-1", Some("5-2")), after(5, 2));
        assert_eq!(start("last_event_id=5-1", Some("")), after(5, 1));
        assert_eq!(start("last_event_id=5-1", Some(" ")), after(5, 1));
        assert_eq!(start("last_event_id=5-1", None), after(5, 1));
        assert_eq!(start("last_event_id=", None), Ok(Start::Oldest));
        assert_eq!(start("last_event_id=$", None), Ok(Start::Now));
        assert_eq!(start("last_event_id=%24", None), Ok(Start::Now));
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        for bad in ["5", "5-", "-", "a-b", "05-1", "0-1", "5-1-1"] {
            let error = "Invalid last_event_id: a cursor is <epoch>-<offset>, two decimal numbers";
            assert_eq!(start(&format!("last_event_id={bad}"), None), Err(error.to_owned()));
            assert_eq!(start("", Some(bad)), Err(error.to_owned()));
        }
        let error = start("last_event_id=~A", None).unwrap_err();
        assert!(error.starts_with("Invalid last_event_id: composite cursor: "), "{error}");
    }

    #[test]
    fn several_channels_have_a_composite_cursor() {
        let cursor = encoded(&[("acme:a", Cursor::new(5, 1)), ("acme:b", Cursor::new(6, 2))]);
        let query = format!("channel_id=b&channel_id=c&last_event_id={cursor}");
        let Subscription { channels, start, .. } = parse(&query, &[]).unwrap();
        assert_eq!(start.in_channel(&channels[0]), Start::After(Cursor::new(6, 2)));
        assert_eq!(start.in_channel(&channels[1]), Start::Oldest);
        assert_eq!(
            parse("channel_id=a&channel_id=b&last_event_id=5-1", &[]),
            Err(ParamError::PlainForSeveral)
        );
        assert!(parse("channel_id=a&channel_id=b&last_event_id=$", &[]).is_ok());
        assert!(parse("channel_id=a&channel_id=b&last_event_id=0-0", &[]).is_ok());
        assert!(parse("channel_id=a&channel_id=a&last_event_id=5-1", &[]).is_ok());
    }

    #[test]
    fn the_token_comes_in_the_query_or_a_header() {
        let token = |query: &str, headers: &[(&str, &str)]| {
            parse(&format!("channel_id=a&{query}"), headers).unwrap().token
        };
        let header = [("Authorization", "Bearer h")];
        assert_eq!(token("token=q", &header).as_deref(), Some("q"));
        assert_eq!(token("token=", &header).as_deref(), Some("h"));
        assert_eq!(token("", &[("Authorization", "Basic h")]), None);
    }
}
