//! Random commands against a model: a map in memory. Every outcome, revision and version is
//! compared, through restarts, purges of the log and transfers of the state to another member.
//!
//! `TANK_CASES` chooses how many histories the engine plays (200 unless told: each opens it a few
//! times, which takes most of the time). A failing one is made as short as possible and printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub, dead_code)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tank_engine::command::{Command, Condition, Delete, Request, RequestId, Write};
use tank_engine::engine::Engine;
use tank_engine::entry::Entry;
use tank_engine::key::{Component, Key};
use tank_engine::machine::StateStore;
use tank_engine::outcome::{Outcome, Refusal};
use tank_engine::snapshot::{Frame, SnapshotData, SnapshotReceiver};
use tank_engine::state::{Digest, State};
use tank_engine::storage::Directory;
use tank_engine::view::View;

use support::{LIMIT, open, submit};

type Place = Vec<Component>;

/// What a store is, in the simplest form.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: BTreeMap<Place, Value>,
    revision: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Value {
    payload: Vec<u8>,
    revision: u64,
    create_revision: u64,
    version: u64,
}

#[derive(Clone, Debug)]
enum Verb {
    Put(Vec<u8>),
    Create(Vec<u8>),
    Update(Vec<u8>),
    Delete,
}

#[derive(Clone, Debug)]
struct Ask {
    verb: Verb,
    place: Place,
    condition: Condition,
}

/// What becomes of the store between its commands.
#[derive(Clone, Debug)]
enum Step {
    Commands(Vec<Ask>),
    Restart,
    Transfer,
}

/// An outcome in the model's terms.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Done(u64),
    Exists(Value),
    NotFound,
    Conflict(Option<Value>),
}

impl Model {
    fn apply(&mut self, ask: &Ask) -> Answer {
        let found = self.entries.get(&ask.place).cloned();
        let conflict = match &ask.condition {
            Condition::Always => false,
            Condition::RevisionIs(revision) => found.as_ref().map_or(0, |value| value.revision) != *revision,
            Condition::PayloadIs(payload) => found.as_ref().is_none_or(|value| value.payload != payload[..]),
        };
        let payload = match (&ask.verb, &found) {
            (Verb::Create(_), Some(value)) => return Answer::Exists(value.clone()),
            (Verb::Update(_), None) => return Answer::NotFound,
            _ if conflict => return Answer::Conflict(found),
            (Verb::Delete, _) => return self.delete(&ask.place),
            (Verb::Put(payload) | Verb::Create(payload) | Verb::Update(payload), _) => payload.clone(),
        };
        self.revision += 1;
        let revision = self.revision;
        let (create_revision, version) = found.map_or((revision, 1), |old| (old.create_revision, old.version + 1));
        self.entries.insert(ask.place.clone(), Value { payload, revision, create_revision, version });
        Answer::Done(revision)
    }

    fn delete(&mut self, place: &Place) -> Answer {
        let before = self.entries.len();
        self.entries.retain(|path, _| !path.starts_with(place));
        self.revision += u64::from(self.entries.len() < before);
        Answer::Done(self.revision)
    }

    /// Compares with what a member shows.
    fn check(&self, entries: &imbl::OrdMap<Key, Arc<Entry>>, revision: u64, digest: u64) -> Result<(), TestCaseError> {
        let found: Vec<_> = entries.iter().map(|(key, entry)| (key.components().unwrap(), value(entry))).collect();
        let wanted: Vec<_> = self.entries.iter().map(|(place, value)| (place.clone(), value.clone())).collect();
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(revision, self.revision);
        let mut fresh = Digest::default();
        entries.values().for_each(|entry| fresh.add(entry.hash()));
        prop_assert_eq!(digest, fresh.value(), "the digest that is kept up, and one made anew");
        Ok(())
    }

    fn check_view(&self, view: &View) -> Result<(), TestCaseError> {
        self.check(&view.entries, view.revision, view.digest)?;
        let bytes = |(place, value): (&Place, &Value)| Key::of(place).as_bytes().len() + value.payload.len();
        prop_assert_eq!(view.bytes, self.entries.iter().map(bytes).sum::<usize>() as u64);
        for place in self.entries.keys().take(3) {
            let below = self.entries.keys().filter(|path| path.starts_with(place)).cloned().collect::<Vec<_>>();
            let found: Vec<_> = view.subtree(&Key::of(place)).map(|(key, _)| key.components().unwrap()).collect();
            prop_assert_eq!(found, below, "the subtree of {:?}", place);
        }
        Ok(())
    }
}

fn value(entry: &Entry) -> Value {
    let Entry { payload, revision, create_revision, version, .. } = entry;
    Value {
        payload: payload.in_memory().unwrap().to_vec(),
        revision: *revision,
        create_revision: *create_revision,
        version: *version,
    }
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done { revision } => Answer::Done(revision),
        Outcome::Refused(Refusal::Exists(found)) => Answer::Exists(value(&found.entry)),
        Outcome::Refused(Refusal::NotFound) => Answer::NotFound,
        Outcome::Refused(Refusal::Conflict(found)) => Answer::Conflict(found.map(|found| value(&found.entry))),
        other => panic!("no command of the model gives {other:?}"),
    }
}

fn command(ask: &Ask) -> Command {
    let (key, condition) = (Key::of(&ask.place), ask.condition.clone());
    let write = |payload: &[u8]| {
        let payload = Bytes::copy_from_slice(payload);
        Write { condition: condition.clone(), ..Write::new(key.clone(), payload) }
    };
    match &ask.verb {
        Verb::Put(payload) => Command::Put(write(payload)),
        Verb::Create(payload) => Command::Create(write(payload)),
        Verb::Update(payload) => Command::Update(write(payload)),
        Verb::Delete => Command::Delete(Delete { key, condition }),
    }
}

