//! Patterns that can be told of one entry: by its path, and by itself.
//!
//! What a watch delivers must follow from the change alone. So only the last part may ask for more
//! than names, and nothing may ask about children: else an entry would come to match, or cease to,
//! by a change of another one.

use std::sync::Arc;

use crate::entries::Entries;
use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::nodes::{Nodes, Tree};

use super::{Condition, Part, Pattern};

impl Pattern {
    /// Whether an entry matches, by its path and itself; of patterns that are
    /// [`local`](Self::check_local).
    pub fn matches_entry(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let (entries, nodes) = (Entries::new(), Nodes::default());
        self.follow(Tree { entries: &entries, nodes: &nodes }, key, |node| (node == key).then_some(entry))
    }

    /// Whether a path may match, by its names alone.
    pub fn matches_names(&self, key: &Key) -> bool {
        let (entries, nodes) = (Entries::new(), Nodes::default());
        self.follow(Tree { entries: &entries, nodes: &nodes }, key, |_node| None)
    }

    /// Whether an entry and its path tell if it matches.
    ///
    /// # Errors
    /// [`EngineError::InvalidPattern`] says what else would have to be known.
    pub fn check_local(&self) -> Result<(), EngineError> {
        let above = self.parts.split_last().map_or(&[][..], |(_last, above)| above);
        if self.parts.iter().any(|part| part.condition.any(&Condition::is_of_node)) {
            return Err(invalid("changes are not told by a node's count of children, nor by its other numbers"));
        }
        if above.iter().all(|part| part.condition.is_name()) {
            return Ok(());
        }
        Err(invalid("changes are told by names, and by what the entry itself is: only the last part asks for more"))
    }

    /// What is left of the pattern when nothing but names is known: it matches at least as much.
    #[must_use]
    pub fn names(&self) -> Self {
        let part = |part: &Part| Part { many: part.many, condition: part.condition.names() };
        Self { parts: self.parts.iter().map(part).collect() }
    }
}

impl Condition {
    /// Whether a node's name decides.
    fn is_name(&self) -> bool {
        !self.any(&|one| matches!(one, Self::Payload(_) | Self::HasData | Self::Version(..)) || one.is_of_node())
    }

    /// Whether it asks for what neither the path nor the entry tells.
    fn is_of_node(&self) -> bool {
        matches!(self, Self::ChildCount(..) | Self::PayloadVersion(..) | Self::ChildListVersion(..) | Self::Kind(_))
    }

    /// A condition on the name that holds wherever this one does.
    fn names(&self) -> Self {
        match self {
            Self::All(all) => Self::All(all.iter().map(Self::names).collect()),
            named if named.is_name() => named.clone(),
            _ => Self::Any,
        }
    }
}

fn invalid(why: &str) -> EngineError {
    EngineError::InvalidPattern(why.to_owned())
}
