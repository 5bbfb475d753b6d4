//! Several processes share one limit through Redis.
//!
//! [`lease`] and its script, `lease.lua`, are what a service would copy. [`server`] starts a Redis server for the example and
//! its tests.

pub mod lease;
pub mod server;
