//! The engine of one store: a raft-backed, ordered map from paths to opaque payloads.
//!
//! It knows nothing of Erlang. A write is a [`command::Command`]: it goes through the raft log
//! ([`log`]), is applied to the state ([`state`], [`machine`]), and is published as a
//! [`view::View`] that any thread reads without a lock. [`engine::Engine`] ties these together;
//! read that one first.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod engine;
pub mod options;

pub mod error;
pub mod state;
pub mod tree;
pub mod types;

pub use state::{command, lease, outcome};
pub use tree::{entries, entry, key, listing, nodes, pattern, payload};

pub mod last_changed;
pub mod view;
pub mod watch;

pub mod backup;
pub mod log;
pub mod machine;
pub mod peers;
pub mod raft;
pub mod raft_runtime;
pub mod snapshot;
pub mod storage;

pub mod alarms;
mod applied;
pub mod environment;
mod evict;
pub mod faults;
mod files;
pub mod health;
pub mod label;
mod marks;
pub mod metrics;
pub mod mutants;
pub mod probe;
pub mod reclaim;
pub mod runtime;

mod sync;

/// Ties the compiled crate to its checkout; see `.cargo/config.toml`.
const _: Option<&str> = option_env!("TANK_STORE_CHECKOUT");
