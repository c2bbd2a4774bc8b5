//! Forebay's handlers: everything behind the edge.
//!
//! The edge holds the clients' sockets and knows nothing of channels but cursors. What is published
//! goes through a handler into the store, and what is read comes from the store through a handler
//! to the edge. Handlers keep nothing: kill one at any moment, and another goes on.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`roles`] | [`Handlers`](roles::Handlers): the roles of one process, started and stopped |
//! | [`publish`] | takes messages and appends them to a channel's log |
//! | [`fanout`] | answers subscribers, hands their connections to the edge, and feeds it |
//! | `socket` | the public WebSocket: reads and publishes, for one client on one connection |
//! | [`cleanup`] | ends idle channels, deletes ended ones |
//! | [`attach`] | the ZHTTP side, and what one needs to write a handler of one's own |
//! | [`store`] | the logs: the contract, in Redis, and in a directory |
//! | [`auth`] | tokens |
//! | [`event`] | what publishers send, and what it looks like when it is delivered |
//!
//! `docs/channels.md` and `zhttp-spec/hold.md` are the specifications. What one could expect here
//! and will not find: limits and quotas of their own for each org (there is one set of limits for
//! all), outcomes in the store (they are counted in memory and logged), and an exporter of metrics (the
//! numbers are in [`roles::Handlers`]).

pub mod attach;
pub mod auth;
pub mod cleanup;
mod control;
pub mod event;
pub mod fanout;
mod health;
pub mod publish;
pub mod roles;
mod socket;
pub mod store;
#[cfg(test)]
mod testing;
mod web;
