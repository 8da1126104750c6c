//! Applying one command. Pure: no clock, no randomness, no I/O. Total: every command, however
//! malformed, has an outcome.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::command::{Command, Condition, Delete, Limits, Request, Write};
use crate::entry::Entry;
use crate::environment;
use crate::key::Key;
use crate::mutants;
use crate::nodes::Tree;
use crate::outcome::{NodeAfter, Outcome, Refusal};
use crate::pattern::Node;

use super::keep_while::LOOKS_MAX;
use super::scope::Scope;
use super::sessions::Presented;
use super::steps::{Before, NodeStep};
use super::undo::Saved;
use super::{LeaseChange, Remembered, State};

/// The most bytes of an outcome that are remembered for a retry.
const REMEMBERED_BYTES_MAX: usize = 4 << 10;

/// What applying a request gave.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// The revision that was made, if one was.
    pub revision: Option<u64>,
    /// The revision before, when the next one does not follow on it: a history began.
    pub jumped_from: Option<u64>,
    /// What became of which entry, in the order of keys; each key once.
    pub changes: Vec<Change>,
    /// What became of which node, as far as `changes` do not say; in the order of keys.
    pub nodes: Vec<NodeStep>,
    /// What became of which lease.
    pub leases: Vec<LeaseChange>,
    /// What to remember of the request.
    pub remembered: Option<Remembered>,
}

/// One entry's change.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where.
    pub key: Key,
    /// The entry before, if there was one.
    pub previous: Option<Arc<Entry>>,
    /// The entry after, unless it is gone.
    pub entry: Option<Arc<Entry>>,
    /// Why.
    pub cause: Cause,
}

/// Why an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client wanted it.
    Command,
    /// Its lease expired.
    Expiry,
}

/// What applying a command has done so far.
#[derive(Default)]
pub(super) struct Work {
    revision: Option<u64>,
    jumped_from: Option<u64>,
    changes: Vec<Change>,
    /// Nodes of which the changes of entries do not tell what becomes of them.
    pub(super) nodes: Before,
    pub(super) leases: Vec<LeaseChange>,
    /// Of the operation that is being done.
    pub(super) scope: Scope,
}

impl Work {
    /// The revision that this command makes. Called by whatever makes one.
    pub(super) fn revision(&mut self, state: &State) -> u64 {
        *self.revision.get_or_insert(state.revision + 1)
    }

    /// The command raises the revision, by more than one.
    pub(super) fn jump(&mut self, before: u64, revision: u64) {
        (self.revision, self.jumped_from) = (Some(revision), Some(before));
    }

    /// Whether nothing was written.
    pub(super) fn is_idle(&self) -> bool {
        self.revision.is_none()
    }

    /// Notes a change. Several of one key become one.
    pub(super) fn note(&mut self, change: Change) {
        match self.changes.binary_search_by(|other| other.key.cmp(&change.key)) {
            Err(at) => self.changes.insert(at, change),
            Ok(at) => {
                if let Some(first) = self.changes.get_mut(at) {
                    *first = Change { previous: first.previous.take(), ..change };
                }
            }
        }
    }

    fn finish(mut self, outcome: Outcome, tree: Tree<'_>) -> Applied {
        // Made and unmade by one transaction: nobody ever saw it.
        self.changes.retain(|change| change.previous.is_some() || change.entry.is_some());
        let Self { revision, jumped_from, changes, nodes, leases, scope: _ } = self;
        Applied { outcome, revision, jumped_from, changes, nodes: nodes.steps(tree), leases, remembered: None }
    }
}

impl State {
    /// Applies `request`. What it remembers of it becomes part of the record number `record`.
    pub fn apply(&mut self, request: &Request, record: u64) -> Applied {
        self.log_time.advance(request.time_ms);
        let by_wall_clock = mutants::is("expiry_by_wall_clock");
        let time_ms = if by_wall_clock { environment::wall_ms() } else { self.log_time.now_ms() };
        match self.sessions.present(request.id, request.seen_ms, time_ms) {
            Presented::New => {}
            Presented::Repeated(outcome) => return Work::default().finish(outcome, self.tree()),
            Presented::Late(refusal) => return Work::default().finish(Outcome::Refused(refusal), self.tree()),
        }
        let mut work = Work::default();
        // Checked before it was proposed; a member that did not check must not harm the others.
        let outcome = match request.command.check(Limits::WIDEST) {
            Ok(()) => self.apply_or_undo(&request.command, &mut work),
            Err(error) => Outcome::Refused(Refusal::Malformed(error.to_string())),
        };
        self.revision = work.revision.unwrap_or(self.revision);
        let mut applied = work.finish(outcome, self.tree());
        // Also what was refused or found nothing to change: a copy of it that is later in the log would be judged by another
        // state, and changed something after its caller was told that it did not.
        if request.command.may_change() {
            let outcome = remembered(&applied.outcome);
            let remembered = Remembered { id: request.id, revision: self.revision, outcome, time_ms };
            applied.remembered = self.sessions.remember(remembered.clone(), record).then_some(remembered);
        }
        applied
    }

