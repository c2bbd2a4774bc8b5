//! Routes: which group of plain ZHTTP handlers gets a request, by the prefix of its path.
//!
//! `--route /api/=ipc:///run/api` sends what begins with `/api/` to the handlers at that base spec. The longest
//! prefix wins, whatever the order of the options. Routes of one prefix make one group, with all their specs. What no
//! route fits goes to group 0, whose specs are those of `--zclient-stream`.
//!
//! A prefix is compared byte by byte: `/api` fits `/apiary` too, `/api/` does not.
//!
//! Handlers that say hello announce what they serve themselves; routes are for those that don't. There are few of
//! them and they never change, so a scan from the longest to the shortest is all that it takes; a trie was not
//! worth its code.

use std::cmp::Reverse;
use std::str::FromStr;

use crate::bus::{Spec, SpecError};

/// How many routes there may be. Each prefix takes a ZeroMQ socket for each of its specs, and each request compares
/// its path with all prefixes.
pub const ROUTES_MAX: usize = 256;

/// The group that gets what no route fits.
pub const DEFAULT_GROUP: usize = 0;

/// One `--route`, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The beginning of the path; it begins with a slash.
    pub prefix: String,
    /// Where its handlers are.
    pub spec: Spec,
}

/// Why a route was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not of the form `/prefix=spec`.
    #[error("a route must be PREFIX=SPEC, with a prefix that begins with a slash")]
    Form,
    /// More than [`ROUTES_MAX`].
    #[error("there are more than {ROUTES_MAX} routes")]
    TooMany,
    /// The spec after the prefix.
    #[error("{0}")]
    Spec(SpecError),
}

impl FromStr for Route {
    type Err = RouteError;

    /// The first `=` ends the prefix; a spec may have more of them.
    fn from_str(route: &str) -> Result<Self, RouteError> {
        let (prefix, spec) = route.split_once('=').ok_or(RouteError::Form)?;
        if !prefix.starts_with('/') {
            return Err(RouteError::Form);
        }
        let spec = spec.parse().map_err(RouteError::Spec)?;
        Ok(Route { prefix: prefix.to_owned(), spec })
    }
}

/// All routes. Group 0 is the default, the others are numbered in the order in which their prefixes came first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Prefix and group, the longest prefix first.
    by_prefix: Vec<(String, usize)>,
}

impl Routes {
    /// Gives each prefix a group, and appends the groups' specs to `groups`, which holds the default group already.
    pub(super) fn resolve(routes: Vec<Route>, groups: &mut Vec<Vec<Spec>>) -> Routes {
        let mut by_prefix: Vec<(String, usize)> = Vec::new();
        for Route { prefix, spec } in routes {
            match by_prefix.iter().find(|(known, _)| *known == prefix) {
                Some(&(_, group)) => groups[group].push(spec),
                None => {
                    by_prefix.push((prefix, groups.len()));
                    groups.push(vec![spec]);
                }
            }
        }
        by_prefix.sort_by_key(|(prefix, _)| Reverse(prefix.len()));
        Routes { by_prefix }
    }

    /// The group of handlers for a path, or for a request target that begins with it.
    pub fn group(&self, path: &[u8]) -> usize {
        self.by_prefix
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix.as_bytes()))
            .map_or(DEFAULT_GROUP, |&(_, group)| group)
    }

    /// The prefixes and their groups, the longest prefix first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.by_prefix.iter().map(|(prefix, group)| (prefix.as_str(), *group))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resolve(routes: &[&str]) -> (Routes, Vec<Vec<String>>) {
        let mut groups = vec![vec!["ipc://client".parse().unwrap()]];
        let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        let routes = Routes::resolve(routes, &mut groups);
        let bases = |group: &Vec<Spec>| group.iter().map(Spec::to_string).collect();
        (routes, groups.iter().map(bases).collect())
    }

    #[test]
    fn parses() {
        let route: Route = "/a/=ipc:///run/b=c".parse().unwrap();
        assert_eq!((route.prefix.as_str(), route.spec.base()), ("/a/", "ipc:///run/b=c"));
        for text in ["", "/a", "a=ipc://b", "=ipc://b"] {
            assert_eq!(text.parse::<Route>(), Err(RouteError::Form), "{text}");
        }
        let error = "/a=b".parse::<Route>().unwrap_err();
        assert_eq!(error.to_string(), "base spec must be ipc or tcp: \"b\"");
    }

    #[test]
    fn a_prefix_is_a_group() {
        let (routes, groups) = resolve(&["/a=ipc://1", "/b=ipc://2", "/a=ipc://3"]);
        assert_eq!(groups, [vec!["ipc://client"], vec!["ipc://1", "ipc://3"], vec!["ipc://2"]]);
        assert_eq!(routes.iter().collect::<Vec<_>>(), [("/a", 1), ("/b", 2)]);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let prefixes = ["/", "/a", "/a/", "/a/bc", "/b", "/é"];
        let specs: Vec<String> =
            prefixes.iter().enumerate().map(|(n, prefix)| format!("{prefix}=ipc://{n}")).collect();
        let (routes, _) = resolve(&specs.iter().map(String::as_str).collect::<Vec<_>>());
        for path in
            ["/", "/a", "/aa", "/a/", "/a/b", "/a/bc", "/a/bcd?x", "/c", "*", "", "/é", "/b"]
        {
            // The oracle: all prefixes that fit, and the longest of them.
            let fits = prefixes.iter().enumerate().filter(|(_, prefix)| path.starts_with(**prefix));
            let longest = fits.max_by_key(|(_, prefix)| prefix.len());
            let expected = longest.map_or(DEFAULT_GROUP, |(n, _)| n + 1);
            assert_eq!(routes.group(path.as_bytes()), expected, "{path}");
        }
        assert_eq!(Routes::default().group(b"/a"), DEFAULT_GROUP);
    }
}
