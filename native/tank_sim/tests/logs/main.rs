//! What the log promises to openraft, on real and on simulated disks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/mod.rs"]
mod support;

mod log_contract;
mod openraft_suite;
mod power_cuts;
