//! The handlers.

pub mod attach;
pub mod auth;
pub mod event;
pub mod store;
