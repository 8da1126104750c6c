//! What applying a command gives. The same on every member.

use std::sync::Arc;

use bytes::Bytes;
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
    /// Applied, and asked to tell what became of which node.
    Changed {
        /// The store's revision after it.
        revision: u64,
        /// What was written or deleted, in the order of paths.
        nodes: Vec<NodeChange>,
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
    /// The condition on the node does not hold; with the node there is.
    Mismatch(Option<Box<NodeInfo>>),
    /// A condition that should keep the node does not hold now.
    KeepWhile {
        /// The node that was to be written.
        key: Key,
        /// Which of its conditions.
        condition: u64,
        /// Whether no node matches it.
        is_missing: bool,
    },
    /// What is to be deleted because of conditions takes more looks than this.
    TooManyConditions(u64),
    /// The lease is held by another.
    Held(Lease),
    /// The lease of that epoch has ended.
    LeaseEnded,
    /// What the matches of a pattern would take is over this limit, in bytes.
    TooMuch(u64),
    /// What a transaction compares and lists would be more entries than this.
    TooManyLooks(u64),
    /// The command makes no sense. Only a faulty member can have proposed it.
    Malformed(String),
    /// The client said before that it would not ask for this any more. It may have been applied at
    /// its time; it is not applied now.
    MovedOn,
    /// The client's session may have ended since it made the request, which may have been applied
    /// before. A request that surely was not can be made again, at the time in the log that this was
    /// refused.
    SessionEnded {
        /// That time, in milliseconds.
        log_ms: u64,
    },
}

/// What an operation of a transaction gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The entry's version after the write.
    Put(u64),
    /// What was written or deleted, for an operation that asked.
    Changed(Vec<NodeChange>),
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
    /// Its payload. `None` only until it was read from the disk ([`Outcome::complete`]).
    pub payload: Option<Bytes>,
    /// How many direct children the path had.
    pub child_count: u64,
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeChange {
    /// The node before; of one that is gone, as it last was. `None` when it is new.
    pub before: Option<NodeInfo>,
    /// What it is afterwards.
    pub after: NodeAfter,
}

/// What a node is after a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeAfter {
    /// There, with these numbers and the payload that was written.
    There {
        /// Its path.
        key: Key,
        /// Its payload version.
        payload_version: u64,
        /// The version of its child list.
        child_list_version: u64,
        /// Its direct children.
        child_count: u64,
    },
    /// Gone, since the command named it or one above it.
    Deleted,
    /// Gone, since what should keep it does not hold any more.
    NotKept,
}

/// A node as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its path.
    pub key: Key,
    /// Its entry, if it has a payload.
    pub found: Option<Found>,
    /// The kind of its payload.
    pub kind: u8,
    /// Changes of its payload since it was created, with that.
    pub payload_version: u64,
    /// How often its children came or went, with its creation.
    pub child_list_version: u64,
    /// Its direct children.
    pub child_count: u64,
}

impl Outcome {
    /// The bytes of payloads that it carries, about.
    pub fn size(&self) -> usize {
        match self {
            Self::Txn { responses, .. } => responses.iter().map(Response::size).sum(),
            Self::Changed { nodes, .. } => nodes.iter().map(NodeChange::size).sum(),
            Self::Refused(Refusal::Exists(found) | Refusal::Conflict(Some(found))) => found.size(),
            Self::Refused(Refusal::Mismatch(Some(node))) => node.size(),
            _ => 0,
        }
    }
}

impl Found {
    fn size(&self) -> usize {
        self.key.as_bytes().len() + self.entry.payload.len()
    }
}

impl Outcome {
    /// Reads the payloads that were not in memory, by `read`. When one is there no more, the
    /// outcome is [`Outcome::Forgotten`].
    ///
    /// # Errors
    /// Those of `read`.
    pub fn complete<E>(&mut self, read: impl Fn(&Key, &Entry) -> Result<Option<Bytes>, E>) -> Result<(), E> {
        let mut gone = false;
        for found in self.found_mut().filter(|found| found.payload.is_none()) {
            found.payload = read(&found.key, &found.entry)?;
            gone |= found.payload.is_none();
        }
        if gone {
            *self = Self::Forgotten;
        }
        Ok(())
    }

