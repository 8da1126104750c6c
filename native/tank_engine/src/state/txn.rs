//! Applying a transaction: compare with the state before, then do one branch at one revision.

use bytes::Bytes;

use crate::command::{Compare, Number, Op, Txn};
use crate::entries;
use crate::entry::Entry;
use crate::key::Key;
use crate::outcome::{Found, NodeAfter, Outcome, Refusal, Response};

use super::apply::Work;
use super::keep_while::LOOKS_MAX as CONDITIONS_MAX;
use super::{Cause, Fingerprint, State};

/// The epoch of a lease that is not free yet and has no holder: no grant has it.
const NOBODYS: u64 = u64::MAX;

/// Entries that the comparisons and lists of a transaction may look at, besides each entry of the store once: about
/// 20 ms of work. A thousand comparisons over a large subtree would keep all other writes waiting for seconds.
const LOOKS_MAX: u64 = 500_000;

/// The entries that a transaction may still look at.
struct Looks {
    left: u64,
    max: u64,
}

impl Looks {
    fn take(&mut self, entries: u64) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(entries).ok_or(Refusal::TooManyLooks(self.max))?;
        Ok(())
    }
}

impl State {
    pub(super) fn apply_txn(&mut self, txn: &Txn, work: &mut Work) -> Outcome {
        let max = LOOKS_MAX + self.entries.len() as u64;
        let mut looks = Looks { left: max, max };
        let succeeded = match self.all_hold(&txn.compare, &mut looks) {
            Ok(succeeded) => succeeded,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        // Looked at before anything is done: a branch is done as a whole or not at all.
        if let Err(refusal) = ops.iter().try_for_each(|op| self.check_op(op, &mut looks)) {
            return Outcome::Refused(refusal);
        }
        let responses = match ops.iter().map(|op| self.apply_op(op, work)).collect() {
            Ok(responses) => responses,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let revision = if work.is_idle() { self.revision } else { work.revision(self) };
        Outcome::Txn { succeeded, revision, responses }
    }

    fn all_hold(&self, compare: &[Compare], looks: &mut Looks) -> Result<bool, Refusal> {
        for compare in compare {
            if !self.holds(compare, looks)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, compare: &Compare, looks: &mut Looks) -> Result<bool, Refusal> {
        Ok(match compare {
            Compare::Payload { key, equal, payload } => {
                self.entries.get(key).is_some_and(|entry| entry.has_payload(key, payload)) == *equal
            }
            Compare::Number { key, number, relation, operand } => relation.holds(self.number(key, *number), *operand),
            Compare::Below { prefix, relation, operand } => {
                for (key, entry) in entries::subtree(&self.entries, prefix) {
                    looks.take(1)?;
                    if key != prefix && !relation.holds(entry.revision, *operand) {
                        return Ok(false);
                    }
                }
                true
            }
            Compare::Matches { pattern, facts, fingerprint } => {
                Fingerprint::of(self.tree(), pattern, *facts, |looks_at| looks.take(looks_at))? == *fingerprint
            }
            Compare::Lease { name, relation, operand } => relation.holds(self.epoch(name), *operand),
        })
    }

    fn number(&self, key: &Key, number: Number) -> u64 {
        let of = |field: fn(&Entry) -> u64| self.entries.get(key).map_or(0, |entry| field(entry));
        match number {
            Number::Version => of(|entry| entry.version),
            Number::Revision => of(|entry| entry.revision),
            Number::CreateRevision => of(|entry| entry.create_revision),
            Number::LeaseEpoch => of(|entry| entry.lease),
            Number::Exists => u64::from(self.tree().exists(key)),
            Number::ChildCount => self.nodes.child_count(key),
            Number::PayloadVersion => self.tree().payload_version(key),
            Number::ChildListVersion => self.tree().child_list_version(key),
        }
    }

    fn epoch(&self, name: &Bytes) -> u64 {
        let held = |epoch| if self.is_of_this_history(epoch) { epoch } else { NOBODYS };
        self.leases.get(name).map_or(0, |lease| held(lease.epoch))
    }

    fn check_op(&self, op: &Op, looks: &mut Looks) -> Result<(), Refusal> {
        match op {
            Op::Put(write) => self.check_lease(write),
            Op::List(prefix) => {
                // Only entries that are looked at: those that the transaction itself puts there are few.
                let below = entries::subtree(&self.entries, prefix);
                below.map(|_| 1).try_for_each(|one| looks.take(one))
            }
            Op::Delete(_) | Op::Clear(_) | Op::Get(_) => Ok(()),
        }
    }

    /// Does an operation, and all that follows from it.
    pub(super) fn apply_op(&mut self, op: &Op, work: &mut Work) -> Result<Response, Refusal> {
        let response = match op {
            Op::Put(write) => {
                self.check_condition(&write.condition, &write.key)?;
                self.check_keep_while(write)?;
                work.scope.begin(write.how.returns);
                Response::Put(self.put(write, work))
            }
            Op::Delete(delete) => {
                self.check_condition(&delete.condition, &delete.key)?;
                work.scope.begin(delete.returns);
                Response::Deleted(self.remove_subtree(&delete.key, &NodeAfter::Deleted, work))
            }
            Op::Clear(clear) => {
                work.scope.begin(clear.returns);
                Response::Deleted(u64::from(self.clear(&clear.key, clear.keep_node, Cause::Command, work)))
            }
            Op::Get(key) => return Ok(Response::Got(self.found(key))),
            Op::List(key) => return Ok(Response::Listed(self.list(key))),
        };
        self.settle(CONDITIONS_MAX, work)?;
        Ok(work.scope.answer(self).map_or(response, Response::Changed))
    }

    fn list(&self, prefix: &Key) -> Vec<Found> {
        let children: Vec<Key> = entries::child_keys(&self.entries, prefix).collect();
        children.iter().filter_map(|key| self.found(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::command::{Command, Relation, Request, RequestId, Write};
    use crate::state::Applied;

    fn key(path: &str) -> Key {
        let bytes: String = path.split('/').map(|s| format!("\x02{s}\0")).collect();
        Key::from_bytes(bytes.as_bytes())
    }

    fn put(path: &str, payload: &'static str) -> Op {
        Op::Put(Write::new(key(path), Bytes::from_static(payload.as_bytes())))
    }

    fn apply(state: &mut State, compare: Vec<Compare>, then: Vec<Op>, otherwise: Vec<Op>) -> Applied {
        static SEQUENCE: AtomicU64 = AtomicU64::new(1);
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let id = RequestId { client: 1, sequence, resolved_below: sequence };
        let command = Command::Txn(Txn { compare, then, otherwise });
        state.apply(&Request { id, time_ms: 0, command, seen_ms: 0 }, 1)
    }

    impl State {
        fn holds_now(&mut self, compare: &Compare) -> bool {
            self.holds(compare, &mut Looks { left: 1_000, max: 1_000 }).unwrap()
        }
    }

    fn responses(applied: &Applied) -> (bool, u64, Vec<Response>) {
        let Outcome::Txn { succeeded, revision, responses } = &applied.outcome else { panic!("{applied:?}") };
        (*succeeded, *revision, responses.clone())
    }

    #[test]
    fn all_operations_share_one_revision_and_see_those_before() {
        let mut state = State::default();
        let applied = apply(&mut state, vec![], vec![put("a", "1"), put("a/b", "2"), Op::List(key("a"))], vec![]);
        let (succeeded, revision, responses) = responses(&applied);
        assert!(succeeded && revision == 1 && state.revision == 1);
        assert!(matches!(&responses[..], [Response::Put(1), Response::Put(1), Response::Listed(l)] if l.len() == 1));
        assert!(applied.changes.iter().all(|change| change.entry.as_ref().unwrap().revision == 1));
    }

    #[test]
    fn several_changes_of_one_entry_are_one() {
        let mut state = State::default();
        apply(&mut state, vec![], vec![put("a", "1")], vec![]);
        let ops = vec![put("a", "2"), put("a", "3"), put("b", "1"), Op::Delete(key("b").into())];
        let applied = apply(&mut state, vec![], ops, vec![]);
        assert_eq!(applied.changes.len(), 1);
        let change = &applied.changes[0];
        assert!(change.previous.as_ref().unwrap().has_payload(&key("a"), b"1"));
        assert!(change.entry.as_ref().is_some_and(|e| e.version == 3 && e.has_payload(&key("a"), b"3")));
    }

    #[test]
    fn a_branch_that_only_reads_makes_no_revision() {
        let mut state = State::default();
        let compare = vec![Compare::Payload { key: key("a"), equal: true, payload: Bytes::new() }];
        let applied = apply(&mut state, compare.clone(), vec![Op::List(key("a"))], vec![Op::Get(key("a"))]);
        assert_eq!(responses(&applied), (false, 0, vec![Response::Got(None)]));
        assert!(applied.remembered.is_none() && applied.revision.is_none());
        let applied = apply(&mut state, compare, vec![put("a", "1")], vec![Op::Get(key("a"))]);
        assert!(applied.remembered.is_some() && applied.revision.is_none(), "a copy of it might write");
    }

    #[test]
    fn numbers_of_what_is_missing_are_zero() {
        let mut state = State::default();
        apply(&mut state, vec![], vec![put("p/a", "1")], vec![]);
        for (path, number, expected) in [
            ("p", Number::Exists, 1),
            ("p", Number::Version, 0),
            ("p", Number::ChildCount, 1),
            ("p/a", Number::Revision, 1),
            ("x", Number::Exists, 0),
        ] {
            let compare = Compare::Number { key: key(path), number, relation: Relation::Equal, operand: expected };
            assert!(state.holds_now(&compare), "{path} {number:?}");
        }
        let below = |relation, operand| Compare::Below { prefix: key("p"), relation, operand };
        assert!(state.holds_now(&below(Relation::LessOrEqual, 1)) && !state.holds_now(&below(Relation::Less, 1)));
        let lease = Compare::Lease { name: Bytes::from("l"), relation: Relation::Equal, operand: 0 };
        assert!(state.holds_now(&lease));
    }

    #[test]
    fn a_transaction_may_look_at_everything_once_and_not_again_and_again() {
        let mut state = State::default();
        let all: Vec<Op> = (0..2_000).map(|n| put(&format!("p/{n}"), "1")).collect();
        all.chunks(1_000).for_each(|some| drop(apply(&mut state, vec![], some.to_vec(), vec![])));
        let revision = state.revision;
        let most = 2_000 + LOOKS_MAX;
        let times = usize::try_from(most / 2_000).unwrap();
        let below = Compare::Below { prefix: key("p"), relation: Relation::LessOrEqual, operand: revision };
        assert!(responses(&apply(&mut state, vec![below.clone(); times], vec![], vec![])).0);
        let applied = apply(&mut state, vec![below; times + 1], vec![put("x", "1")], vec![]);
        assert_eq!(applied.outcome, Outcome::Refused(Refusal::TooManyLooks(most)));
        let applied = apply(&mut state, vec![], vec![Op::List(key("p")); times + 1], vec![]);
        assert_eq!(applied.outcome, Outcome::Refused(Refusal::TooManyLooks(most)));
        assert_eq!((state.revision, state.entries.len()), (revision, 2_000), "nothing of it was done");
    }

    #[test]
    fn a_put_with_a_lease_that_ended_undoes_nothing_because_nothing_was_done() {
        let mut state = State::default();
        let attached = Op::Put(Write { lease: 7, ..Write::new(key("b"), Bytes::new()) });
        let applied = apply(&mut state, vec![], vec![put("a", "1"), attached], vec![]);
        assert_eq!(applied.outcome, Outcome::Refused(Refusal::LeaseEnded));
        assert_eq!((state.revision, state.entries.len()), (0, 0));
    }
}
