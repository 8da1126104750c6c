//! Several engines in one process, connected by a simulated network, in real time.
//!
//! One binary, because linking RocksDB takes seconds for each. Tests that measure or arm fault points are binaries of
//! their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "../bed/mod.rs"]
mod bed;

mod authority;
mod cluster;
mod elections;
mod forwards;
mod late;
mod reads;
mod restored;
mod rolled_back;