    /// Whether all payloads are there.
    pub fn is_complete(&self) -> bool {
        self.found().all(|found| found.payload.is_some())
    }

    fn found(&self) -> Box<dyn Iterator<Item = &Found> + '_> {
        match self {
            Self::Changed { nodes, .. } => Box::new(nodes.iter().filter_map(NodeChange::found)),
            Self::Refused(Refusal::Exists(found) | Refusal::Conflict(Some(found))) => Box::new(std::iter::once(found)),
            Self::Refused(Refusal::Mismatch(Some(node))) => Box::new(node.found.iter()),
            Self::Txn { responses, .. } => Box::new(responses.iter().flat_map(Response::found)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn found_mut(&mut self) -> Box<dyn Iterator<Item = &mut Found> + '_> {
        match self {
            Self::Changed { nodes, .. } => Box::new(nodes.iter_mut().filter_map(NodeChange::found_mut)),
            Self::Refused(Refusal::Exists(found) | Refusal::Conflict(Some(found))) => Box::new(std::iter::once(found)),
            Self::Refused(Refusal::Mismatch(Some(node))) => Box::new(node.found.iter_mut()),
            Self::Txn { responses, .. } => Box::new(responses.iter_mut().flat_map(Response::found_mut)),
            _ => Box::new(std::iter::empty()),
        }
    }
}

impl NodeChange {
    fn found(&self) -> Option<&Found> {
        self.before.as_ref()?.found.as_ref()
    }

    fn found_mut(&mut self) -> Option<&mut Found> {
        self.before.as_mut()?.found.as_mut()
    }

    fn size(&self) -> usize {
        self.before.as_ref().map_or(0, NodeInfo::size)
    }
}

impl NodeInfo {
    fn size(&self) -> usize {
        self.key.as_bytes().len() + self.found.as_ref().map_or(0, Found::size)
    }
}

impl Response {
    fn found(&self) -> Box<dyn Iterator<Item = &Found> + '_> {
        match self {
            Self::Got(found) => Box::new(found.iter()),
            Self::Listed(all) => Box::new(all.iter()),
            Self::Changed(nodes) => Box::new(nodes.iter().filter_map(NodeChange::found)),
            Self::Put(_) | Self::Deleted(_) => Box::new(std::iter::empty()),
        }
    }

    fn found_mut(&mut self) -> Box<dyn Iterator<Item = &mut Found> + '_> {
        match self {
            Self::Got(found) => Box::new(found.iter_mut()),
            Self::Listed(all) => Box::new(all.iter_mut()),
            Self::Changed(nodes) => Box::new(nodes.iter_mut().filter_map(NodeChange::found_mut)),
            Self::Put(_) | Self::Deleted(_) => Box::new(std::iter::empty()),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Changed(nodes) => nodes.iter().map(NodeChange::size).sum(),
            Self::Put(_) | Self::Deleted(_) | Self::Got(None) => 0,
            Self::Got(Some(found)) => found.size(),
            Self::Listed(all) => all.iter().map(Found::size).sum(),
        }
    }
}

// As a tuple of the path, the entry's record and the count.

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let missing = || serde::ser::Error::custom("an outcome without a payload");
        let record = serde_bytes::ByteBuf::from(self.entry.to_record(self.payload.as_deref().ok_or_else(missing)?));
        (&self.key, record, self.child_count).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, record, child_count) = <(Key, serde_bytes::ByteBuf, u64)>::deserialize(deserializer)?;
        let entry = Entry::from_record(&key, &record).map_err(serde::de::Error::custom)?;
        let payload = entry.payload.in_memory();
        Ok(Self { key, entry: Arc::new(entry), payload, child_count })
    }
}
