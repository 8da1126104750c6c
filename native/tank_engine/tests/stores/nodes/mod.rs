//! Nodes without a payload, versions of child lists, and conditions that keep nodes: against a model, over restarts,
//! backups and snapshots, and with as many of them as anybody has.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseError};
use tank_engine::backup::Progress;
use tank_engine::command::{
    Clear, ClearMany, Command, Delete, DeleteMany, How, Op as TxnOp, Relation, Request, RequestId, Txn, Write,
};
use tank_engine::engine::Engine;
use tank_engine::key::{Component, Key};
use tank_engine::nodes::{KeepCondition, KeepWhile, NO_PAYLOAD, Tree};
use tank_engine::outcome::{NodeAfter, NodeChange, Outcome, Refusal, Response};
use tank_engine::pattern::{Condition as NodeCondition, Part, Pattern};
use tank_engine::state::{Applied, NodeNumbers, State};
use tank_engine::view::View;

use crate::support::{LIMIT, open, write};
use model::{After, Condition, Keep, Model, Node, NotKept, Op, Place};

fn name(name: u8) -> Component {
    Component::String(vec![b'a' + name])
}

fn key(place: &[u8]) -> Key {
    Key::of(&place.iter().map(|one| name(*one)).collect::<Vec<_>>())
}

fn place_of(key: &Key) -> Place {
    let names = key.components().unwrap();
    names.iter().map(|name| if let Component::String(text) = name { text[0] - b'a' } else { unreachable!() }).collect()
}

fn is(one: u8) -> NodeCondition {
    NodeCondition::Is(key(&[one]).as_bytes().to_vec())
}

fn keep_while(keep: &[Keep]) -> KeepWhile {
    let conditions = keep.iter().map(|one| {
        let named = one.path.iter().map(|name| Part::one(name.map_or(NodeCondition::Any, is)));
        let deep = one.is_deep.then(|| Part::many(NodeCondition::Any));
        KeepCondition { pattern: Pattern { parts: named.chain(deep).collect() }, condition: condition(&one.condition) }
    });
    KeepWhile::new(conditions.collect(), Bytes::from_static(b"source"))
}

fn condition(condition: &Condition) -> NodeCondition {
    let not = |one| NodeCondition::Not(Box::new(one));
    match condition {
        Condition::Exists => NodeCondition::Any,
        Condition::Missing => not(NodeCondition::Any),
        Condition::HasData => NodeCondition::HasData,
        Condition::Bare => not(NodeCondition::HasData),
        Condition::Data(payload) => NodeCondition::Payload(Bytes::from(vec![*payload])),
        Condition::ChildCount(relation, n) => NodeCondition::ChildCount(*relation, *n),
        Condition::PayloadVersion(relation, n) => NodeCondition::PayloadVersion(*relation, *n),
        Condition::ChildListVersion(relation, n) => NodeCondition::ChildListVersion(*relation, *n),
    }
}

fn written(place: &[u8], payload: u8, how: How) -> Write {
    Write { how, ..Write::new(key(place), Bytes::from(vec![payload])) }
}

fn how(unless_same: bool, keep: &Option<Vec<Keep>>) -> How {
    How { unless_same, keep_while: keep.as_deref().map(keep_while), returns: true, ..How::default() }
}

fn bare(keep: &Option<Vec<Keep>>) -> How {
    How { kind: NO_PAYLOAD, ..how(false, keep) }
}

fn command(op: &Op) -> Command {
    match op {
        Op::Put(place, payload, model::How { unless_same, keep }) => {
            Command::Put(written(place, *payload, how(*unless_same, keep)))
        }
        Op::PutNode(place, keep) => Command::Put(written(place, 0, bare(keep))),
        Op::Delete(place) => Command::Delete(Delete { returns: true, ..key(place).into() }),
        Op::Clear(place, keep_nodes) => {
            let parts = place.iter().map(|one| Part::one(is(*one))).collect();
            Command::ClearMany(ClearMany { pattern: Pattern { parts }, keep_nodes: *keep_nodes, returns: true })
        }
        Op::DeleteChildren(place) => {
            let parts = place.iter().map(|one| is(*one)).chain([NodeCondition::Any]).map(Part::one).collect();
            Command::DeleteMany(DeleteMany { pattern: Pattern { parts }, returns: true })
        }
    }
}

