//! The conditions that keep a node.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::EngineError;
use crate::key::Key;

use super::nodes::Watched;
use super::pattern::{Condition, Pattern};

/// The most conditions that keep one node.
pub const KEEP_WHILE_MAX: usize = 1_024;

/// The conditions that keep a node. Cloning costs nothing.
#[derive(Clone, Debug)]
pub struct KeepWhile(Arc<Kept>);

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    conditions: Vec<KeepCondition>,
    source: Bytes,
    /// Of each condition: where its pattern begins, and whether that is all of it.
    #[serde(skip)]
    paths: Vec<(Key, bool)>,
    #[serde(skip)]
    hash: u64,
}

/// One condition on other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepCondition {
    /// Which nodes. One or more must match, unless the condition is that there is none.
    pub pattern: Pattern,
    /// What must hold of each of them.
    pub condition: Condition,
}

impl KeepWhile {
    /// These conditions. `source` is what they were made of, for whoever reads them back.
    pub fn new(conditions: Vec<KeepCondition>, source: Bytes) -> Self {
        let encoded = rmp_serde::to_vec(&(&conditions, &source)).unwrap_or_default();
        let paths = conditions.iter().map(|one| one.pattern.prefix()).collect();
        Self(Arc::new(Kept { conditions, source, paths, hash: xxh3_64(&encoded) }))
    }

    /// The conditions.
    pub fn conditions(&self) -> &[KeepCondition] {
        &self.0.conditions
    }

    /// The conditions, each with where its pattern begins, and whether that is all of it.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&KeepCondition, &Key, bool)> {
        self.0.conditions.iter().zip(&self.0.paths).map(|(one, (path, is_path))| (one, path, *is_path))
    }

    /// What they were made of. The engine never looks inside.
    pub fn source(&self) -> &Bytes {
        &self.0.source
    }

    /// A hash of them.
    pub(crate) fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The bytes that they carry.
    pub fn size(&self) -> usize {
        let each = self.0.conditions.iter().map(|one| one.pattern.size() + one.condition.size());
        each.sum::<usize>() + self.0.source.len()
    }

    /// Whether checking them compiles no regular expression.
    pub fn is_ready(&self) -> bool {
        self.0.conditions.iter().all(|one| one.pattern.is_ready() && one.condition.is_ready())
    }

    /// Whether they are within the limits.
    ///
    /// # Errors
    /// [`EngineError::InvalidPattern`], [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        let (size, limit) = (self.0.conditions.len(), KEEP_WHILE_MAX);
        if size > limit {
            return Err(EngineError::TooLarge { what: "keep_while", size, limit });
        }
        self.0.conditions.iter().try_for_each(|one| {
            one.pattern.check(value_bytes_max)?;
            Pattern::of(one.condition.clone()).check(value_bytes_max)
        })
    }

    pub(super) fn watched(&self, holder: &Key) -> impl Iterator<Item = Watched> {
        let watched = |(path, is_path): &(Key, bool)| Watched {
            path: path.clone(),
            is_pattern: !is_path,
            holder: holder.clone(),
        };
        self.0.paths.iter().map(watched)
    }
}

impl PartialEq for KeepWhile {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.conditions, &self.0.source) == (&other.0.conditions, &other.0.source)
    }
}

impl Eq for KeepWhile {}

impl Serialize for KeepWhile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeepWhile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Kept::deserialize(deserializer).map(|kept| Self::new(kept.conditions, kept.source))
    }
}

impl KeepCondition {
    /// Whether it holds when no node matches.
    pub(crate) fn holds_of_none(&self) -> bool {
        matches!(&self.condition, Condition::Not(inner) if **inner == Condition::Any)
    }
}
