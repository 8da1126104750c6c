//! The ordered map of a store in memory: paths, what they hold, and how to find them.
//!
//! | module | question |
//! |---|---|
//! | [`key`] | How is a path encoded and ordered? |
//! | [`entry`], [`payload`] | What does a path hold, and is it in memory? |
//! | [`entries`], [`listing`] | How are entries found and listed? |
//! | [`nodes`] | What does a path have besides its entry? |
//! | [`pattern`] | Which paths does a pattern match? |
//! | [`Fingerprint`] | Has what a pattern matches changed? |
//! | [`Digest`] | Do two maps hold the same? |

pub mod entries;
pub mod entry;
pub mod key;
pub mod listing;
pub mod nodes;
pub mod pattern;
pub mod payload;

mod digest;
mod fingerprint;
mod keep_while;

pub use digest::Digest;
pub use fingerprint::{Facts, Fingerprint};
