//! What a pattern asks of one node.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::nodes::Tree;

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
    /// It has a payload of this kind.
    Kind(u8),
    /// How its version stands to a number. Without a value it is 0.
    Version(Relation, u64),
    /// How often its payload was changed since the node was created stands to a number.
    PayloadVersion(Relation, u64),
    /// How often its children came or went stands to a number.
    ChildListVersion(Relation, u64),
    /// How the count of its direct children stands to a number.
    ChildCount(Relation, u64),
    /// All of these hold.
    All(Vec<Condition>),
    /// One of these holds, or more.
    AnyOf(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
}

/// How two numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Relation {
    /// Whether `left` stands so to `right`.
    pub fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Condition {
    /// Whether it holds of `node`.
    pub(crate) fn holds(&self, tree: Tree<'_>, node: &Node<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Is(name) => node.name == name,
            Self::Name(regex) => regex.is_match(&node.text()),
            Self::Payload(payload) => node.entry.is_some_and(|entry| entry.has_payload(&node.key, payload)),
            Self::HasData => node.entry.is_some(),
            Self::Kind(kind) => node.entry.is_some() && tree.kind(&node.key) == *kind,
            Self::PayloadVersion(relation, operand) => relation.holds(tree.payload_version(&node.key), *operand),
            Self::ChildListVersion(relation, operand) => relation.holds(tree.child_list_version(&node.key), *operand),
            Self::Version(relation, operand) => relation.holds(node.entry.map_or(0, |entry| entry.version), *operand),
            Self::ChildCount(relation, operand) => relation.holds(tree.child_count(&node.key), *operand),
            Self::All(all) => all.iter().all(|condition| condition.holds(tree, node)),
            Self::AnyOf(any) => any.iter().any(|condition| condition.holds(tree, node)),
            Self::Not(condition) => !condition.holds(tree, node),
        }
    }

    /// Whether `test` holds of this or of one in it.
    pub(super) fn any(&self, test: &impl Fn(&Self) -> bool) -> bool {
        test(self) || self.inner().iter().any(|condition| condition.any(test))
    }

    /// Whether checking and evaluating it compile no regular expression.
    pub(crate) fn is_ready(&self) -> bool {
        !self.any(&|condition| matches!(condition, Self::Name(regex) if !regex.is_ready()))
    }

    /// Of how many `test` holds: this and those in it.
    pub(super) fn count(&self, test: &impl Fn(&Self) -> bool) -> usize {
        usize::from(test(self)) + self.inner().iter().map(|condition| condition.count(test)).sum::<usize>()
    }

    pub(crate) fn size(&self) -> usize {
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
