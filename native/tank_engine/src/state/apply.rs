//! Applying one command. Pure: no clock, no randomness, no I/O. Total: every command, however
//! malformed, has an outcome.

use std::sync::Arc;

use crate::command::{Command, Condition, Delete, Outcome, Refusal, Request, Write};
use crate::entry::Entry;
use crate::key::Key;

use super::{Remembered, State};

/// What applying a request gave.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// What became of which entry, in the order of keys. Empty when nothing changed.
    pub changes: Vec<Change>,
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
}

impl Applied {
    fn unchanged(outcome: Outcome) -> Self {
        Self { outcome, changes: Vec::new(), remembered: None }
    }

    fn refused(refusal: Refusal) -> Self {
        Self::unchanged(Outcome::Refused(refusal))
    }
}

impl State {
    /// Applies `request`. What it remembers of it becomes part of the record number `record`.
    pub fn apply(&mut self, request: &Request, record: u64) -> Applied {
        if let Some(revision) = self.sessions.find(request.id, request.time_ms) {
            return Applied::unchanged(Outcome::Done { revision });
        }
        let mut applied = self.apply_command(&request.command);
        if !applied.changes.is_empty() {
            let remembered = Remembered { id: request.id, revision: self.revision, time_ms: request.time_ms };
            self.sessions.remember(remembered, record);
            applied.remembered = Some(remembered);
        }
        applied
    }

    fn apply_command(&mut self, command: &Command) -> Applied {
        // Checked before it was proposed; a member that did not check must not harm the others.
        if let Err(error) = Key::checked(command.key().as_bytes()) {
            return Applied::refused(Refusal::Malformed(error.to_string()));
        }
        let existing = self.entries.get(command.key()).cloned();
        match command {
            Command::Put(write) => self.write(write, existing),
            Command::Create(write) => match existing {
                Some(entry) => Applied::refused(Refusal::Exists(entry)),
                None => self.write(write, None),
            },
            Command::Update(_) if existing.is_none() => Applied::refused(Refusal::NotFound),
            Command::Update(write) => self.write(write, existing),
            Command::Delete(delete) => self.delete(delete, existing),
        }
    }

    fn write(&mut self, write: &Write, existing: Option<Arc<Entry>>) -> Applied {
        if !write.condition.holds(existing.as_deref()) {
            return Applied::refused(Refusal::Conflict(existing));
        }
        self.revision += 1;
        let entry = Arc::new(match &existing {
            Some(entry) => entry.updated(write.payload.clone(), self.revision),
            None => Entry::created(write.payload.clone(), self.revision),
        });
        let previous = self.set(&write.key, Some(Arc::clone(&entry)));
        self.done(vec![Change { key: write.key.clone(), previous, entry: Some(entry) }])
    }

    fn delete(&mut self, delete: &Delete, existing: Option<Arc<Entry>>) -> Applied {
        if !delete.condition.holds(existing.as_deref()) {
            return Applied::refused(Refusal::Conflict(existing));
        }
        let range = delete.key.clone()..delete.key.after_subtree();
        let keys: Vec<Key> = self.entries.range(range).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() {
            return Applied::unchanged(Outcome::Done { revision: self.revision });
        }
        self.revision += 1;
        let changes = keys.into_iter().map(|key| Change { previous: self.set(&key, None), key, entry: None }).collect();
        self.done(changes)
    }

    fn done(&self, changes: Vec<Change>) -> Applied {
        Applied { outcome: Outcome::Done { revision: self.revision }, changes, remembered: None }
    }
}

