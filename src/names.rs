//! Names as people type them: orgs, channels, and what a token covers. A wrong one is refused before anything is sent.

use forebay_handlers::store::{ChannelName, NameError};

/// Checks an org.
pub(crate) fn parse_org(text: &str) -> Result<String, NameError> {
    ChannelName::new(text, "any").map(|_| text.to_owned())
}

/// Checks a channel.
pub(crate) fn parse_channel(text: &str) -> Result<String, NameError> {
    ChannelName::new("any", text).map(|_| text.to_owned())
}

/// Checks a channel, or the prefix of channels with a `*` behind it.
pub(crate) fn parse_channel_pattern(text: &str) -> Result<String, NameError> {
    match text.strip_suffix('*') {
        Some("") => Ok(text.to_owned()),
        Some(prefix) => parse_channel(prefix).map(|_| text.to_owned()),
        None => parse_channel(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_channels() {
        assert_eq!(parse_org("a-Z_9"), Ok("a-Z_9".to_owned()));
        assert_eq!(parse_org("a.b"), Err(NameError::Org));
        assert_eq!(parse_channel("a:b~c.d"), Ok("a:b~c.d".to_owned()));
        for bad in ["", "a b", "a/b", "a*"] {
            assert_eq!(parse_channel(bad), Err(NameError::Channel), "{bad}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        for good in ["*", "a", "a*", "a:*"] {
            assert_eq!(parse_channel_pattern(good), Ok(good.to_owned()));
        }
        for bad in ["", "**", "a*b", "/*"] {
            assert_eq!(parse_channel_pattern(bad), Err(NameError::Channel), "{bad}");
        }
    }
}
