//! Nothing that takes long keeps a store's tasks from running, nor a scheduler that asks something: a probe on the
//! store's runtime measures how late tasks are woken, while there is much work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, How, Op, PutMany, Relation, Txn, Write};
use tank_engine::engine::{Engine, From};
use tank_engine::key::{Component, Key};
use tank_engine::outcome::Outcome;
use tank_engine::pattern::{Condition, Part, Pattern};
use tank_engine::probe::Probe;
use tank_engine::watch::{Budget, Cursor, Filter, Next};
use tank_sim::wait;

use crate::support::{LIMIT, open, write, write_all};

/// How late a task may be woken.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// For how long one call of a scheduler may take, on a machine that does something else as well.
const CALL_MAX: Duration = Duration::from_millis(50);

const IMPATIENT: Budget = Budget { revisions: 100, bytes: 1 << 20, look: 2_000, changes: 2_000, patient: false };

fn assert_never_late(probe: &Probe, during: &str) {
    let (worst, looks) = (probe.take_worst(), probe.looks());
    eprintln!("{during}: a task was woken up to {worst:?} late, of {looks} looks");
    assert!(looks > 10, "the probe must measure: {looks} looks");
    assert!(worst <= DELAY_MAX, "{during}: a task was woken {worst:?} late");
}

fn path(names: &[&str]) -> Key {
    Key::of(&names.iter().map(|name| Component::String(name.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn part_named(name: &str) -> Part {
    Part::one(Condition::Is(path(&[name]).as_bytes().to_vec()))
}

/// Puts `count` entries below `items`.
fn fill(engine: &Engine, count: usize) {
    let put = |n: usize| Op::Put(Write::new(path(&["items", &format!("{n:06}")]), Bytes::from_static(b"value")));
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(1_000) {
        let then = numbers.iter().map(|n| put(*n)).collect();
        let written = write(engine, Command::Txn(Txn { compare: vec![], then, otherwise: vec![] }));
        assert!(matches!(written, Ok(Outcome::Txn { succeeded: true, .. })), "{:?}", written.err());
    }
}

struct Watching {
    cursor: Cursor,
    woken: Arc<AtomicUsize>,
}

fn watch(engine: &Engine, filter: Filter) -> Watching {
    let woken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&woken);
    let wake = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let (cursor, _) = engine.watch(filter, From::Now, wake).unwrap();
    Watching { cursor, woken }
}

/// Asks again and again, as schedulers do, until it is told to end; returns the longest call.
fn ask(engine: &Engine, ended: &AtomicBool) -> Duration {
    let mut worst = Duration::ZERO;
    let watching = watch(engine, Filter::prefix(path(&["elsewhere"])));
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let next = watching.cursor.next(IMPATIENT).unwrap();
        worst = worst.max(began.elapsed());
        // What a dirty scheduler does, with patience.
        if matches!(next, Next::Large) {
            watching.cursor.next(Budget { patient: true, ..IMPATIENT }).unwrap();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    worst
}

/// Entries that one command changes, with so many watches of patterns that do not match them, each another one, and
/// as many of one that does.
fn watches_of_patterns(entries: usize, watches: usize) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    fill(&engine, entries);
    let pattern =
        |condition| Filter::pattern(Pattern { parts: vec![part_named("items"), Part::one(condition)] }).unwrap();
    let others: Vec<_> = (0..watches)
        .map(|n| {
            watch(
                &engine,
                pattern(Condition::All(vec![Condition::Any, Condition::Version(Relation::Greater, 10 + n as u64)])),
            )
        })
        .collect();
    let concerned: Vec<_> =
        (0..watches).map(|_| watch(&engine, pattern(Condition::Version(Relation::Greater, 1)))).collect();
    for watching in others.iter().chain(&concerned) {
        assert!(matches!(watching.cursor.next(IMPATIENT), Ok(Next::Idle(_))));
    }
    let probe = engine.probe().unwrap();
    wait::until("the probe", LIMIT, || probe.looks(), |looks| *looks > 10).unwrap();
    let _ = probe.take_worst();
    let ended = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&engine, &ended));
        let all = Pattern { parts: vec![part_named("items"), Part::one(Condition::Any)] };
        write(
            &engine,
            Command::PutMany(PutMany { pattern: all, payload: Bytes::from_static(b"changed"), how: How::default() }),
        )
        .unwrap();
        let woken = || concerned.iter().filter(|watching| watching.woken.load(Ordering::SeqCst) == 1).count();
        wait::until("the watches that it concerns", LIMIT, woken, |woken| *woken == watches).unwrap();
        // The others are looked at for much longer.
        write_all(&engine, (0..50).map(|n| crate::support::put(&format!("{n}"), b"meanwhile")));
        wait::until("looks meanwhile", LIMIT, || probe.looks(), |looks| *looks > 500).unwrap();
        ended.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert_never_late(&probe, "watches of patterns");
    eprintln!("the longest call took {longest:?}");
    assert!(longest <= CALL_MAX, "a scheduler was held for {longest:?}");
    assert!(others.iter().all(|watching| watching.woken.load(Ordering::SeqCst) == 0));
    engine.close().unwrap();
}

#[test]
fn watches_of_patterns_delay_no_task_and_hold_no_scheduler() {
    watches_of_patterns(20_000, 400);
}

#[test]
#[ignore = "long: a hundred thousand changes, and four thousand watches"]
fn thousands_of_watches_of_patterns_delay_no_task_and_hold_no_scheduler() {
    watches_of_patterns(100_000, 2_000);
}
