//! A network switch for tests of clusters on one machine, where the kernel cannot delay or lose packets (no netem).
//!
//! [`link`]: does a frame arrive, and when? [`switch`]: to which ports does it go, and which are due?
//! [`control`]: what can a test order? `port`: how are frames read from an interface and written to it?
//!
//! `src/main.rs` runs them: one thread, frames of raw sockets in, a heap of frames under way, frames out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod control;
pub mod link;
#[cfg(target_os = "linux")]
pub mod port;
pub mod switch;

// Checkouts share Cargo's target directory; this makes Cargo compile each one's own sources (.cargo/config.toml).
const _: Option<&str> = option_env!("TANK_STORE_CHECKOUT");
