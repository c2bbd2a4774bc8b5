//! Why a measurement was not made, or is not to be trusted; by whose fault it is.

use std::io;

/// What ends a command in another way than with a good report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What was asked for makes no sense: the user's to mend.
    #[error("{0}")]
    Usage(String),
    /// Not all went as it must: some connections were refused, some answers were errors, something was lost. The report has
    /// been printed before, if there was anything to report.
    #[error("{0}")]
    Failed(String),
    /// The system did not do what the generator itself needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LoadError {
    /// The exit code that says so: 2 if the command line is to be changed, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            LoadError::Usage(_) => 2,
            LoadError::Failed(_) | LoadError::System { .. } => 1,
        }
    }

    /// Says what was tried, for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> LoadError {
        move |error| LoadError::System { what, source: error.into() }
    }
}

/// An error of the system in the few words that a person needs: without its number.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_said_in_words() {
        assert_eq!(words(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(words(&io::Error::other("Odd")), "odd");
    }
}
