//! Snapshots: a member's whole state at a log id, to be read, sent and installed.
//!
//! ```text
//! pinned (a RocksDB snapshot) --records--> frames ~~~> receiver --> SST files --> ingested
//! ```
//!
//! Making one takes a checkpoint ([`crate::machine::Checkpoints`]). Pinning it keeps its records from being dropped while it
//! is read.

mod frame;
mod pinned;
mod receiver;

pub use frame::{FRAME_BYTES, Frame};
pub use pinned::PinnedSnapshot;
pub use receiver::{ReceivedSnapshot, SnapshotReceiver};

use std::sync::Arc;

/// The data of a snapshot, where it is made and where it arrives.
#[derive(Debug, Clone)]
pub enum SnapshotData {
    /// In this member's database.
    Pinned(Arc<PinnedSnapshot>),
    /// In files, received from another member.
    Received(ReceivedSnapshot),
}
