//! Values of options that clap has no parser for: durations, octal modes, and lists.
//!
//! **Durations** are seconds, as in Condure, and may have a fraction (`0.5`) or a unit (`500ms`, `10s`).
//!
//! **Lists.** An option that may be repeated is a list in its environment variable, and the separator there is white
//! space, because a listen spec has commas in it. On the command line nothing is split, so that a path may have a
//! space in it there: Pushpin passes whatever run directory it was given. clap's own `value_delimiter` splits both,
//! so the parser here asks where the value comes from.

use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::parser::ValueSource;

/// The longest duration that an option takes, in seconds: 31 years. It stands for *never*, and leaves room for sums
/// of milliseconds in a `u64`.
pub const DURATION_SECONDS_MAX: u64 = 1_000_000_000;

/// The largest file mode: the nine permissions, and the set-user-ID, set-group-ID and sticky bits.
pub const FILE_MODE_MAX: u32 = 0o7777;

/// Parses `10`, `0.5`, `10s` or `500ms`.
///
/// # Errors
/// Says what a duration looks like; clap adds the option and the value.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, units_per_second) = match text.strip_suffix("ms") {
        Some(number) => (number, 1000.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    // `f64::from_str` alone would take `inf`, `1e9` and signs.
    let digits = number.bytes().any(|byte| byte.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = if digits { number.parse::<f64>().ok() } else { None };
    seconds
        .map(|number| number / units_per_second)
        .filter(|seconds| *seconds <= DURATION_SECONDS_MAX as f64)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| {
            format!("not a duration such as 10, 0.5, 10s or 500ms, of at most {DURATION_SECONDS_MAX} seconds")
        })
}

/// Parses a file mode in octal digits.
///
/// # Errors
/// Says what a mode looks like; clap adds the option and the value.
pub(super) fn parse_file_mode(text: &str) -> Result<u32, String> {
    // `from_str_radix` would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = if digits { u32::from_str_radix(text, 8).ok() } else { None };
    mode.filter(|mode| *mode <= FILE_MODE_MAX)
        .ok_or_else(|| format!("not an octal file mode of at most {FILE_MODE_MAX:o}"))
}

/// What one occurrence of a repeatable option brings: one item from the command line, any number from the
/// environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListValue(pub Vec<String>);

/// Makes a [`ListValue`], which see.
#[derive(Clone, Copy, Debug)]
pub struct ListValueParser;

impl TypedValueParser for ListValueParser {
    type Value = ListValue;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<ListValue, clap::Error> {
        let item = StringValueParser::new().parse_ref(command, arg, value)?;
        Ok(ListValue(vec![item]))
    }

    fn parse_ref_(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<ListValue, clap::Error> {
        let ListValue(items) = self.parse_ref(command, arg, value)?;
        if source != ValueSource::EnvVariable {
            return Ok(ListValue(items));
        }
        let words = items.iter().flat_map(|item| item.split_whitespace());
        Ok(ListValue(words.map(str::to_owned).collect()))
    }
}

/// All items of a repeatable option, in order; `default` if there is none.
pub(super) fn items<'a>(values: &'a [ListValue], default: &'a str) -> Vec<&'a str> {
    let items: Vec<&str> = values.iter().flat_map(|value| &value.0).map(String::as_str).collect();
    if items.is_empty() && !default.is_empty() { vec![default] } else { items }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("10", 10_000),
            ("1800", 1_800_000),
            ("0.5", 500),
            (".5", 500),
            ("0.3", 300),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("0ms", 0),
            ("1000000000", 1_000_000_000_000),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
        }
        for text in [
            "",
            "s",
            "ms",
            ".",
            "-1",
            "+1",
            "1e3",
            "inf",
            "NaN",
            "1.2.3",
            "1 s",
            "10m",
            "1000000001",
        ] {
            assert!(parse_duration(text).unwrap_err().contains("not a duration"), "{text}");
        }
    }

    #[test]
    fn file_modes() {
        assert_eq!(parse_file_mode("0"), Ok(0));
        assert_eq!(parse_file_mode("660"), Ok(0o660));
        assert_eq!(parse_file_mode("0770"), Ok(0o770));
        assert_eq!(parse_file_mode("7777"), Ok(0o7777));
        for text in ["", "8", "0o660", "+660", "-1", "rw", "10000", "77777777777777"] {
            assert!(
                parse_file_mode(text).unwrap_err().contains("not an octal file mode"),
                "{text}"
            );
        }
    }

    #[test]
    fn items_in_order_or_the_default() {
        let value = |words: &[&str]| ListValue(words.iter().map(|&word| word.into()).collect());
        assert_eq!(items(&[value(&["a", "b"]), value(&["c"])], "d"), ["a", "b", "c"]);
        assert_eq!(items(&[value(&[])], "d"), ["d"]);
        assert!(items(&[], "").is_empty());
    }
}
