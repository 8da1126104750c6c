//! Whole engines, one at a time: what they promise without Erlang and without other members.
//!
//! One binary, because linking RocksDB takes seconds for each. Tests that count what the process uses, measure delays or
//! arm fault points are binaries of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/mod.rs"]
mod support;

mod backup;
mod damage;
mod engine;
mod history;
mod leases;
mod memory;
mod model;
mod nodes;
mod requests;
mod snapshots;
mod waste;
mod watch;
