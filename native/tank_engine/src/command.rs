//! What goes into the log, and what applying it gives.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::key::Key;

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks, so that a retry is applied once.
    pub id: RequestId,
    /// Wall clock of the member that proposed it, in milliseconds since the epoch. The only clock
    /// that applying a command may use.
    pub time_ms: u64,
    /// What to do.
    pub command: Command,
}

/// Names one request of one client for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Random, drawn when a store is opened.
    pub client: u64,
    /// Rises with each request of the client.
    pub sequence: u64,
    /// The client will never again ask for a sequence below this one: the store may forget them.
    pub resolved_below: u64,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Write, whether the entry exists or not.
    Put(Write),
    /// Write only if the entry does not exist.
    Create(Write),
    /// Write only if the entry exists.
    Update(Write),
    /// Delete the entry and all below it. A missing one is fine.
    Delete(Delete),
}

/// A payload for a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// What. Opaque.
    pub payload: Bytes,
    /// Only then.
    pub condition: Condition,
}

/// The removal of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Where.
    pub key: Key,
    /// Only then.
    pub condition: Condition,
}

/// What must hold of the entry for a command to change anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing more than the command itself asks for.
    #[default]
    Always,
    /// The entry's revision is this one.
    RevisionIs(u64),
}

/// What applying a request gave. The same on every member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied. Also when there was nothing to do, as for the deletion of a missing entry.
    Done {
        /// The store's revision after it.
        revision: u64,
    },
    /// Not applied, and nothing changed.
    Refused(Refusal),
    /// The log entry held no command.
    Nothing,
}

/// Why a command was not applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// A `Create` found an entry.
    Exists(#[serde(with = "shared")] Arc<Entry>),
    /// An `Update` found none.
    NotFound,
    /// The condition does not hold; with the entry there is.
    Conflict(#[serde(with = "shared_option")] Option<Arc<Entry>>),
    /// The command makes no sense. Only a faulty member can have proposed it.
    Malformed(String),
}

impl Command {
    /// The path that the command is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => &write.key,
            Self::Delete(delete) => &delete.key,
        }
    }

    /// The bytes that it carries, for bounds on queues and batches.
    pub fn size(&self) -> usize {
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => {
                write.key.as_bytes().len() + write.payload.len()
            }
            Self::Delete(delete) => delete.key.as_bytes().len(),
        }
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request {}/{} of {} bytes", self.id.client, self.id.sequence, self.command.size())
    }
}

/// serde's own support for `Arc` is a feature of all of serde; two functions are less.
mod shared {
    use super::{Arc, Entry};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(entry: &Arc<Entry>, serializer: S) -> Result<S::Ok, S::Error> {
        entry.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Entry>, D::Error> {
        Entry::deserialize(deserializer).map(Arc::new)
    }
}

mod shared_option {
    use super::{Arc, Entry};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(entry: &Option<Arc<Entry>>, serializer: S) -> Result<S::Ok, S::Error> {
        entry.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Entry>>, D::Error> {
        Ok(Option::<Entry>::deserialize(deserializer)?.map(Arc::new))
    }
}