/// The same as operations of a transaction; what it has no operation for is left out.
fn txn_op(op: &Op) -> Option<TxnOp> {
    match (op, command(op)) {
        (_, Command::Put(write)) => Some(TxnOp::Put(write)),
        (_, Command::Delete(delete)) => Some(TxnOp::Delete(delete)),
        (Op::Clear(place, keep_node), _) => {
            Some(TxnOp::Clear(Clear { key: key(place), keep_node: *keep_node, returns: true }))
        }
        _ => None,
    }
}

/// Gives each command the next sequence.
#[derive(Default)]
struct Client(State, u64);

impl Client {
    fn apply(&mut self, command: Command) -> Applied {
        self.1 += 1;
        let id = RequestId { client: 1, sequence: self.1, resolved_below: self.1 };
        self.0.apply(&Request { id, time_ms: 0, command, seen_ms: 0 }, 1)
    }
}

fn check_told(model: &Model, changes: &[NodeChange]) -> Result<(), TestCaseError> {
    let told: Vec<_> = changes
        .iter()
        .map(|change| {
            let before = change.before.as_ref().map(|before| {
                let payload = before.found.as_ref().map(|found| found.payload.as_ref().unwrap()[0]);
                (payload, before.payload_version, before.child_list_version, before.child_count)
            });
            match &change.after {
                NodeAfter::There { key, .. } => (place_of(key), before, After::There),
                NodeAfter::Deleted => (place_of(&change.before.as_ref().unwrap().key), before, After::Deleted),
                NodeAfter::NotKept => (place_of(&change.before.as_ref().unwrap().key), before, After::NotKept),
            }
        })
        .collect();
    let short: Vec<_> = told
        .iter()
        .map(|(place, before, after)| (place.clone(), before.map(|b| (b.0, b.1, b.2)), after.clone()))
        .collect();
    let wanted: Vec<_> = model
        .told
        .iter()
        .map(|(place, (before, after))| {
            let before = before.as_ref().map(|node| (node.payload, node.payload_version, node.child_list_version));
            (place.clone(), before, after.clone())
        })
        .collect();
    prop_assert_eq!(short, wanted);
    for change in changes {
        if let NodeAfter::There { key, payload_version, child_list_version, child_count } = &change.after {
            let (place, found) = (place_of(key), (*payload_version, *child_list_version, *child_count));
            let node = &model.nodes[&place];
            prop_assert_eq!(found, (node.payload_version, node.child_list_version, model.child_count(&place)));
        }
    }
    Ok(())
}

fn check_nodes(model: &Model, tree: Tree<'_>) -> Result<(), TestCaseError> {
    let payload = |key: &Key| tree.entries.get(key).map(|entry| entry.payload.in_memory().unwrap()[0]);
    let found = |key: &Key| {
        let keep = tree.nodes.get(key).and_then(|node| node.keep_while.clone());
        let numbers = (tree.payload_version(key), tree.child_list_version(key), tree.child_count(key));
        (place_of(key), payload(key), numbers, keep)
    };
    let nodes: Vec<_> =
        tree.subtree(&Key::default()).map(|(key, _)| found(key)).filter(|one| !one.0.is_empty()).collect();
    let root = found(&Key::default());
    let wanted = |(place, node): (&Place, &Node)| {
        let numbers = (node.payload_version, node.child_list_version, model.child_count(place));
        let keep = (!node.keep.is_empty()).then(|| keep_while(&node.keep));
        (place.clone(), node.payload, numbers, keep)
    };
    let mut all = model.nodes.iter().map(wanted);
    prop_assert_eq!(root, all.next().unwrap());
    prop_assert_eq!(nodes, all.collect::<Vec<_>>());
    let backwards: Vec<_> = tree.subtree(&Key::default()).rev().map(|(key, _)| place_of(key)).collect();
    let mut forwards: Vec<_> = tree.subtree(&Key::default()).map(|(key, _)| place_of(key)).collect();
    forwards.reverse();
    prop_assert_eq!(backwards, forwards);
    let everything = Pattern { parts: vec![Part::many(NodeCondition::Any)] };
    let walked: Vec<_> = everything.walk(tree, None).map(|node| place_of(&node.key)).collect();
    prop_assert_eq!(walked, model.nodes.keys().skip(1).cloned().collect::<Vec<_>>());
    Ok(())
}

