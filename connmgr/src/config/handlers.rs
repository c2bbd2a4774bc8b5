//! Where handlers are: the groups of stream mode, the specs of req mode, and that no two of them collide.
//!
//! As in Condure, a mode that no listener has opens no sockets: `--zclient-req` and `--zclient-stream` have defaults, and
//! an edge in pure stream use must not take the address that another one's req handlers use. What is typed for a mode
//! that nobody uses is checked all the same, so that adding a listener later brings no surprise.

use std::collections::HashSet;

use forebay_core::worker::Mode;

use super::args::HandlerArgs;
use super::route::{ROUTES_MAX, Route, RouteError, Routes};
use super::{ConfigError, ListenSpec, ZCLIENT_REQ_DEFAULT, ZCLIENT_STREAM_DEFAULT, value};
use crate::bus::{ReqSpec, Spec};

/// Where handlers are, and which of them get what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handlers {
    /// Base specs of stream mode by group, at least one each. Group [`DEFAULT_GROUP`](super::DEFAULT_GROUP) is that of
    /// `--zclient-stream`. Without a group exactly if no listener is stream.
    pub groups: Vec<Vec<Spec>>,
    /// Specs of req mode; empty exactly if no listener is req. No two specs, of whichever mode, have an address in common.
    pub req: Vec<ReqSpec>,
    /// Which group gets a path.
    pub routes: Routes,
    /// Connect to the specs, instead of binding them.
    pub connect: bool,
    /// Mode of `ipc` files that are bound. `None`: what the umask gives.
    pub ipc_file_mode: Option<u32>,
}

impl Handlers {
    pub(super) fn resolve(
        args: &HandlerArgs,
        listen: &[ListenSpec],
    ) -> Result<Handlers, ConfigError> {
        let serves = |mode| listen.iter().any(|spec| spec.mode == mode);
        let mut groups = vec![default_group(args)?];
        let mut req = req_specs(args)?;
        let routes = routes(args)?;
        if !serves(Mode::Stream) {
            if let Some(route) = routes.first() {
                return Err(ConfigError::RouteWithoutStream { prefix: route.prefix.clone() });
            }
            groups.clear();
        }
        if !serves(Mode::Req) {
            req.clear();
        }
        let routes = Routes::resolve(routes, &mut groups);
        check_addresses_differ(&groups, &req)?;
        Ok(Handlers {
            groups,
            req,
            routes,
            connect: args.zclient_connect,
            ipc_file_mode: Some(args.ipc_file_mode).filter(|&mode| mode != 0),
        })
    }
}

fn default_group(args: &HandlerArgs) -> Result<Vec<Spec>, ConfigError> {
    let parse = |base: &str| {
        let refused = |reason| ConfigError::ZclientStream { value: base.to_owned(), reason };
        base.parse().map_err(refused)
    };
    value::items(&args.zclient_stream, ZCLIENT_STREAM_DEFAULT).into_iter().map(parse).collect()
}

fn req_specs(args: &HandlerArgs) -> Result<Vec<ReqSpec>, ConfigError> {
    let parse = |spec: &str| {
        let refused = |reason| ConfigError::ZclientReq { value: spec.to_owned(), reason };
        spec.parse().map_err(refused)
    };
    value::items(&args.zclient_req, ZCLIENT_REQ_DEFAULT).into_iter().map(parse).collect()
}

fn routes(args: &HandlerArgs) -> Result<Vec<Route>, ConfigError> {
    let mut routes = Vec::new();
    for route in value::items(&args.route, "") {
        let refused = |reason| ConfigError::Route { value: route.to_owned(), reason };
        if routes.len() == ROUTES_MAX {
            return Err(refused(RouteError::TooMany));
        }
        routes.push(route.parse::<Route>().map_err(refused)?);
    }
    Ok(routes)
}

/// Neighbouring tcp ports overlap, so it is not enough that the specs differ.
fn check_addresses_differ(groups: &[Vec<Spec>], req: &[ReqSpec]) -> Result<(), ConfigError> {
    let stream = groups.iter().flatten().flat_map(|spec| {
        [spec.out(), spec.out_stream(), spec.inward()].map(|address| (spec.base(), address))
    });
    let req = req.iter().map(|spec| (spec.address(), spec.address()));
    let mut taken = HashSet::new();
    for (spec, address) in stream.chain(req) {
        if !taken.insert(address) {
            let (spec, address) = (spec.to_owned(), address.to_owned());
            return Err(ConfigError::AddressTwice { spec, address });
        }
    }
    Ok(())
}
