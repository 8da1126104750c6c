//! Random commands against a model: maps in memory. Every outcome, revision, version and lease is
//! compared, and the past as far as it is kept, through restarts, purges of the log and transfers of
//! the state to another member.
//!
//! `TANK_CASES` chooses how many histories the engine plays (100 unless told: each opens it a few
//! times, which takes most of the time). A failing one is made as short as possible and printed.

mod ask;
mod plain;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use tank_engine::command::{Request, RequestId};
use tank_engine::engine::{Engine, Position};
use tank_engine::entries::Entries;
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::machine::StateStore;
use tank_engine::nodes::Nodes;
use tank_engine::snapshot::{Frame, SnapshotData, SnapshotReceiver};
use tank_engine::state::{Digest, Leases, State};
use tank_engine::storage::Directory;
use tank_engine::view::View;

use crate::support::{LIMIT, open, submit};
use ask::{answer, ask, command, held, lease_name, value};
use plain::{Ask, Model};

/// What becomes of the store between its commands.
#[derive(Clone, Debug)]
enum Step {
    Commands(Vec<Ask>),
    Restart,
    Transfer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(ask(), 1..40).prop_map(Step::Commands),
        2 => Just(Step::Restart),
        1 => Just(Step::Transfer),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    let failures = Box::new(FileFailurePersistence::Direct("tests/stores/model/proptest-regressions"));
    ProptestConfig { cases, max_shrink_iters: 500, failure_persistence: Some(failures), ..ProptestConfig::default() }
}

fn histories() -> u32 {
    std::env::var("TANK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn the_state_does_what_the_model_does(asks in prop::collection::vec(ask(), 1..80)) {
        let (mut model, mut state) = (Model::default(), State::default());
        for (number, ask) in (0..).zip(&asks) {
            let id = RequestId { client: 1, sequence: number, resolved_below: number };
            let applied = state.apply(&Request { id, time_ms: number, command: command(ask, &model), seen_ms: 0 }, number);
            prop_assert_eq!(answer(applied.outcome), model.apply(ask), "command {}: {:?}", number, ask);
        }
        check(&model, &state.entries, &state.leases, state.digest.value())?;
        check_nodes(&state.nodes, &state.entries)?;
        prop_assert_eq!((state.revision, state.compacted), (model.revision, model.compacted));
    }
}

#[test]
fn the_engine_does_what_the_model_does() {
    play(histories());
}

#[test]
#[ignore = "minutes"]
fn the_engine_does_what_the_model_does_a_thousand_times() {
    play(histories().max(1_000));
}

fn play(histories: u32) {
    let steps = prop::collection::vec(step(), 1..8);
    let played = TestRunner::new(config(histories)).run(&steps, |steps| history(&steps));
    played.unwrap_or_else(|failed| panic!("{failed}"));
}

fn history(steps: &[Step]) -> Result<(), TestCaseError> {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut model = Model::default();
    let mut engine = open(here.path());
    for step in steps {
        match step {
            Step::Commands(asks) => commands(&engine, &mut model, asks)?,
            Step::Restart => {
                engine.close().unwrap();
                engine = open(here.path());
            }
            Step::Transfer => {
                engine.close().unwrap();
                transfer(here.path(), there.path(), &model)?;
                // What was received is a store like the one that was sent, also as to its past.
                let received = open(there.path());
                check_past(&received, &model)?;
                received.close().unwrap();
                engine = open(here.path());
            }
        }
        check_view(&model, &engine.authoritative_view().unwrap().expect("readable once it is open"))?;
        check_past(&engine, &model)?;
    }
    engine.close().unwrap();
    Ok(())
}

/// Runs commands, many at a time, and compares the outcomes.
fn commands(engine: &Engine, model: &mut Model, asks: &[Ask]) -> Result<(), TestCaseError> {
    let waiting: Vec<_> = asks
        .iter()
        .map(|ask| {
            let outcome = submit(engine, command(ask, model)).unwrap();
            (ask, model.apply(ask), outcome)
        })
        .collect();
    for (ask, expected, outcome) in waiting {
        let outcome = outcome.recv_timeout(LIMIT).expect("an answer in time").unwrap();
        prop_assert_eq!(answer(outcome), expected, "{:?}", ask);
    }
    Ok(())
}

