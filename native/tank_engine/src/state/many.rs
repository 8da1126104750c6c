//! Applying a command to every node that matches a pattern, all at one revision.
//!
//! What matches is settled before anything is changed: what a command does to one node does not
//! make it match others.

use crate::command::{ClearMany, DeleteMany, PUT_MANY_BYTES_MAX, PutMany, Write};
use crate::key::Key;
use crate::outcome::{NodeAfter, Outcome, Refusal};
use crate::pattern::Pattern;

use super::apply::Work;
use super::keep_while::LOOKS_MAX;
use super::{Cause, State};

impl State {
    pub(super) fn put_many(&mut self, put: &PutMany, work: &mut Work) -> Outcome {
        let (mut writes, mut bytes) = (Vec::new(), 0usize);
        for node in put.pattern.walk(self.tree(), None) {
            bytes = bytes.saturating_add(node.key.as_bytes().len() + put.payload.len());
            if bytes > PUT_MANY_BYTES_MAX {
                return Outcome::Refused(Refusal::TooMuch(PUT_MANY_BYTES_MAX as u64));
            }
            let how = put.how.clone();
            writes.push(Write { how, ..Write::new(node.key.into_owned(), put.payload.clone()) });
        }
        if let Err(refusal) = writes.iter().try_for_each(|write| self.check_keep_while(write)) {
            return Outcome::Refused(refusal);
        }
        work.scope.begin(put.how.returns);
        for write in &writes {
            self.put(write, work);
        }
        self.done(LOOKS_MAX, work)
    }

    pub(super) fn delete_many(&mut self, delete: &DeleteMany, work: &mut Work) -> Outcome {
        let mut above: Option<Key> = None;
        work.scope.begin(delete.returns);
        for key in self.matches(&delete.pattern) {
            // What goes with a match above it is gone already.
            if above.as_ref().is_none_or(|above| !key.is_within(above)) {
                self.remove_subtree(&key, &NodeAfter::Deleted, work);
                above = Some(key);
            }
        }
        self.done(LOOKS_MAX, work)
    }

    pub(super) fn clear_many(&mut self, clear: &ClearMany, work: &mut Work) -> Outcome {
        work.scope.begin(clear.returns);
        for key in self.matches(&clear.pattern) {
            self.clear(&key, clear.keep_nodes, Cause::Command, work);
        }
        self.done(LOOKS_MAX, work)
    }

    fn matches(&self, pattern: &Pattern) -> Vec<Key> {
        pattern.walk(self.tree(), None).map(|node| node.key.into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::command::{Command, How, Request, RequestId};
    use crate::key::Component;
    use crate::pattern::{Condition, Part};

    #[derive(Default)]
    struct Client(State, u64);

    impl Client {
        fn with(paths: &[&str]) -> Self {
            let mut client = Self::default();
            for path in paths {
                client.apply(Command::Put(Write::new(key(path), Bytes::from("old"))));
            }
            client
        }

        fn apply(&mut self, command: Command) -> Outcome {
            self.1 += 1;
            let id = RequestId { client: 1, sequence: self.1, resolved_below: self.1 };
            self.0.apply(&Request { id, time_ms: 0, command, seen_ms: 0 }, 1).outcome
        }

        fn left(&self) -> Vec<Key> {
            self.0.entries.keys().cloned().collect()
        }
    }

    fn key(path: &str) -> Key {
        Key::of(&path.split('/').map(|name| Component::String(name.into())).collect::<Vec<_>>())
    }

    fn pattern(path: &str) -> Pattern {
        let part = |name: &str| match name {
            "*" => Part::one(Condition::Any),
            "**" => Part::many(Condition::Any),
            name => Part::one(Condition::Is(key(name).as_bytes().to_vec())),
        };
        Pattern { parts: path.split('/').map(part).collect() }
    }

    #[test]
    fn all_matches_are_written_at_one_revision() {
        let mut c = Client::with(&["a/x", "b/x/y", "c"]);
        let put = PutMany { pattern: pattern("*/x"), payload: Bytes::from("new"), how: How::default() };
        assert_eq!(c.apply(Command::PutMany(put)), Outcome::Done { revision: 4 });
        for (path, version) in [("a/x", 2), ("b/x", 1)] {
            let entry = c.0.entries.get(&key(path)).unwrap();
            assert_eq!(
                (entry.revision, entry.version, entry.payload.in_memory()),
                (4, version, Some(Bytes::from_static(b"new")))
            );
        }
        assert_eq!(c.0.entries.len(), 4);
    }

    #[test]
    fn deleting_takes_what_is_below_and_clearing_leaves_it() {
        let mut c = Client::with(&["a", "a/x", "a/x/y", "b/x"]);
        assert_eq!(c.apply(Command::ClearMany(pattern("*").into())), Outcome::Done { revision: 5 });
        assert_eq!(c.left(), [key("a/x"), key("a/x/y"), key("b/x")]);
        assert_eq!(c.apply(Command::DeleteMany(pattern("a/**").into())), Outcome::Done { revision: 6 });
        assert_eq!(c.left(), [key("b/x")]);
        assert_eq!(
            c.apply(Command::DeleteMany(pattern("nobody/**").into())),
            Outcome::Done { revision: 6 },
            "no match"
        );
    }

    #[test]
    fn what_would_take_too_much_is_refused_as_a_whole() {
        let paths: Vec<String> = (0..65).map(|i| format!("a/{i}")).collect();
        let mut c = Client::with(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let put = PutMany { pattern: pattern("a/*"), payload: Bytes::from(vec![0; 1 << 20]), how: How::default() };
        let refused = Outcome::Refused(Refusal::TooMuch(PUT_MANY_BYTES_MAX as u64));
        assert_eq!(c.apply(Command::PutMany(put)), refused);
        assert!(c.0.revision == 65 && c.0.entries.values().all(|entry| entry.payload.in_memory().unwrap() == "old"));
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_refused() {
        let mut c = Client::with(&["a"]);
        let name = Condition::Is(b"nonsense".to_vec());
        let outcome = c.apply(Command::DeleteMany(Pattern { parts: vec![Part::one(name)] }.into()));
        assert!(matches!(outcome, Outcome::Refused(Refusal::Malformed(_))));
    }
}
