//! Which changes does a watch deliver?

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::entry::Entry;
use crate::error::EngineError;
use crate::key::Key;
use crate::pattern::Pattern;

use super::{Change, NodeStep, Revised};

/// What a watch is about.
#[derive(Clone, Debug)]
pub struct Filter {
    prefix: Key,
    /// Of what is there, only this.
    pattern: Option<Arc<Patterns>>,
    /// Whether it passes what becomes of nodes, too.
    nodes: bool,
}

/// A pattern, and what is left of it when only a path is known.
#[derive(Debug)]
struct Patterns {
    whole: Pattern,
    names: Pattern,
    /// Of the whole one.
    hash: u64,
}

impl Patterns {
    fn new(whole: Pattern, names: Pattern) -> Self {
        let encoded = rmp_serde::to_vec(&whole).unwrap_or_default();
        Self { whole, names, hash: xxhash_rust::xxh3::xxh3_64(&encoded) }
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        let same = |one: &Arc<Patterns>, other: &Arc<Patterns>| {
            Arc::ptr_eq(one, other) || (one.hash == other.hash && one.whole == other.whole)
        };
        self.prefix == other.prefix
            && self.nodes == other.nodes
            && match (&self.pattern, &other.pattern) {
                (None, None) => true,
                (Some(one), Some(other)) => same(one, other),
                _ => false,
            }
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.prefix.hash(state);
        self.nodes.hash(state);
        self.pattern.as_ref().map(|pattern| pattern.hash).hash(state);
    }
}

impl Filter {
    /// Everything at a path and below it.
    pub fn prefix(prefix: Key) -> Self {
        Self { prefix, pattern: None, nodes: false }
    }

    /// What a pattern matches.
    ///
    /// # Errors
    /// [`EngineError::InvalidPattern`] for one of which a change does not tell whether it matches
    /// ([`Pattern::check_local`]), and those of [`Pattern::check`].
    pub fn pattern(whole: Pattern) -> Result<Self, EngineError> {
        whole.check(usize::MAX)?;
        whole.check_local()?;
        let (prefix, _is_whole) = whole.prefix();
        let names = whole.names();
        Ok(Self { prefix, pattern: Some(Arc::new(Patterns::new(whole, names))), nodes: false })
    }

    /// The same, and of nodes without an entry and of child lists, as far as their paths tell.
    #[must_use]
    pub fn with_nodes(self) -> Self {
        Self { nodes: true, ..self }
    }

    /// Whether it passes what becomes of nodes.
    pub fn has_nodes(&self) -> bool {
        self.nodes
    }

    /// The path that all it passes is at or below.
    pub fn fixed(&self) -> &Key {
        &self.prefix
    }

    /// What passes all that this one may pass of an entry, whatever becomes of that.
    #[must_use]
    pub fn by_key(&self) -> Self {
        let patterns = |patterns: &Arc<Patterns>| {
            let names = &patterns.names;
            Arc::new(Patterns::new(names.clone(), names.clone()))
        };
        Self { prefix: self.prefix.clone(), pattern: self.pattern.as_ref().map(patterns), nodes: self.nodes }
    }

    /// Whether it passes a path. Told without the entry: then nothing is read for what it does not
    /// pass.
    pub fn passes_key(&self, key: &Key) -> bool {
        key.is_within(&self.prefix) && self.pattern.as_ref().is_none_or(|pattern| pattern.names.matches_names(key))
    }

    /// Whether it passes an entry.
    pub fn passes_entry(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        match &self.pattern {
            None => key.is_within(&self.prefix),
            Some(pattern) => key.is_within(&self.prefix) && pattern.whole.matches_entry(key, entry),
        }
    }

    /// Whether it passes a change: one to what it passes, or from it.
    pub fn passes(&self, change: &Change) -> bool {
        let passes = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|e| self.passes_entry(&change.key, e));
        passes(&change.entry) || passes(&change.previous)
    }

    /// Whether it passes what became of a node.
    pub fn passes_step(&self, step: &NodeStep) -> bool {
        self.nodes && self.passes_key(&step.key)
    }

    /// What it passes of what became of nodes.
    pub fn steps(&self, revised: &Revised) -> Vec<NodeStep> {
        revised.nodes.iter().filter(|step| self.passes_step(step)).cloned().collect()
    }

    /// What it passes of a revision; `None` when that is nothing.
    pub(crate) fn of(&self, revised: &Arc<Revised>) -> Option<Arc<Revised>> {
        let passed = revised.changes.iter().filter(|change| self.passes(change)).count();
        let steps = revised.nodes.iter().filter(|step| self.passes_step(step)).count();
        match (passed, steps) {
            (0, 0) => None,
            // Of nodes, it may be more than passes: `steps` tells what does.
            (all, _) if all == revised.changes.len() => Some(Arc::clone(revised)),
            _ => {
                let changes = revised.changes.iter().filter(|change| self.passes(change)).cloned().collect();
                Some(Arc::new(Revised { revision: revised.revision, changes, nodes: self.steps(revised) }))
            }
        }
    }
}