/// Compares with what a member shows.
fn check(model: &Model, entries: &Entries, leases: &Leases, digest: u64) -> Result<(), TestCaseError> {
    let found: Vec<_> = entries.iter().map(|(key, entry)| (key.components().unwrap(), value(entry))).collect();
    let wanted: Vec<_> = model.entries.iter().map(|(place, value)| (place.clone(), value.clone())).collect();
    prop_assert_eq!(found, wanted);
    let found: Vec<_> = leases.iter().map(|(name, lease)| (name.clone(), held(lease))).collect();
    let wanted: Vec<_> = model.leases.iter().map(|(name, held)| (lease_name(*name), held.clone())).collect();
    prop_assert_eq!(found, wanted);
    let mut fresh = Digest::default();
    entries.values().for_each(|entry| fresh.add(entry.hash()));
    leases.values().for_each(|lease| fresh.add(lease.hash()));
    prop_assert_eq!(digest, fresh.value(), "the digest that is kept up, and one made anew");
    Ok(())
}

/// The records of nodes, whose counts of children are those of the entries.
fn check_nodes(nodes: &Nodes, entries: &Entries) -> Result<(), TestCaseError> {
    let counted = |nodes: &Nodes| {
        let counted = nodes.records().filter(|(_, node)| node.children > 0);
        counted.map(|(key, node)| (key.clone(), node.children)).collect::<Vec<_>>()
    };
    prop_assert_eq!(counted(nodes), counted(&Nodes::of(entries)));
    for (key, node) in nodes.records().filter(|(_, node)| node.children == 0) {
        prop_assert!(
            key.is_root() || entries.contains_key(key),
            "a node without entry and children: {:?}, {:?}",
            key,
            node
        );
    }
    Ok(())
}

fn check_view(model: &Model, view: &View) -> Result<(), TestCaseError> {
    check(model, &view.entries, &view.leases, view.digest.wrapping_sub(view.nodes.digest().value()))?;
    check_nodes(&view.nodes, &view.entries)?;
    prop_assert_eq!((view.revision, view.compacted), (model.revision, model.compacted));
    let bytes = |(place, value): (&plain::Place, &plain::Value)| Key::of(place).as_bytes().len() + value.payload.len();
    prop_assert_eq!(view.bytes, model.entries.iter().map(bytes).sum::<usize>() as u64);
    for place in model.entries.keys().take(3) {
        let below = model.entries.keys().filter(|path| path.starts_with(place)).cloned().collect::<Vec<_>>();
        let found: Vec<_> = view.subtree(&Key::of(place)).map(|(key, _)| key.components().unwrap()).collect();
        prop_assert_eq!(found, below, "the subtree of {:?}", place);
    }
    Ok(())
}

/// Some entries as they were at each revision that is kept, and that the others are refused.
fn check_past(engine: &Engine, model: &Model) -> Result<(), TestCaseError> {
    for (revision, entries) in &model.past {
        for place in entries.keys().chain(model.entries.keys()).step_by(3).take(4) {
            let found = engine.entry_at(&Key::of(place), Position { history: None, revision: *revision });
            if *revision < model.compacted {
                prop_assert_eq!(found.err(), Some(EngineError::Compacted { min: model.compacted }), "{:?}", place);
            } else {
                let found = found.unwrap().map(|found| {
                    let payload = found.payload.unwrap().to_vec();
                    (found.entry.revision, found.entry.version, found.entry.lease, payload)
                });
                let wanted = entries.get(place).map(|v| (v.revision, v.version, v.lease, v.payload.clone()));
                prop_assert_eq!(found, wanted, "{:?} at {}", place, revision);
            }
        }
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
        check(model, &state.entries, &state.leases, state.digest.value())?;
        check_nodes(&state.nodes, &state.entries)?;
        prop_assert_eq!((state.revision, state.compacted), (model.revision, model.compacted));
        let (again, again_header) = target.load(&Arc::default()).unwrap();
        prop_assert_eq!((again.digest, again.revision, again_header), (state.digest, state.revision, header));
    }
    from.close().unwrap();
    to.close().unwrap();
    Ok(())
}
