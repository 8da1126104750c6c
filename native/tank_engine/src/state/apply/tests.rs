use super::*;
use crate::command::{Compare, LeaseCommand, Op, RequestId, Txn};
use crate::key::Component;
use bytes::Bytes;

fn key(path: &[&str]) -> Key {
    Key::of(&path.iter().map(|s| Component::String(s.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn write(path: &[&str], payload: &'static str) -> Write {
    Write::new(key(path), Bytes::from_static(payload.as_bytes()))
}

fn delete(path: &[&str]) -> Command {
    Command::Delete(key(path).into())
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
        Request { id, time_ms: 0, command, seen_ms: 0 }
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
    assert!(
        matches!(applied.outcome, Outcome::Refused(Refusal::Exists(found)) if found.payload.as_deref() == Some(b"1"))
    );
    assert_eq!((c.0.revision, c.0.digest, c.0.bytes), (before.revision, before.digest, before.bytes));
    assert_eq!(c.apply(Command::Update(write(&["a"], "2"))).outcome, Outcome::Done { revision: 2 });
}

#[test]
fn what_changed_nothing_changes_nothing_when_it_is_asked_again_in_another_state() {
    let copies = |state: &mut State, request: &Request, first: &Outcome| {
        let before = (state.revision, state.digest);
        let again = state.apply(request, 9);
        assert_eq!((&again.outcome, again.changes.len()), (first, 0), "{request}");
        assert_eq!((state.revision, state.digest), before, "{request}");
    };
    let mut c = Client::new();
    // Others write in between, and never say what the first client no longer asks for.
    let mut other = 0;
    let mut change = |state: &mut State, command: Command| {
        other += 1;
        let id = RequestId { client: 2, sequence: other, resolved_below: 0 };
        state.apply(&Request { id, time_ms: 0, command, seen_ms: 0 }, 2);
    };
    let deletes_nothing = c.request(delete(&["a"]));
    let first = c.0.apply(&deletes_nothing, 1).outcome;
    change(&mut c.0, Command::Put(write(&["a"], "1")));
    copies(&mut c.0, &deletes_nothing, &first);

    let creates = c.request(Command::Create(write(&["a"], "2")));
    let first = c.0.apply(&creates, 1).outcome;
    assert!(matches!(first, Outcome::Refused(Refusal::Exists(_))));
    change(&mut c.0, delete(&["a"]));
    copies(&mut c.0, &creates, &first);

    let compare = vec![Compare::Payload { key: key(&["b"]), equal: true, payload: Bytes::from_static(b"1") }];
    let then = vec![Op::Put(write(&["c"], "1"))];
    let compares = c.request(Command::Txn(Txn { compare, then, otherwise: vec![] }));
    let first = c.0.apply(&compares, 1).outcome;
    assert!(matches!(first, Outcome::Txn { succeeded: false, .. }));
    change(&mut c.0, Command::Put(write(&["b"], "1")));
    copies(&mut c.0, &compares, &first);

    let acquire = LeaseCommand::Acquire { name: Bytes::from("l"), holder: Bytes::from("h"), ttl_ms: 1_000 };
    change(&mut c.0, Command::Lease(acquire));
    let epoch = c.0.leases.get(&Bytes::from("l")).unwrap().epoch;
    let holder = Bytes::from("other");
    let acquires = c.request(Command::Lease(LeaseCommand::Acquire { name: Bytes::from("l"), holder, ttl_ms: 1_000 }));
    let first = c.0.apply(&acquires, 1).outcome;
    assert!(matches!(first, Outcome::Refused(Refusal::Held(_))));
    change(&mut c.0, Command::Lease(LeaseCommand::Release { name: Bytes::from("l"), epoch }));
    copies(&mut c.0, &acquires, &first);
    assert!(c.0.leases.is_empty());
}

#[test]
fn a_condition_on_the_revision_must_hold() {
    let mut c = Client::new();
    c.apply(Command::Put(write(&["a"], "1")));
    let with = |revision| Write { condition: Condition::RevisionIs(revision), ..write(&["a"], "2") };
    assert!(matches!(
        c.apply(Command::Put(with(7))).outcome,
        Outcome::Refused(Refusal::Conflict(Some(found))) if found.entry.revision == 1
    ));
    assert_eq!(c.apply(Command::Put(with(1))).outcome, Outcome::Done { revision: 2 });
    let stale = Command::Delete(Delete { condition: Condition::RevisionIs(1), ..key(&["a"]).into() });
    assert!(matches!(c.apply(stale).outcome, Outcome::Refused(Refusal::Conflict(Some(_)))));
    let missing = Command::Delete(Delete { condition: Condition::RevisionIs(1), ..key(&["x"]).into() });
    assert_eq!(c.apply(missing).outcome, Outcome::Refused(Refusal::Conflict(None)));
    let absent = |path| Write { condition: Condition::RevisionIs(0), ..write(path, "2") };
    assert!(matches!(c.apply(Command::Put(absent(&["a"]))).outcome, Outcome::Refused(Refusal::Conflict(Some(_)))));
    assert_eq!(c.apply(Command::Put(absent(&["x"]))).outcome, Outcome::Done { revision: 3 });
}

#[test]
fn a_condition_on_the_payload_must_hold() {
    let mut c = Client::new();
    c.apply(Command::Put(write(&["a"], "1")));
    let from = |old: &'static str| {
        let condition = Condition::PayloadIs(Bytes::from_static(old.as_bytes()));
        Command::Put(Write { condition, ..write(&["a"], "2") })
    };
    assert!(matches!(c.apply(from("0")).outcome, Outcome::Refused(Refusal::Conflict(Some(_)))));
    assert_eq!(c.apply(from("1")).outcome, Outcome::Done { revision: 2 });
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
    assert_eq!(c.apply(delete(&["a"])).outcome, Outcome::Done { revision: 6 }, "nothing to delete: no new revision");
}

#[test]
fn an_emptied_state_has_the_digest_and_size_of_an_empty_one() {
    let mut c = Client::new();
    c.apply(Command::Put(write(&["a"], "1")));
    c.apply(Command::Put(write(&["a"], "longer")));
    c.apply(Command::Put(write(&["b"], "1")));
    c.apply(Command::Delete(Key::default().into()));
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
fn what_is_remembered_does_not_depend_on_what_is_in_memory() {
    let mut here = Client::new();
    here.apply(Command::Put(write(&["a"], "1")));
    let mut there = Client(here.0.clone(), here.1);
    let compare = Vec::new();
    let then = vec![Op::Put(write(&["b"], "1")), Op::Get(key(&["a"]))];
    let request = here.request(Command::Txn(Txn { compare, then, otherwise: Vec::new() }));
    let expected = here.0.apply(&request, 2);
    // The other member reads it from the disk.
    there.0.entries.get(&key(&["a"])).unwrap().evict();
    let mut applied = there.0.apply(&request, 2);
    assert!(!applied.outcome.is_complete());
    applied.outcome.complete(|_, _| Ok::<_, ()>(Some(Bytes::from_static(b"1")))).unwrap();
    there.0.complete(&mut applied);
    assert_eq!((&applied.outcome, &applied.remembered), (&expected.outcome, &expected.remembered));
    assert_eq!(there.0.apply(&request, 3).outcome, expected.outcome);
    assert_eq!(there.0.sessions, here.0.sessions);
}

#[test]
fn a_malformed_key_is_refused_not_applied() {
    let mut c = Client::new();
    let key = Key::from_bytes(b"\x07nonsense");
    let applied = c.apply(Command::Put(Write::new(key, Bytes::new())));
    assert!(matches!(applied.outcome, Outcome::Refused(Refusal::Malformed(_))));
    assert_eq!(c.0.revision, 0);
}
