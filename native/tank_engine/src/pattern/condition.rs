//! What a pattern asks of one node.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::Relation;
use crate::entries::{self, Entries};
use crate::error::EngineError;

use super::{NameRegex, Node, check_component, within};

/// A condition on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Any node.
    Any,
    /// Its name is this component, encoded as in keys.
    Is(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Its name, an atom's or a string's, matches.
    Name(NameRegex),
    /// Its payload is this one. A node without a value has none.
    Payload(Bytes),
    /// It has a value.
    HasData,
    /// How its version stands to a number. Without a value it is 0.
    Version(Relation, u64),
    /// How the count of its direct children stands to a number.
    ChildCount(Relation, u64),
    /// All of these hold.
    All(Vec<Condition>),
    /// One of these holds, or more.
    AnyOf(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
}

impl Condition {
    /// Whether it holds of `node`.
    pub(crate) fn holds(&self, entries: &Entries, node: &Node<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Is(name) => node.name == name,
            Self::Name(regex) => regex.is_match(&node.text()),
            Self::Payload(payload) => node.entry.is_some_and(|entry| entry.has_payload(&node.key, payload)),
            Self::HasData => node.entry.is_some(),
            Self::Version(relation, operand) => relation.holds(node.entry.map_or(0, |entry| entry.version), *operand),
            Self::ChildCount(relation, operand) => relation.holds(entries::child_count(entries, &node.key), *operand),
            Self::All(all) => all.iter().all(|condition| condition.holds(entries, node)),
            Self::AnyOf(any) => any.iter().any(|condition| condition.holds(entries, node)),
            Self::Not(condition) => !condition.holds(entries, node),
        }
    }

    /// Whether `test` holds of this or of one in it.
    pub(super) fn any(&self, test: &impl Fn(&Self) -> bool) -> bool {
        test(self) || self.inner().iter().any(|condition| condition.any(test))
    }

    /// Of how many `test` holds: this and those in it.
    pub(super) fn count(&self, test: &impl Fn(&Self) -> bool) -> usize {
        usize::from(test(self)) + self.inner().iter().map(|condition| condition.count(test)).sum::<usize>()
    }

    pub(super) fn size(&self) -> usize {
        let own = match self {
            Self::Is(name) => name.len(),
            Self::Name(regex) => regex.source().len(),
            Self::Payload(payload) => payload.len(),
            _ => 1,
        };
        own + self.inner().iter().map(Self::size).sum::<usize>()
    }

    pub(super) fn check(&self, value_bytes_max: usize, depth_max: usize) -> Result<(), EngineError> {
        if depth_max == 0 {
            return Err(EngineError::InvalidPattern("conditions stand in each other too deeply".to_owned()));
        }
        match self {
            Self::Is(name) => check_component(name)?,
            Self::Name(regex) => regex.check()?,
            Self::Payload(payload) => within("value", payload.len(), value_bytes_max)?,
            _ => {}
        }
        self.inner().iter().try_for_each(|condition| condition.check(value_bytes_max, depth_max - 1))
    }

    fn inner(&self) -> &[Self] {
        match self {
            Self::All(conditions) | Self::AnyOf(conditions) => conditions,
            Self::Not(condition) => std::slice::from_ref(condition),
            _ => &[],
        }
    }
}