/// Few names, so that commands meet; those that an encoding could confuse among them.
fn component() -> impl Strategy<Value = Component> {
    let text = prop::sample::select(vec![&b"a"[..], b"b", b"ab", b"", b"\0", b"\x01", b"a\0", b"\x01\x01", b"\xff"]);
    (any::<bool>(), text).prop_map(
        |(atom, text)| {
            if atom { Component::Atom(text.to_vec()) } else { Component::String(text.to_vec()) }
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    let payload = || prop::collection::vec(any::<u8>(), 0..6);
    let verb = prop_oneof![
        4 => payload().prop_map(Verb::Put),
        2 => payload().prop_map(Verb::Create),
        2 => payload().prop_map(Verb::Update),
        2 => Just(Verb::Delete),
    ];
    let expected = prop::sample::select(vec![&b""[..], b"\0", b"\x01"]);
    let condition = prop_oneof![
        6 => Just(Condition::Always),
        2 => (0u64..12).prop_map(Condition::RevisionIs),
        1 => expected.prop_map(|payload| Condition::PayloadIs(Bytes::from_static(payload))),
    ];
    // The root only seldom: deleting it deletes all.
    let place = prop_oneof![1 => Just(Vec::new()), 20 => prop::collection::vec(component(), 1..4)];
    (verb, place, condition).prop_map(|(verb, place, condition)| Ask { verb, place, condition })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(ask(), 1..40).prop_map(Step::Commands),
        2 => Just(Step::Restart),
        1 => Just(Step::Transfer),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    let failures = Box::new(FileFailurePersistence::Direct("tests/model.proptest-regressions"));
    ProptestConfig { cases, max_shrink_iters: 500, failure_persistence: Some(failures), ..ProptestConfig::default() }
}

fn histories() -> u32 {
    std::env::var("TANK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn the_state_does_what_the_model_does(asks in prop::collection::vec(ask(), 1..80)) {
        let (mut model, mut state) = (Model::default(), State::default());
        for (number, ask) in (0..).zip(&asks) {
            let id = RequestId { client: 1, sequence: number, resolved_below: number };
            let applied = state.apply(&Request { id, time_ms: number, command: command(ask) }, number);
            prop_assert_eq!(answer(applied.outcome), model.apply(ask), "command {}: {:?}", number, ask);
        }
        model.check(&state.entries, state.revision, state.digest.value())?;
    }
}

proptest! {
    #![proptest_config(config(histories()))]

    #[test]
    fn the_engine_does_what_the_model_does(steps in prop::collection::vec(step(), 1..8)) {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut model = Model::default();
        let mut engine = open(here.path());
        for step in &steps {
            match step {
                Step::Commands(asks) => commands(&engine, &mut model, asks)?,
                Step::Restart => {
                    engine.close().unwrap();
                    engine = open(here.path());
                }
                Step::Transfer => {
                    engine.close().unwrap();
                    transfer(here.path(), there.path(), &model)?;
                    engine = open(here.path());
                }
            }
            model.check_view(&engine.authoritative_view().unwrap().expect("readable once it is open"))?;
        }
        engine.close().unwrap();
    }
}

/// Runs commands, many at a time, and compares the outcomes.
fn commands(engine: &Engine, model: &mut Model, asks: &[Ask]) -> Result<(), TestCaseError> {
    let waiting: Vec<_> = asks.iter().map(|ask| submit(engine, command(ask)).unwrap()).collect();
    for (ask, outcome) in asks.iter().zip(waiting) {
        let outcome = outcome.recv_timeout(LIMIT).expect("an answer in time").unwrap();
        prop_assert_eq!(answer(outcome), model.apply(ask), "{:?}", ask);
    }
    Ok(())
}

/// Sends the state of the closed store in `from` to the member in `to`, frame by frame.
fn transfer(from: &Path, to: &Path, model: &Model) -> Result<(), TestCaseError> {
    let from = Directory::open(from, "tank").unwrap();
    let to = Directory::open(to, "tank").unwrap();
    {
        let source = StateStore::open(Arc::clone(&from.db), &from.path).unwrap();
        let target = StateStore::open(Arc::clone(&to.db), &to.path).unwrap();
        let (sent, sent_header) = source.load(&Arc::default()).unwrap();
        let pinned = source.pin().unwrap();
        let mut receiver = SnapshotReceiver::new(&to.path).unwrap();
        let mut received = None;
        for frame in pinned.frames().unwrap() {
            let frame = Frame::decode(&frame.unwrap().encode()).unwrap();
            prop_assert!(received.is_none(), "a frame behind the last one");
            received = receiver.accept(&frame).unwrap();
        }
        let received = SnapshotData::Received(received.expect("a last frame"));
        let (target, state, header) = target.install(received, sent_header.applied, &Arc::default()).unwrap();
        prop_assert_eq!(&header, &sent_header);
        prop_assert_eq!(&state.sessions, &sent.sessions);
        model.check(&state.entries, state.revision, state.digest.value())?;
        let (again, again_header) = target.load(&Arc::default()).unwrap();
        prop_assert_eq!((again.digest, again.revision, again_header), (state.digest, state.revision, header));
    }
    from.close().unwrap();
    to.close().unwrap();
    Ok(())
}
