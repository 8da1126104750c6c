//! Backups: a store's whole state at one revision, in one file.
//!
//! ```text
//! magic "TANKBKUP" | format u32 | record About | record frame ... | u32 0 | crc32c u32
//! ```
//!
//! Big-endian. A record is `length u32 | bytes`; `About` is MessagePack, a frame is one of
//! [`crate::snapshot`], with its own checksum and number. The last checksum is of all before it.

mod progress;
mod read;
mod restore;
mod write;

pub use progress::Progress;
pub use restore::restore;
pub(crate) use write::write;

use serde::{Deserialize, Serialize};

use crate::error::EngineError;

const MAGIC: &[u8; 8] = b"TANKBKUP";

/// The layout that this release writes.
pub const FORMAT_VERSION: u32 = 2;
/// The first layout that it reads. There, [`About::history`] is missing.
const FORMAT_VERSION_MIN: u32 = 1;

/// What a backup is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The store's id.
    pub store_id: String,
    /// Its cluster's id.
    pub cluster_id: u64,
    /// The revision that it stands for.
    pub revision: u64,
    /// How many entries there are.
    pub entries: u64,
    /// The hash of all entries and leases.
    pub digest: u64,
    /// Wall clock when it was taken, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The id of the history that it is of; 0 when that is not known.
    #[serde(default)]
    pub history: u64,
}

fn damaged(detail: impl Into<String>) -> EngineError {
    EngineError::Corrupt { what: "backup", detail: detail.into() }
}
