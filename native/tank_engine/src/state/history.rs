//! Histories: an unbroken line of revisions, and what begins another one.
//!
//! A restore, a cluster that is forced on one survivor and an import that replaces lead away from revisions
//! that clients have seen. Each begins a new history. Its revisions, and so its lease epochs, are above all that
//! anybody can have seen of another one; all before it is compacted; leases granted before it have no holder.
//!
//! ```text
//! history A:  0 ... 100 ......... 151          (lost)
//!                    \ backup
//! history B:          +----- jump ------> since ... since + 21
//! ```

use serde::{Deserialize, Serialize};

use crate::mutants;
use crate::outcome::Outcome;

use super::State;
use super::apply::Work;

/// How far a new history raises the revision, at the least; less than twice as far. More writes than a store
/// ever loses, and few enough that hundreds of thousands of histories fit into the small integers of the BEAM.
pub const REVISION_STEP: u64 = 1_000_000_000_000;

/// Which history a state is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Drawn when it began. 0 in a cluster's first one, which nothing began.
    pub id: u64,
    /// The revision that it began at. A lease with no higher epoch was granted in another history.
    pub since: u64,
}

impl History {
    /// The history with that id, begun in a state of that revision. How far it raises the revision depends on
    /// its id: so the revisions of two histories that were begun at the same one differ too.
    #[must_use]
    pub fn begun(id: u64, revision: u64) -> Self {
        let step = REVISION_STEP + id % REVISION_STEP;
        Self { id, since: revision.saturating_add(step) }
    }
}

impl State {
    /// Begins a history. All revisions before it are compacted, and entries keep theirs.
    fn begin_history(&mut self, id: u64) {
        self.history = History::begun(id, self.revision);
        if mutants::is("revisions_come_again") {
            self.history.since = self.revision;
        }
        self.revision = self.history.since;
        self.compacted = self.revision;
    }

    pub(super) fn apply_new_history(&mut self, id: u64, work: &mut Work) -> Outcome {
        if self.history.id != id {
            let before = self.revision;
            self.begin_history(id);
            work.jump(before, self.revision);
        }
        Outcome::Done { revision: self.revision }
    }

    /// Whether a lease with that epoch was granted in this history. Nobody may go on with one that was not: in
    /// the history that was lost, another one may have held it since.
    pub(super) fn is_of_this_history(&self, epoch: u64) -> bool {
        epoch > self.history.since || mutants::is("leases_go_on")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::{Command, Compare, LeaseCommand, Op, Relation, Request, RequestId, Txn, Write};
    use crate::key::Key;
    use crate::lease::Lease;
    use crate::outcome::Refusal;
    use crate::state::Applied;

    #[derive(Default)]
    struct Client(State, u64);

    impl Client {
        fn apply(&mut self, command: Command) -> Applied {
            self.1 += 1;
            let id = RequestId { client: 1, sequence: self.1, resolved_below: self.1 };
            self.0.apply(&Request { id, time_ms: 0, command, seen_ms: 0 }, 1)
        }

        fn acquire(&mut self, holder: &'static str) -> Outcome {
            let (name, holder) = (Bytes::from_static(b"lease"), Bytes::from_static(holder.as_bytes()));
            self.apply(Command::Lease(LeaseCommand::Acquire { name, holder, ttl_ms: 10 })).outcome
        }

        fn granted(&mut self, holder: &'static str) -> Lease {
            let Outcome::Granted(lease) = self.acquire(holder) else { panic!("not granted") };
            lease
        }

        fn guarded(&mut self, relation: Relation, operand: u64) -> bool {
            let compare = vec![Compare::Lease { name: Bytes::from_static(b"lease"), relation, operand }];
            let txn = Txn { compare, then: vec![Op::Put(put("guarded", 0))], otherwise: Vec::new() };
            matches!(self.apply(Command::Txn(txn)).outcome, Outcome::Txn { succeeded: true, .. })
        }
    }

    fn key(name: &str) -> Key {
        Key::from_bytes(format!("\x02{name}\0").as_bytes())
    }

    fn put(name: &str, lease: u64) -> Write {
        Write { lease, ..Write::new(key(name), Bytes::from_static(b"v")) }
    }

    #[test]
    fn a_new_history_raises_the_revision_and_compacts_all_before() {
        let mut c = Client::default();
        c.apply(Command::Put(put("a", 0)));
        let before = c.0.clone();
        let applied = c.apply(Command::NewHistory { id: 7 });
        let began = 1 + REVISION_STEP + 7;
        assert_eq!((applied.outcome, applied.revision), (Outcome::Done { revision: began }, Some(began)));
        assert_eq!(applied.jumped_from, Some(1));
        assert_eq!((c.0.revision, c.0.compacted, c.0.history), (began, began, History { id: 7, since: began }));
        assert_eq!((c.0.digest, c.0.entries.get(&key("a")).unwrap().revision), (before.digest, 1));
        assert_eq!(c.apply(Command::Put(put("b", 0))).outcome, Outcome::Done { revision: began + 1 });
    }

    #[test]
    fn the_same_history_begins_once() {
        let mut c = Client::default();
        let began = c.apply(Command::NewHistory { id: 7 }).outcome;
        let again = c.apply(Command::NewHistory { id: 7 });
        assert_eq!((again.outcome, again.revision), (began, None));
    }

    #[test]
    fn histories_begun_at_one_revision_have_different_revisions() {
        assert_ne!(History::begun(7, 100).since, History::begun(8, 100).since);
    }

    #[test]
    fn the_holder_of_a_lease_of_another_history_is_refused() {
        let mut c = Client::default();
        let former = c.granted("me");
        let (name, epoch) = (former.name.clone(), former.epoch);
        c.apply(Command::Put(put("attached", epoch)));
        assert!(c.guarded(Relation::Equal, epoch));
        c.apply(Command::NewHistory { id: 7 });

        let renewed = c.apply(Command::Lease(LeaseCommand::Renew { name: name.clone(), epoch })).outcome;
        assert_eq!(renewed, Outcome::Refused(Refusal::LeaseEnded));
        assert!(!c.guarded(Relation::Equal, epoch), "a write guarded by it");
        assert!(!c.guarded(Relation::Equal, 0), "and nobody else holds it yet");
        let attached = c.apply(Command::Put(put("more", epoch))).outcome;
        assert_eq!(attached, Outcome::Refused(Refusal::LeaseEnded));

        // Its time goes on: its holder may still count on it.
        assert!(matches!(c.acquire("other"), Outcome::Refused(Refusal::Held(held)) if held == former));
        c.apply(Command::Lease(LeaseCommand::Expire { name, epoch, renewals: 0 }));
        assert!(!c.0.entries.contains_key(&key("attached")));
        let other = c.granted("other");
        assert!(other.epoch > REVISION_STEP && c.guarded(Relation::Equal, other.epoch));
    }

    #[test]
    fn a_former_holder_can_release() {
        let mut c = Client::default();
        let Lease { name, epoch, .. } = c.granted("me");
        c.apply(Command::NewHistory { id: 7 });
        c.apply(Command::Lease(LeaseCommand::Release { name, epoch }));
        assert!(c.0.leases.is_empty());
    }
}
