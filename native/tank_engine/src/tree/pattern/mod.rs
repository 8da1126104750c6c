//! Patterns: paths with conditions in them, and the nodes that they match.
//!
//! A pattern is a list of parts, one for each level of the tree; a `many` part stands for one
//! level or more. A node is a path with a value or with something below it. Matching follows all
//! ways at once: how much of a pattern a node has used up is a set of `States`, and what a node's
//! children may have used up follows from its own.
//!
//! A pattern goes into the log as it is, and every member evaluates it. So nothing in it may depend
//! on the host: names are matched byte by byte, without tables of Unicode ([`NameRegex`]).

mod condition;
mod local;
mod name;
mod walk;

pub use condition::{Condition, Relation};
pub use name::NameRegex;
pub use walk::{Node, Walk};

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::{Key, first_component};
use crate::nodes::Tree;

/// The most parts of a pattern: a set of states is one word.
pub const PARTS_MAX: usize = 63;

/// The most conditions in a pattern, and how deep they may stand in each other.
pub const CONDITIONS_MAX: usize = 1_024;
const DEPTH_MAX: usize = 32;

/// The most regular expressions in a pattern: one of the worst takes half a millisecond to compile. There may be one
/// for each part.
pub const REGEXES_MAX: usize = 64;

/// A path with conditions in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// One for each level, or for several.
    pub parts: Vec<Part>,
}

/// What one level must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whether there may be any levels before the one that the condition is about.
    pub many: bool,
    /// What must hold of the level.
    pub condition: Condition,
}

/// How many parts may be used up, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct States(u64);

/// Where to go on among the children of a node when only certain names will do.
pub(crate) enum Next<'p> {
    /// Any name may match.
    Any,
    /// The name at hand may match.
    This,
    /// The next name that may match is this one.
    Skip(&'p [u8]),
    /// No later name matches.
    Over,
}

impl States {
    /// Nothing is used up: the root's.
    pub(crate) const START: Self = Self(1);

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }

    fn with(self, at: usize) -> Self {
        Self(self.0 | (1 << at))
    }
}

impl Pattern {
    /// The nodes directly below the root of which a condition holds.
    pub(crate) fn of(condition: Condition) -> Self {
        Self { parts: vec![Part::one(condition)] }
    }

    /// The nodes that match, in the order of paths; those behind `after`, if it is given.
    pub fn walk<'e, 'p>(&'p self, tree: Tree<'e>, after: Option<Key>) -> Walk<'e, 'p> {
        Walk::new(self, tree, after)
    }

    /// Whether the path `key` matches, whether or not there is such a node.
    pub fn matches(&self, tree: Tree<'_>, key: &Key) -> bool {
        self.follow(tree, key, |node| tree.entries.get(node))
    }

    /// The path that all matches are at or below, and whether the pattern is no more than it.
    pub fn prefix(&self) -> (Key, bool) {
        let names = self.parts.iter().map_while(Part::name);
        let bytes: Vec<u8> = names.clone().flatten().copied().collect();
        (Key::from_bytes(&bytes), names.count() == self.parts.len())
    }

    /// Whether checking and matching it compile no regular expression: many take milliseconds, which is
    /// not for a thread that others wait for.
    pub fn is_ready(&self) -> bool {
        // Too many are refused without a look at them.
        self.regexes() > REGEXES_MAX || self.parts.iter().all(|part| part.condition.is_ready())
    }

    fn regexes(&self) -> usize {
        self.parts.iter().map(|part| part.condition.count(&|condition| matches!(condition, Condition::Name(_)))).sum()
    }

    /// The bytes that it carries.
    pub fn size(&self) -> usize {
        self.parts.iter().map(|part| part.condition.size()).sum()
    }

    /// Whether it is within the limits and its conditions make sense.
    ///
    /// # Errors
    /// [`EngineError::InvalidPattern`], [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        within("pattern", self.parts.len(), PARTS_MAX)?;
        let conditions = self.parts.iter().map(|part| part.condition.count(&|_| true)).sum();
        within("pattern", conditions, CONDITIONS_MAX)?;
        within("regexes", self.regexes(), REGEXES_MAX)?;
        self.parts.iter().try_for_each(|part| part.condition.check(value_bytes_max, DEPTH_MAX))
    }

    /// Whether the path `key` matches, when the nodes on the way down to it have these entries.
    fn follow<'e>(&self, tree: Tree<'_>, key: &Key, entry: impl Fn(&Key) -> Option<&'e Arc<Entry>>) -> bool {
        let (mut states, mut length) = (States::START, 0);
        while let Some(name) = key.as_bytes().get(length..).and_then(first_component) {
            length += name.len();
            let node = Key::from_bytes(key.as_bytes().get(..length).unwrap_or_default());
            states = self.step(states, tree, &Node { entry: entry(&node), key: Cow::Owned(node), name });
            if states.is_empty() {
                return false;
            }
        }
        self.is_whole(states)
    }

    /// The states of a node whose parent has `states`.
    pub(crate) fn step(&self, states: States, tree: Tree<'_>, node: &Node<'_>) -> States {
        let mut next = States(0);
        for (at, part) in self.parts.iter().enumerate() {
            if !states.has(at) {
                continue;
            }
            if part.many {
                next = next.with(at);
            }
            if !next.has(at + 1) && part.condition.holds(tree, node) {
                next = next.with(at + 1);
            }
        }
        next
    }

    pub(crate) fn is_whole(&self, states: States) -> bool {
        states.has(self.parts.len())
    }

    /// The states without that of having used up the whole pattern: none of the children matches
    /// because of it.
    pub(crate) fn beyond(&self, states: States) -> States {
        States(states.0 & !(1 << self.parts.len()))
    }

    /// Where the children of a node with `states` go on from the name `at_hand`.
    pub(crate) fn next_name(&self, states: States, at_hand: &[u8]) -> Next<'_> {
        let mut next = None;
        for (_, part) in self.parts.iter().enumerate().filter(|(at, _)| states.has(*at)) {
            let Some(name) = part.name() else { return Next::Any };
            if name == at_hand {
                return Next::This;
            }
            if name > at_hand && next.is_none_or(|next| name < next) {
                next = Some(name);
            }
        }
        next.map_or(Next::Over, Next::Skip)
    }
}

impl Part {
    /// One level of which the condition holds.
    pub fn one(condition: Condition) -> Self {
        Self { many: false, condition }
    }

    /// One level or more, and the condition holds of the last.
    pub fn many(condition: Condition) -> Self {
        Self { many: true, condition }
    }

    /// The encoding of the only name that will do, if there is one.
    fn name(&self) -> Option<&[u8]> {
        match &self.condition {
            Condition::Is(name) if !self.many => Some(name),
            _ => None,
        }
    }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), EngineError> {
    if size > limit { Err(EngineError::TooLarge { what, size, limit }) } else { Ok(()) }
}

/// Whether `encoded` is the encoding of one component within the limits.
fn check_component(encoded: &[u8]) -> Result<(), EngineError> {
    let key = Key::checked(encoded)?;
    match key.components()?.as_slice() {
        [_one] => Ok(()),
        _ => Err(EngineError::InvalidPattern("a name is one component of a path".to_owned())),
    }
}

#[cfg(test)]
mod tests;
