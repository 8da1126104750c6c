//! What tests of [`tank_engine`] need and no release does: a disk that forgets what was not
//! synced, disks that hold back or refuse a sync when they are told to, and randomness that can be
//! repeated from a printed seed.
//!
//! Nothing here looks at a clock. A test that waits says what it last saw: [`wait`].

pub mod net;
pub mod rng;
pub mod wait;

pub mod contents;
pub mod control;
pub mod controlled;
pub mod disk;

pub use control::Control;
pub use controlled::Controlled;
pub use disk::SimDisk;
pub use rng::Rng;

/// Ties the compiled crate to its checkout; see `.cargo/config.toml`.
const _: Option<&str> = option_env!("TANK_STORE_CHECKOUT");
