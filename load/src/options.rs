//! What the commands have in common on the command line, and the checks of it.

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::error::LoadError;
use crate::sources;
use crate::wire::request::{Target, parse_target};

/// The server, and how to report.
#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    /// The server; HTTP without TLS
    #[arg(
        long,
        env = "FOREBAY_LOAD_CONNECT",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8000",
        value_parser = parse_target
    )]
    pub(crate) connect: Target,

    /// Processes of the server, whose processor time and resident memory are reported; repeatable
    #[arg(long, env = "FOREBAY_LOAD_PID", value_name = "PID[,PID]", value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,

    /// Print one JSON object instead of a table
    #[arg(long, env = "FOREBAY_LOAD_JSON", value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
}

impl CommonOptions {
    /// The server.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.connect
    }
}

/// Parses a number that is not below zero.
pub(crate) fn parse_number(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or("not a number that is 0 or more")
}

/// Parses a number above zero.
pub(crate) fn parse_positive(text: &str) -> Result<f64, &'static str> {
    parse_number(text).ok().filter(|number| *number > 0.0).ok_or("not a number above 0")
}

/// How many threads hold so many connections: as many as was said, or as their descriptors demand.
///
/// # Errors
/// If those that were said are too few.
pub(crate) fn holders(threads: Option<usize>, connections: u64) -> Result<usize, LoadError> {
    let each = sources::connections_per_table();
    let demanded = usize::try_from(connections.div_ceil(each)).unwrap_or(usize::MAX).max(1);
    match threads {
        Some(threads) if threads < demanded => Err(LoadError::Usage(format!(
            "--threads {threads}: {connections} connections need at least {demanded}, as a thread has descriptors for {each}"
        ))),
        Some(threads) => Ok(threads),
        None => Ok(demanded),
    }
}

/// An error that tells of what went wrong how often, if anything did: "status 503 for 12 of 100 connections".
pub(crate) fn failed<'a>(
    reasons: impl IntoIterator<Item = (&'a String, &'a u64)>,
    total: u64,
    what: &str,
) -> Option<LoadError> {
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let each =
        reasons.iter().map(|(reason, count)| format!("{reason} for {count} of {total} {what}"));
    let text = each.collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(LoadError::Failed(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_failed_is_told_with_the_most_frequent_first() {
        let mut reasons = BTreeMap::new();
        assert!(failed(&reasons, 0, "connections").is_none());
        reasons.insert("closed".to_owned(), 1);
        reasons.insert("status 503".to_owned(), 12);
        let error = failed(&reasons, 100, "connections").unwrap();
        let text = "status 503 for 12 of 100 connections; closed for 1 of 100 connections";
        assert_eq!((error.to_string().as_str(), error.exit_code()), (text, 1));
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!((parse_number("0"), parse_positive("0.5")), (Ok(0.0), Ok(0.5)));
        assert!(parse_number("-1").is_err() && parse_number("inf").is_err());
        assert!(parse_positive("0").is_err());
    }

    #[test]
    fn threads_are_those_that_the_descriptors_demand() {
        assert_eq!(holders(None, 1).unwrap(), 1);
        assert_eq!(holders(Some(7), 1).unwrap(), 7);
        let each = sources::connections_per_table();
        assert_eq!(holders(None, each * 2 + 1).unwrap(), 3);
        assert!(holders(Some(1), each + 1).is_err());
    }
}
