//! What keeps the tasks of a store's runtime waiting. Alone in its binary, because it measures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/mod.rs"]
mod support;

mod delays;
mod heavy_commands;
