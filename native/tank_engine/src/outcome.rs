//! What applying a command gives. The same on every member.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::entry::Entry;
use crate::key::Key;
use crate::lease::Lease;

/// What applying a request gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied. Also when there was nothing to do, as for the deletion of a missing entry.
    Done {
        /// The store's revision after it.
        revision: u64,
    },
    /// A transaction was applied.
    Txn {
        /// Whether all comparisons held.
        succeeded: bool,
        /// The store's revision after it.
        revision: u64,
        /// What each operation gave.
        responses: Vec<Response>,
    },
    /// A lease was granted or renewed.
    Granted(Lease),
    /// Not applied, and nothing changed.
    Refused(Refusal),
    /// The request was applied before, and what it gave was too much to remember.
    Forgotten,
    /// The log entry held no command.
    Nothing,
}

/// Why a command was not applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// A `Create` found an entry.
    Exists(Found),
    /// An `Update` found none.
    NotFound,
    /// The condition does not hold; with the entry there is.
    Conflict(Option<Found>),
    /// The lease is held by another.
    Held(Lease),
    /// The lease of that epoch has ended.
    LeaseEnded,
    /// What the matches of a pattern would take is over this limit, in bytes.
    TooMuch(u64),
    /// The command makes no sense. Only a faulty member can have proposed it.
    Malformed(String),
}

/// What an operation of a transaction gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The entry's version after the write.
    Put(u64),
    /// How many entries were deleted.
    Deleted(u64),
    /// The entry, if there is one.
    Got(Option<Found>),
    /// The entries, in the order of their paths.
    Listed(Vec<Found>),
}

/// An entry as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its path.
    pub key: Key,
    /// It.
    pub entry: Arc<Entry>,
    /// How many direct children the path had.
    pub child_count: u64,
}

impl Outcome {
    /// The bytes of payloads that it carries, about.
    pub fn size(&self) -> usize {
        let Self::Txn { responses, .. } = self else { return 0 };
        responses.iter().map(Response::size).sum()
    }
}

impl Response {
    fn size(&self) -> usize {
        let size = |found: &Found| found.key.as_bytes().len() + found.entry.payload.len();
        match self {
            Self::Put(_) | Self::Deleted(_) | Self::Got(None) => 0,
            Self::Got(Some(found)) => size(found),
            Self::Listed(all) => all.iter().map(size).sum(),
        }
    }
}

// As a tuple of the path, the entry's record and the count.

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = serde_bytes::ByteBuf::from(self.entry.to_record());
        (&self.key, record, self.child_count).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, record, child_count) = <(Key, serde_bytes::ByteBuf, u64)>::deserialize(deserializer)?;
        let entry = Entry::from_record(&key, &record).map_err(serde::de::Error::custom)?;
        Ok(Self { key, entry: Arc::new(entry), child_count })
    }
}
