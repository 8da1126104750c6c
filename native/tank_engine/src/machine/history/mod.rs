//! What changed at each revision, on disk: names only. The values stand in the entries' versions.
//!
//! A record holds the revisions that were applied together, or some of them: to the database,
//! hundreds of writes are then one key more. It has the key of the last of them, so that a seek to
//! a revision finds the record that holds it.
//!
//! ```text
//! key:   `c` | last revision u64
//! value: first revision u64 | the MessagePack of a Revision for each, one after the other
//! ```
//!
//! A record without a revision says that there are none from its first to its last: a new history began with
//! that ([`crate::state::History`]), and all of them are compacted.
//!
//! Numbers are big-endian. Which revisions share a record differs from member to member.

mod read;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use read::{Record, Revisions, check};
pub(crate) use write::Writer;

use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::key::Key;
use crate::state::{Cause, Change};

const HISTORY: u8 = b'c';

/// What errors call it.
pub(crate) const WHAT: &str = "history";

/// One revision. There is one for each that is not compacted, also for one that changed no entry:
/// so a missing one is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revision {
    /// The time in the log.
    pub(crate) time_ms: u64,
    /// The changes, in the order of keys.
    pub(crate) changes: Vec<ChangeRecord>,
}

/// One entry's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeRecord {
    /// Which entry.
    pub(crate) key: Key,
    /// The revision of its version before; 0: there was none.
    pub(crate) previous: u64,
    /// What happened.
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Written,
    Deleted,
    Expired,
}

impl Revision {
    pub(crate) fn new(time_ms: u64, changes: &[Change]) -> Self {
        Self { time_ms, changes: changes.iter().map(ChangeRecord::of).collect() }
    }

    /// The versions that nobody needs who reads at this revision, `number`, or later: those that
    /// it replaced, and the marks of what it deleted.
    pub(crate) fn replaced(&self, number: u64) -> impl Iterator<Item = (&Key, u64)> {
        self.changes.iter().flat_map(move |change| {
            let before = (change.previous != 0).then_some((&change.key, change.previous));
            let mark = (change.kind != Kind::Written).then_some((&change.key, number));
            before.into_iter().chain(mark)
        })
    }
}

impl ChangeRecord {
    fn of(change: &Change) -> Self {
        let kind = match (&change.entry, change.cause) {
            (Some(_), _) => Kind::Written,
            (None, Cause::Command) => Kind::Deleted,
            (None, Cause::Expiry) => Kind::Expired,
        };
        let previous = change.previous.as_ref().map_or(0, |entry| entry.revision);
        Self { key: change.key.clone(), previous, kind }
    }
}

/// The key of the record whose last revision this is.
pub(crate) fn key(last: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = last.to_be_bytes();
    [HISTORY, a, b, c, d, e, f, g, h]
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: WHAT, detail }
}
