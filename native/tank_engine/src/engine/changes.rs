//! What changed: watches, and the changes since a revision.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::EngineError;
use crate::key::Key;
use crate::machine::Replayed;
use crate::state::Change;
use crate::view::View;
use crate::watch::{Cursor, Filter, Recent, Revised, Wake};

use super::Engine;

/// Revisions taken from memory at a time.
const TAKE: usize = 256;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Behind this moment.
    Now,
    /// Behind a revision.
    After(u64),
}

/// Up to where somebody knows a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The id of the history that the revision counts in; `None` when whoever asks does not know it.
    pub history: Option<u64>,
    /// The revision.
    pub revision: u64,
}

/// Where a position is, seen from a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a revision that the view comes after: what is between them is known.
    Before,
    /// At the view's revision.
    At,
    /// Ahead of a view that lags, perhaps.
    Ahead,
    /// In a past that is compacted, or in another history.
    Compacted(u64),
}

/// What changed since a revision.
#[derive(Clone, Debug)]
pub enum Since {
    /// There is no newer revision.
    Unchanged,
    /// There is.
    Changed(Changed),
    /// What changed is compacted. The oldest revision that can be asked about.
    Compacted(u64),
}

/// The difference between two revisions.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Each entry that was written or deleted and that the filter passes before or after, in the
    /// order of keys: as it was at the older revision, and as it is at the newer one; with the
    /// revision of its last change.
    pub changes: Vec<(u64, Change)>,
    /// The newer revision.
    pub revision: u64,
}

impl Engine {
    /// Begins a watch; with the view of the moment: it delivers what changes that.
    /// `wake` is called when there is something to deliver after there was nothing.
    ///
    /// # Errors
    /// The store is closed or has failed.
    pub fn watch(&self, filter: Filter, from: From, wake: Wake) -> Result<(Cursor, Arc<View>), EngineError> {
        self.check_same()?;
        let view = self.0.published.load_full();
        let after = match from {
            From::Now => view.revision,
            From::After(revision) => revision,
        };
        let cursor = Cursor::new(Arc::clone(self.0.published.hub()), self.0.replay.clone(), filter, after, wake);
        Ok((cursor, view))
    }

    /// Where `position` is, seen from `view`; `current`: whether that holds all that was acknowledged before the
    /// question. Nothing is ahead of such a view: a member shows what is committed, and no revision of a history
    /// that was lost comes again.
    pub fn place(&self, view: &View, position: Position, current: bool) -> Place {
        let compacted = Place::Compacted(view.compacted);
        let other = position.history.is_some_and(|history| history != self.history_id(view.history));
        match position.revision.cmp(&view.revision) {
            // The view may be of before the history that the position is of.
            std::cmp::Ordering::Greater if !current => Place::Ahead,
            std::cmp::Ordering::Greater => compacted,
            _ if other || position.revision < view.compacted => compacted,
            std::cmp::Ordering::Equal => Place::At,
            std::cmp::Ordering::Less => Place::Before,
        }
    }

    /// What changed between a position and `view`. May read the disk. `current`: see [`Engine::place`].
    ///
    /// # Errors
    /// The store is closed or has failed, or the history is damaged.
    pub fn changes_since(
        &self,
        view: &View,
        filter: &Filter,
        position: Position,
        current: bool,
    ) -> Result<Since, EngineError> {
        self.check_same()?;
        let revision = position.revision;
        match self.place(view, position, current) {
            Place::At | Place::Ahead => return Ok(Since::Unchanged),
            Place::Compacted(min) => return Ok(Since::Compacted(min)),
            Place::Before => {}
        }
        let mut changes = BTreeMap::new();
        let mut last = revision;
        // Whether it matches is asked in the end: an entry may have come to match, and ceased to, in between.
        let by_key = &filter.by_key();
        while last < view.revision {
            match self.0.published.hub().recent(last + 1, TAKE) {
                Recent::Revisions(revisions) => {
                    for revised in revisions.iter().take_while(|revised| revised.revision <= view.revision) {
                        fold(&mut changes, revised, by_key);
                        last = revised.revision;
                    }
                }
                // Not there yet, or not any more.
                Recent::Ahead | Recent::Gone => {
                    let read = self.0.replay.each(last, view.revision, by_key, &mut |revised| {
                        fold(&mut changes, &revised, by_key);
                        last = revised.revision;
                        ControlFlow::Continue(())
                    })?;
                    if let Replayed::Compacted(min) = read {
                        return Ok(Since::Compacted(min));
                    }
                }
            }
        }
        // Created and deleted in between: nobody needs to know.
        changes.retain(|_, (_, change)| (change.previous.is_some() || change.entry.is_some()) && filter.passes(change));
        Ok(Since::Changed(Changed { changes: changes.into_values().collect(), revision: view.revision }))
    }
}

/// Adds the changes of the next revision: of several of one entry, the first one's before and the
/// last one's after.
fn fold(changes: &mut BTreeMap<Key, (u64, Change)>, revised: &Revised, filter: &Filter) {
    for change in revised.changes.iter().filter(|change| filter.passes(change)) {
        match changes.get_mut(&change.key) {
            Some((revision, earlier)) => {
                *revision = revised.revision;
                *earlier = Change { previous: earlier.previous.take(), ..change.clone() };
            }
            None => drop(changes.insert(change.key.clone(), (revised.revision, change.clone()))),
        }
    }
}