    /// Remembers the outcome of `applied` with the payloads that were not in memory when it was applied: what
    /// is remembered must not depend on what a member has in memory.
    pub fn complete(&mut self, applied: &mut Applied) {
        if let Some(remembered) = &mut applied.remembered {
            remembered.outcome = self::remembered(&applied.outcome);
            self.sessions.set_outcome(remembered.id, remembered.outcome.clone());
        }
    }

    /// A command that is refused has changed nothing, also when that is found out late.
    fn apply_or_undo(&mut self, command: &Command, work: &mut Work) -> Outcome {
        let saved = Saved::of(self, command);
        let outcome = self.apply_command(command, work);
        if let (Some(saved), Outcome::Refused(_)) = (saved, &outcome) {
            saved.restore(self);
            *work = Work::default();
        }
        outcome
    }

    fn apply_command(&mut self, command: &Command, work: &mut Work) -> Outcome {
        match command {
            Command::Put(write) => self.write(write, work),
            Command::Create(write) if self.entries.contains_key(&write.key) => match self.found(&write.key) {
                Some(found) => Outcome::Refused(Refusal::Exists(found)),
                None => Outcome::Refused(Refusal::NotFound),
            },
            Command::Create(write) => self.write(write, work),
            Command::Update(write) if !self.entries.contains_key(&write.key) => Outcome::Refused(Refusal::NotFound),
            Command::Update(write) => self.write(write, work),
            Command::Delete(delete) => self.delete(delete, work),
            Command::PutMany(put) => self.put_many(put, work),
            Command::DeleteMany(delete) => self.delete_many(delete, work),
            Command::ClearMany(clear) => self.clear_many(clear, work),
            Command::Txn(txn) => self.apply_txn(txn, work),
            Command::Lease(command) => self.apply_lease(command, work),
            Command::Compact { revision } => {
                self.compacted = self.compacted.max(*revision).min(self.revision);
                Outcome::Done { revision: self.revision }
            }
            Command::NewHistory { id } => self.apply_new_history(*id, work),
        }
    }

    fn write(&mut self, write: &Write, work: &mut Work) -> Outcome {
        if let Err(refusal) = self.check_write(write) {
            return Outcome::Refused(refusal);
        }
        work.scope.begin(write.how.returns);
        self.put(write, work);
        self.done(LOOKS_MAX, work)
    }

    /// Whether all holds that a write asks for.
    pub(super) fn check_write(&self, write: &Write) -> Result<(), Refusal> {
        self.check_condition(&write.condition, &write.key)?;
        self.check_lease(write)?;
        self.check_keep_while(write)
    }

    fn delete(&mut self, delete: &Delete, work: &mut Work) -> Outcome {
        if let Err(refusal) = self.check_condition(&delete.condition, &delete.key) {
            return Outcome::Refused(refusal);
        }
        work.scope.begin(delete.returns);
        self.remove_subtree(&delete.key, &NodeAfter::Deleted, work);
        self.done(LOOKS_MAX, work)
    }

    /// Ends a command that was done: deletes what it does not let stay, and answers.
    pub(super) fn done(&mut self, looks_max: u64, work: &mut Work) -> Outcome {
        if let Err(refusal) = self.settle(looks_max, work) {
            return Outcome::Refused(refusal);
        }
        let revision = work.revision.unwrap_or(self.revision);
        match work.scope.answer(self) {
            Some(nodes) => Outcome::Changed { revision, nodes },
            None => Outcome::Done { revision },
        }
    }

    pub(super) fn check_condition(&self, condition: &Condition, key: &Key) -> Result<(), Refusal> {
        match condition {
            Condition::Always => Ok(()),
            Condition::Node { condition, or_none } => {
                let tree = self.tree();
                let is_node = key.is_root() || tree.exists(key);
                let holds = if is_node { condition.holds(tree, &Node::at(tree, key)) } else { *or_none };
                if holds { Ok(()) } else { Err(Refusal::Mismatch(self.info(key).map(Box::new))) }
            }
            Condition::RevisionIs(_) | Condition::PayloadIs(_) => {
                let entry = self.entries.get(key).map(Arc::as_ref);
                if condition.holds(key, entry) { Ok(()) } else { Err(Refusal::Conflict(self.found(key))) }
            }
        }
    }

    /// Whether the lease that a write asks for is still held.
    pub(super) fn check_lease(&self, write: &Write) -> Result<(), Refusal> {
        if write.lease == 0 || self.holds_lease(write.lease) { Ok(()) } else { Err(Refusal::LeaseEnded) }
    }
}

/// What is remembered of an outcome, if it is more than the revision.
fn remembered(outcome: &Outcome) -> Option<Box<Outcome>> {
    match outcome {
        Outcome::Done { .. } => None,
        large if large.size() > REMEMBERED_BYTES_MAX => Some(Box::new(Outcome::Forgotten)),
        other => Some(Box::new(other.clone())),
    }
}

impl Condition {
    /// Whether the condition holds of the entry there is. One on the node does not: an entry does not tell.
    pub fn holds(&self, key: &Key, entry: Option<&Entry>) -> bool {
        match self {
            Self::Always => true,
            Self::Node { .. } => false,
            Self::RevisionIs(revision) => entry.map_or(0, |entry| entry.revision) == *revision,
            Self::PayloadIs(payload) => entry.is_some_and(|entry| entry.has_payload(key, payload)),
        }
    }
}