/// The numbers of all nodes.
fn numbers(tree: Tree<'_>) -> BTreeMap<Key, NodeNumbers> {
    let of = |key: &Key| NodeNumbers {
        payload_version: tree.payload_version(key),
        child_list_version: tree.child_list_version(key),
        child_count: tree.child_count(key),
    };
    let below = tree.subtree(&Key::default()).map(|(key, _)| (key.clone(), of(key)));
    below.chain([(Key::default(), of(&Key::default()))]).collect()
}

/// What became of each node is told: by what became of its entry, or by itself.
fn check_steps(before: Tree<'_>, after: Tree<'_>, applied: &Applied) -> Result<(), TestCaseError> {
    let (before, after) = (numbers(before), numbers(after));
    let lists = |numbers: &NodeNumbers| (numbers.child_list_version, numbers.child_count);
    for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (was, is) = (before.get(key), after.get(key));
        let step = applied.nodes.iter().find(|step| step.key == *key);
        let change = applied.changes.iter().find(|change| change.key == *key);
        match (step, change) {
            (Some(step), _) => {
                prop_assert_eq!(step.after.as_ref(), is, "{:?}", key);
                // It may have been written before its children went.
                prop_assert_eq!(step.before.as_ref().map(lists), was.map(lists), "{:?}", key);
            }
            (None, Some(change)) => {
                prop_assert_eq!((change.previous.is_some(), change.entry.is_some()), (was.is_some(), is.is_some()));
                let lists_before = was.map_or((1, 0), lists);
                prop_assert!(is.is_none_or(|is| lists(is) == lists_before), "{:?}: {:?} {:?}", key, was, is);
            }
            (None, None) => prop_assert_eq!(was, is, "{:?} is not told", key),
        }
    }
    prop_assert!(applied.nodes.is_sorted_by(|one, other| one.key < other.key));
    Ok(())
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![1 => Just(vec![]), 20 => prop::collection::vec(0u8..3, 1..4)]
}