impl Condition {
    /// Whether the condition holds of the entry there is.
    pub fn holds(self, entry: Option<&Entry>) -> bool {
        match self {
            Self::Always => true,
            Self::RevisionIs(revision) => entry.is_some_and(|entry| entry.revision == revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::RequestId;
    use crate::key::Component;
    use bytes::Bytes;

    fn key(path: &[&str]) -> Key {
        Key::of(&path.iter().map(|s| Component::String(s.as_bytes().to_vec())).collect::<Vec<_>>())
    }

    fn write(path: &[&str], payload: &'static str) -> Write {
        Write { key: key(path), payload: Bytes::from_static(payload.as_bytes()), condition: Condition::Always }
    }

    fn delete(path: &[&str]) -> Command {
        Command::Delete(Delete { key: key(path), condition: Condition::Always })
    }

    /// Gives each request the next sequence, as a client does.
    struct Client(State, u64);

    impl Client {
        fn new() -> Self {
            Self(State::default(), 0)
        }

        fn request(&mut self, command: Command) -> Request {
            self.1 += 1;
            let id = RequestId { client: 1, sequence: self.1, resolved_below: self.1 };
            Request { id, time_ms: 0, command }
        }

        fn apply(&mut self, command: Command) -> Applied {
            let request = self.request(command);
            self.0.apply(&request, 1)
        }
    }

    #[test]
    fn put_counts_versions_and_revisions() {
        let mut c = Client::new();
        assert_eq!(c.apply(Command::Put(write(&["a"], "1"))).outcome, Outcome::Done { revision: 1 });
        assert_eq!(c.apply(Command::Put(write(&["b"], "1"))).outcome, Outcome::Done { revision: 2 });
        assert_eq!(c.apply(Command::Put(write(&["a"], "2"))).outcome, Outcome::Done { revision: 3 });
        let entry = c.0.entries.get(&key(&["a"])).unwrap();
        assert_eq!((entry.create_revision, entry.revision, entry.version), (1, 3, 2));
    }

    #[test]
    fn create_and_update_look_first_and_a_refusal_changes_nothing() {
        let mut c = Client::new();
        assert_eq!(c.apply(Command::Update(write(&["a"], "1"))).outcome, Outcome::Refused(Refusal::NotFound));
        c.apply(Command::Create(write(&["a"], "1")));
        let before = c.0.clone();
        let applied = c.apply(Command::Create(write(&["a"], "2")));
        assert!(matches!(applied.outcome, Outcome::Refused(Refusal::Exists(e)) if e.payload == "1"));
        assert_eq!((c.0.revision, c.0.digest, c.0.bytes), (before.revision, before.digest, before.bytes));
        assert_eq!(c.apply(Command::Update(write(&["a"], "2"))).outcome, Outcome::Done { revision: 2 });
    }

    #[test]
    fn a_condition_on_the_revision_must_hold() {
        let mut c = Client::new();
        c.apply(Command::Put(write(&["a"], "1")));
        let with = |revision| Write { condition: Condition::RevisionIs(revision), ..write(&["a"], "2") };
        assert!(matches!(
            c.apply(Command::Put(with(7))).outcome,
            Outcome::Refused(Refusal::Conflict(Some(e))) if e.revision == 1
        ));
        assert_eq!(c.apply(Command::Put(with(1))).outcome, Outcome::Done { revision: 2 });
        let stale = Command::Delete(Delete { key: key(&["a"]), condition: Condition::RevisionIs(1) });
        assert!(matches!(c.apply(stale).outcome, Outcome::Refused(Refusal::Conflict(Some(_)))));
        let missing = Command::Delete(Delete { key: key(&["x"]), condition: Condition::RevisionIs(1) });
        assert_eq!(c.apply(missing).outcome, Outcome::Refused(Refusal::Conflict(None)));
    }

    #[test]
    fn delete_takes_the_subtree_and_nothing_beside_it() {
        let mut c = Client::new();
        for path in [&["a"][..], &["a", "b"], &["a", "b", "c"], &["ab"], &["a\0"]] {
            c.apply(Command::Put(write(path, "1")));
        }
        let applied = c.apply(delete(&["a"]));
        assert_eq!(applied.changes.len(), 3);
        assert_eq!(applied.outcome, Outcome::Done { revision: 6 });
        let left: Vec<_> = c.0.entries.keys().cloned().collect();
        assert_eq!(left, vec![key(&["a\0"]), key(&["ab"])]);
        assert_eq!(
            c.apply(delete(&["a"])).outcome,
            Outcome::Done { revision: 6 },
            "nothing to delete: no new revision"
        );
    }

    #[test]
    fn an_emptied_state_has_the_digest_and_size_of_an_empty_one() {
        let mut c = Client::new();
        c.apply(Command::Put(write(&["a"], "1")));
        c.apply(Command::Put(write(&["a"], "longer")));
        c.apply(Command::Put(write(&["b"], "1")));
        c.apply(Command::Delete(Delete { key: Key::default(), condition: Condition::Always }));
        assert_eq!((c.0.digest, c.0.bytes), (super::super::Digest::default(), 0));
    }

    #[test]
    fn a_repeated_request_applies_once_and_answers_the_same() {
        let mut c = Client::new();
        let request = c.request(Command::Put(write(&["a"], "1")));
        let first = c.0.apply(&request, 1).outcome;
        c.0.apply(&Request { id: RequestId { client: 2, ..request.id }, ..request.clone() }, 2);
        let again = c.0.apply(&request, 3);
        assert_eq!(again.outcome, first);
        assert!(again.changes.is_empty());
        assert_eq!(c.0.revision, 2);
    }

    #[test]
    fn a_malformed_key_is_refused_not_applied() {
        let mut c = Client::new();
        let key = Key::from_bytes(b"\x07nonsense");
        let applied = c.apply(Command::Put(Write { key, payload: Bytes::new(), condition: Condition::Always }));
        assert!(matches!(applied.outcome, Outcome::Refused(Refusal::Malformed(_))));
        assert_eq!(c.0.revision, 0);
    }
}
