//! Commands that look at much keep no other task from running: a probe on the store's runtime
//! measures how late tasks are woken meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Compare, Condition, Delete, Number, Op, Relation, Txn, Write};
use tank_engine::engine::Engine;
use tank_engine::key::{Component, Key};
use tank_engine::outcome::{Outcome, Refusal, Response};
use tank_sim::wait;

use crate::support::{LIMIT, open, submit, write};

/// How late a task may be woken.
const DELAY_MAX: Duration = Duration::from_millis(20);

const CHILDREN: u64 = 100_000;

fn path(names: &[&str]) -> Key {
    Key::of(&names.iter().map(|name| Component::String(name.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn value(key: Key) -> Write {
    Write::new(key, Bytes::from_static(b"value"))
}

fn txn(compare: Vec<Compare>, then: Vec<Op>) -> Command {
    Command::Txn(Txn { compare, then, otherwise: vec![] })
}

/// A value at `parent`, and children.
fn fill(engine: &Engine, parent: &str) {
    write(engine, Command::Put(value(path(&[parent])))).unwrap();
    let numbers: Vec<_> = (0..CHILDREN).collect();
    for numbers in numbers.chunks(1_000) {
        let put = |n: &u64| Op::Put(value(path(&[parent, &n.to_string()])));
        let written = write(engine, txn(vec![], numbers.iter().map(put).collect()));
        assert!(matches!(written, Ok(Outcome::Txn { succeeded: true, .. })), "{:?}", written.err());
    }
}

/// Applies commands, many at a time, and looks at each outcome; no task may be late meanwhile.
fn apply_all(engine: &Engine, what: &str, commands: Vec<Command>, check: impl Fn(Outcome)) {
    let probe = engine.probe().unwrap();
    wait::until("the probe", LIMIT, || probe.looks(), |looks| *looks > 10).unwrap();
    let _ = probe.take_worst();
    let (began, count) = (Instant::now(), commands.len());
    let waiting: Vec<_> = commands.into_iter().map(|command| submit(engine, command).unwrap()).collect();
    for outcome in waiting {
        check(outcome.recv_timeout(LIMIT).expect("an answer in time").unwrap());
    }
    let (took, worst, looks) = (began.elapsed(), probe.take_worst(), probe.looks());
    eprintln!("{count} {what} took {took:?}; a task was woken up to {worst:?} late, of {looks} looks");
    assert!(worst <= DELAY_MAX, "{what}: a task was woken {worst:?} late");
}

#[test]
fn refusals_that_tell_of_100_000_children_delay_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    fill(&engine, "t");
    let creates = (0..512).map(|_| Command::Create(value(path(&["t"])))).collect();
    apply_all(&engine, "conflicting creates", creates, |outcome| {
        assert!(matches!(&outcome, Outcome::Refused(Refusal::Exists(found)) if found.child_count == CHILDREN));
    });
    let stale = || Condition::RevisionIs(1_000_000);
    let conditional = (0..256).flat_map(|_| {
        let write = Write { condition: stale(), ..value(path(&["t"])) };
        [Command::Put(write), Command::Delete(Delete { condition: stale(), ..path(&["t"]).into() })]
    });
    apply_all(&engine, "writes with a stale revision", conditional.collect(), |outcome| {
        let Outcome::Refused(Refusal::Conflict(Some(found))) = outcome else { panic!("{outcome:?}") };
        assert_eq!(found.child_count, CHILDREN);
    });
    // A child more, a child less: what is told is what there is.
    write(&engine, Command::Put(value(path(&["t", "one more", "below"])))).unwrap();
    let one_more = write(&engine, Command::Create(value(path(&["t"])))).unwrap();
    assert!(matches!(one_more, Outcome::Refused(Refusal::Exists(found)) if found.child_count == CHILDREN + 1));
    engine.close().unwrap();
}

#[test]
fn comparisons_over_100_000_entries_delay_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    fill(&engine, "t");
    let compares = [
        Compare::Below { prefix: path(&["t"]), relation: Relation::Greater, operand: 0 },
        Compare::Number { key: path(&["t"]), number: Number::ChildCount, relation: Relation::Equal, operand: CHILDREN },
    ];
    let commands =
        (0..32).flat_map(|_| compares.clone().map(|compare| txn(vec![compare], vec![Op::Get(path(&["t"]))])));
    apply_all(&engine, "comparisons", commands.collect(), |outcome| {
        let Outcome::Txn { succeeded, responses, .. } = outcome else { panic!("{outcome:?}") };
        assert!(succeeded);
        assert!(matches!(&responses[..], [Response::Got(Some(found))] if found.child_count == CHILDREN));
    });
    // A hundred million entries to look at, by one command: seconds, for which nothing else would be applied.
    let below = Compare::Below { prefix: path(&["t"]), relation: Relation::Greater, operand: 0 };
    let began = Instant::now();
    let outcome = write(&engine, txn(vec![below; 1_024], vec![])).unwrap();
    assert!(matches!(outcome, Outcome::Refused(Refusal::TooManyLooks(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    engine.close().unwrap();
}