fn keep() -> impl Strategy<Value = Keep> {
    use Relation::{Equal, Greater, Less, NotEqual};
    let relation = || prop::sample::select(vec![Equal, NotEqual, Less, Greater]);
    let condition = prop_oneof![
        4 => Just(Condition::Exists),
        1 => Just(Condition::Missing),
        3 => Just(Condition::HasData),
        1 => Just(Condition::Bare),
        1 => (0u8..3).prop_map(Condition::Data),
        2 => (relation(), 0u64..3).prop_map(|(relation, n)| Condition::ChildCount(relation, n)),
        1 => (relation(), 1u64..4).prop_map(|(relation, n)| Condition::PayloadVersion(relation, n)),
        1 => (relation(), 1u64..4).prop_map(|(relation, n)| Condition::ChildListVersion(relation, n)),
    ];
    let path = prop::collection::vec(prop::option::weighted(0.8, 0u8..3), 1..4);
    (path, prop::bool::weighted(0.1), condition).prop_map(|(path, is_deep, condition)| Keep {
        path,
        is_deep,
        condition,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let keep = || prop::option::weighted(0.5, prop::collection::vec(keep(), 0..3));
    prop_oneof![
        10 => (place(), 0u8..3, any::<bool>(), keep()).prop_map(|(place, payload, unless_same, keep)| {
            Op::Put(place, payload, model::How { unless_same, keep })
        }),
        3 => (place(), keep()).prop_map(|(place, keep)| Op::PutNode(place, keep)),
        4 => place().prop_map(Op::Delete),
        2 => (place(), any::<bool>()).prop_map(|(place, keep_node)| Op::Clear(place, keep_node)),
        1 => place().prop_map(Op::DeleteChildren),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    let failures = Box::new(FileFailurePersistence::Direct("tests/stores/nodes/proptest-regressions"));
    ProptestConfig { cases, max_shrink_iters: 5_000, failure_persistence: Some(failures), ..ProptestConfig::default() }
}

fn refused(outcome: &Outcome) -> Option<NotKept> {
    match outcome {
        Outcome::Refused(Refusal::KeepWhile { condition, is_missing, .. }) => {
            Some(NotKept(usize::try_from(*condition).unwrap(), *is_missing))
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn nodes_come_and_go_as_in_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let (mut model, mut client) = (Model::default(), Client::default());
        for (number, op) in ops.iter().enumerate() {
            let before = client.0.clone();
            let applied = client.apply(command(op));
            match model.apply(op) {
                Ok(()) => {
                    let Outcome::Changed { nodes, .. } = &applied.outcome else { panic!("{number}: {op:?}: {:?}", applied.outcome) };
                    check_told(&model, nodes)?;
                }
                Err(why) => {
                    prop_assert_eq!(refused(&applied.outcome), Some(why), "{}: {:?}", number, op);
                    prop_assert_eq!(client.0.whole_digest(), before.whole_digest());
                    prop_assert_eq!(client.0.revision, before.revision);
                }
            }
            check_nodes(&model, client.0.tree())?;
            check_steps(before.tree(), client.0.tree(), &applied)?;
        }
        let mut again = State::default();
        client.0.entries.iter().for_each(|(key, entry)| {
            let record = entry.to_record(&entry.payload.in_memory().unwrap());
            again.load(key, tank_engine::entry::Entry::from_record(key, &record).unwrap());
        });
        client.0.nodes.records().for_each(|(key, node)| again.load_node(key, node.clone()));
        prop_assert_eq!(again.whole_digest(), client.0.whole_digest(), "loaded again");
        check_nodes(&model, again.tree())?;
    }

    #[test]
    fn a_transaction_does_it_operation_by_operation_or_not_at_all(ops in prop::collection::vec(prop::collection::vec(op(), 1..6), 1..12)) {
        let (mut model, mut client) = (Model::default(), Client::default());
        for ops in &ops {
            let then: Vec<TxnOp> = ops.iter().filter_map(txn_op).collect();
            let (mut after, mut failure, mut told) = (model.clone(), None, Vec::new());
            let mut view = View { entries: client.0.entries.clone(), nodes: client.0.nodes.clone(), revision: client.0.revision, ..View::default() };
            for op in ops.iter().filter(|op| txn_op(op).is_some()) {
                failure = after.apply(op).err();
                let scratch = view.with(&txn_op(op).unwrap());
                prop_assert_eq!(scratch.is_err(), failure.is_some());
                if failure.is_some() {
                    break;
                }
                let (next, response) = scratch.unwrap();
                let Response::Changed(changes) = response else { panic!("{response:?}") };
                check_told(&after, &changes)?;
                told.push(after.clone());
                view = next;
                check_nodes(&after, view.tree())?;
            }
            let before = (client.0.whole_digest(), client.0.revision);
            let applied = client.apply(Command::Txn(Txn { compare: vec![], then, otherwise: vec![] }));
            match (failure, applied.outcome) {
                (Some(why), outcome) => {
                    prop_assert_eq!(refused(&outcome), Some(why));
                    prop_assert_eq!((client.0.whole_digest(), client.0.revision), before);
                    prop_assert!(applied.changes.is_empty());
                }
                (None, Outcome::Txn { responses, .. }) => {
                    for (response, model) in responses.iter().zip(&told) {
                        let Response::Changed(changes) = response else { panic!("{response:?}") };
                        check_told(model, changes)?;
                    }
                    model = after;
                }
                (None, other) => panic!("{other:?}"),
            }
            check_nodes(&model, client.0.tree())?;
        }
    }
}

proptest! {
    #![proptest_config(config(25))]

    #[test]
    fn nodes_survive_restarts_and_backups(ops in prop::collection::vec(prop::collection::vec(op(), 1..30), 1..5)) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let (mut model, mut engine) = (Model::default(), open(&dir));
        for (number, ops) in ops.iter().enumerate() {
            for op in ops {
                let outcome = write(&engine, command(op)).unwrap();
                prop_assert_eq!(model.apply(op).err(), refused(&outcome));
            }
            check_nodes(&model, view(&engine).tree())?;
            let digest = view(&engine).digest;
            engine.close().unwrap();
            engine = open(&dir);
            prop_assert_eq!(view(&engine).digest, digest);
            check_nodes(&model, view(&engine).tree())?;
            if number == 0 {
                let other = restored(&engine, root.path());
                check_nodes(&model, view(&other).tree())?;
                other.close().unwrap();
            }
        }
        engine.close().unwrap();
    }
}

fn view(engine: &Engine) -> std::sync::Arc<View> {
    std::sync::Arc::clone(&engine.authoritative_view().unwrap().expect("readable once it is open"))
}

fn restored(engine: &Engine, root: &Path) -> Engine {
    let (file, dir) = (root.join("backup"), root.join("restored"));
    engine.backup(&file, &Progress::default()).unwrap();
    tank_engine::backup::restore(&file, &dir, None, "nonode@nohost", &Progress::default()).unwrap();
    open(&dir)
}

fn on(path: &[&str], condition: NodeCondition) -> KeepCondition {
    let part = |name: &&str| match *name {
        "*" => Part::one(NodeCondition::Any),
        name => Part::one(NodeCondition::Is(text(&[name]).as_bytes().to_vec())),
    };
    KeepCondition { pattern: Pattern { parts: path.iter().map(part).collect() }, condition }
}

fn text(path: &[&str]) -> Key {
    Key::of(&path.iter().map(|name| Component::String(name.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn kept(path: &[&str], conditions: Vec<KeepCondition>) -> Command {
    let keep_while = Some(KeepWhile::new(conditions, Bytes::new()));
    let how = How { keep_while, ..How::default() };
    Command::Put(Write { how, ..Write::new(text(path), Bytes::from_static(b"v")) })
}

fn put(path: &[&str]) -> Command {
    Command::Put(Write::new(text(path), Bytes::from_static(b"v")))
}

fn delete(path: &[&str]) -> Command {
    Command::Delete(Delete { returns: true, ..text(path).into() })
}

fn timed(client: &mut Client, command: Command) -> (Applied, Duration) {
    let begun = Instant::now();
    let applied = client.apply(command);
    (applied, begun.elapsed())
}

#[test]
fn thousands_of_dependents_go_in_less_than_a_second() {
    let mut c = Client::default();
    c.apply(put(&["queue"]));
    for number in 0..2_500 {
        c.apply(kept(&["bindings", &number.to_string()], vec![on(&["queue"], NodeCondition::Any)]));
    }
    let (applied, time) = timed(&mut c, delete(&["queue"]));
    let Outcome::Changed { nodes, .. } = applied.outcome else { panic!("{:?}", applied.outcome) };
    // With the node that they are below, which was made on the way.
    assert_eq!((nodes.len(), c.0.entries.len(), applied.changes.len()), (2_502, 0, 2_501));
    assert!(time < Duration::from_secs(1), "{time:?}");
}

#[test]
fn a_chain_of_ten_thousand_goes_without_recursion() {
    let mut c = Client::default();
    c.apply(put(&["0"]));
    for number in 1..=10_000 {
        let before = (number - 1).to_string();
        c.apply(kept(&[&number.to_string()], vec![on(&[&before], NodeCondition::HasData)]));
    }
    // On a stack that recursion of that depth would use up.
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let (applied, time) = timed(&mut c, delete(&["0"]));
        (applied.changes.len(), c.0.entries.len(), time)
    });
    let (changes, left, time) = thread.unwrap().join().unwrap();
    assert_eq!((changes, left), (10_001, 0));
    assert!(time < Duration::from_secs(1), "{time:?}");
}

/// As an exchange of RabbitMQ that deletes itself: it goes with its last binding.
#[test]
fn a_pattern_is_looked_at_when_the_path_that_it_begins_with_goes() {
    let mut c = Client::default();
    c.apply(put(&["x"]));
    for binding in ["b1", "b2"] {
        c.apply(put(&["x", "bindings", "queue", binding, "key"]));
    }
    let binding = on(&["x", "bindings", "*", "*", "*"], NodeCondition::HasData);
    c.apply(kept(&["x"], vec![binding]));
    c.apply(delete(&["x", "bindings", "queue", "b1", "key"]));
    assert!(c.0.entries.contains_key(&text(&["x"])));
    let applied = c.apply(delete(&["x", "bindings", "queue", "b2", "key"]));
    let Outcome::Changed { nodes, .. } = applied.outcome else { panic!("{:?}", applied.outcome) };
    let not_kept = nodes.iter().filter(|change| change.after == NodeAfter::NotKept).count();
    assert_eq!((nodes.len(), not_kept, c.0.entries.len(), c.0.nodes.len()), (5, 4, 0, 1));
}

#[test]
fn what_would_look_at_too_much_is_refused_and_changes_nothing() {
    let mut c = Client::default();
    c.apply(put(&["watched", "0"]));
    // Each one that goes makes all others be looked at.
    for number in 1..1_200 {
        let before = (number - 1).to_string();
        let own = on(&["watched", &before], NodeCondition::Any);
        let all = on(&["watched"], NodeCondition::ChildCount(Relation::Greater, 0));
        c.apply(kept(&["watched", &number.to_string()], vec![own, all]));
    }
    let before = (c.0.whole_digest(), c.0.revision, c.0.entries.len());
    let (applied, time) = timed(&mut c, delete(&["watched", "0"]));
    assert!(matches!(applied.outcome, Outcome::Refused(Refusal::TooManyConditions(_))), "{:?}", applied.outcome);
    assert!(applied.changes.is_empty() && applied.revision.is_none());
    assert_eq!((c.0.whole_digest(), c.0.revision, c.0.entries.len()), before);
    assert!(time < LIMIT, "{time:?}");
    // What does not make them all be looked at is not.
    c.apply(delete(&["watched"]));
    assert_eq!(c.0.entries.len(), 0);
}

#[test]
fn the_end_of_a_lease_takes_what_it_kept() {
    use tank_engine::command::LeaseCommand;
    let mut c = Client::default();
    let (name, holder) = (Bytes::from_static(b"lease"), Bytes::from_static(b"me"));
    let acquired = c.apply(Command::Lease(LeaseCommand::Acquire { name: name.clone(), holder, ttl_ms: 1_000 }));
    let Outcome::Granted(lease) = acquired.outcome else { panic!("{:?}", acquired.outcome) };
    let attached = Write { lease: lease.epoch, ..Write::new(text(&["leader"]), Bytes::from_static(b"me")) };
    c.apply(Command::Put(attached));
    c.apply(kept(&["work", "of", "leader"], vec![on(&["leader"], NodeCondition::HasData)]));
    let ended = c.apply(Command::Lease(LeaseCommand::Release { name, epoch: lease.epoch }));
    assert_eq!((ended.outcome, c.0.entries.len()), (Outcome::Done { revision: 4 }, 0));
}
