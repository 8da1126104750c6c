//! A panic planted in each thread and task: the store says that it failed, every call is
//! answered, closing ends, and the directory opens again with all that was acknowledged.
//!
//! Needs the feature `faults`. Fault points are the process's, so one test runs at a time.

#![cfg(feature = "faults")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub, dead_code)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tank_engine::engine::Engine;
use tank_engine::error::EngineError;
use tank_engine::faults;
use tank_engine::outcome::Outcome;
use tank_engine::reclaim;
use tank_engine::snapshot::SnapshotData;
use tank_sim::wait;

use support::{LIMIT, Member, Victim, held, open, options, put, submit, try_open, write, write_all};

static ALONE: Mutex<()> = Mutex::new(());

/// Holds the fault points; disarms them all in the end.
struct Alone(#[allow(dead_code)] MutexGuard<'static, ()>);

fn alone() -> Alone {
    Alone(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Drop for Alone {
    fn drop(&mut self) {
        for point in faults::POINTS {
            faults::arm(point, "off").unwrap();
        }
    }
}

type Failures = Arc<Mutex<Vec<EngineError>>>;

fn open_watched(dir: &Path) -> (Engine, Failures) {
    let failures = Failures::default();
    let seen = Arc::clone(&failures);
    let engine = Engine::open(options(dir), Box::new(move |error| seen.lock().unwrap().push(error.clone()))).unwrap();
    (engine, failures)
}

fn wait_for_failure(failures: &Failures) -> EngineError {
    let seen = wait::until("the report of the failure", LIMIT, || failures.lock().unwrap().clone(), |f| !f.is_empty());
    seen.unwrap().remove(0)
}

/// Closes a store that failed; it must not take long.
fn close(engine: &Engine) {
    let (sender, receiver) = mpsc::channel();
    let engine = engine.clone();
    std::thread::spawn(move || sender.send(engine.close()));
    let started = Instant::now();
    let _ = receiver.recv_timeout(LIMIT).unwrap_or_else(|why| panic!("closing took {:?}: {why}", started.elapsed()));
}

/// Plants a panic at `point` while writes are on their way.
fn a_panic_at(point: &'static str) {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (engine, failures) = open_watched(dir.path());
    write_all(&engine, (0..20).map(|i| put(&format!("before-{i}"), b"acknowledged")));
    faults::arm(point, "1*panic(planted)").unwrap();
    let waiting: Vec<_> = (0..200).map(|i| submit(&engine, put(&format!("during-{i}"), b"?"))).collect();
    let failure = wait_for_failure(&failures);
    assert!(matches!(&failure, EngineError::Failed(why) if why.contains("planted")), "{point}: {failure:?}");
    assert_eq!(engine.view().map(drop), Err(failure.clone()), "{point}: reads");
    assert_eq!(write(&engine, put("after", b"")), Err(failure.clone()), "{point}: writes");
    assert_eq!(engine.status().map(drop), Err(failure.clone()), "{point}: status");

    // Whoever waits hears of it, before anyone closes the store.
    let hear = |receiver: mpsc::Receiver<_>| match receiver.recv_timeout(LIMIT) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => panic!("{point}: a write was not answered within {LIMIT:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{point}: a reply was dropped without an answer"),
    };
    let answers: Vec<Result<Outcome, EngineError>> = waiting.into_iter().flatten().map(hear).collect();
    close(&engine);
    let mut done = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(Outcome::Done { .. }) => done.push(number),
            Ok(other) => panic!("{point}: write {number} gave {other:?}"),
            Err(error) => assert!(error == failure || error == EngineError::Unknown, "{point}: {error:?}"),
        }
    }
    assert_eq!(failures.lock().unwrap().len(), 1, "{point}: reported once");
    eprintln!("{point}: {} of 200 done", done.len());
    drop(engine);

    let engine = open(dir.path());
    let view = engine.view().unwrap().clone();
    for name in (0..20).map(|i| format!("before-{i}")).chain(done.iter().map(|i| format!("during-{i}"))) {
        assert!(view.get(&support::key(&name)).is_some(), "{point}: {name} was acknowledged and is gone");
    }
    write_all(&engine, [put("again", b"")]);
    engine.close().unwrap();
}

#[test]
fn a_panic_in_the_ingress_is_reported() {
    a_panic_at("ingress");
}

#[test]
fn a_panic_in_the_log_writer_is_reported() {
    a_panic_at("log_writer");
}

#[test]
fn a_panic_in_a_sync_is_reported() {
    a_panic_at("log_sync");
}

#[test]
fn a_panic_while_applying_is_reported() {
    a_panic_at("apply");
}

#[test]
fn a_panic_in_the_watch_over_the_raft_core_is_reported() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    write_all(&engine, [put("a", b"1")]);
    let before = held(&engine);
    engine.close().unwrap();
    faults::arm("raft_watch", "1*panic(planted)").unwrap();
    let (engine, failures) = open_watched(dir.path());
    let failure = wait_for_failure(&failures);
    assert!(matches!(&failure, EngineError::Failed(why) if why.contains("planted")), "{failure:?}");
    assert_eq!(engine.authoritative_view().map(drop), Err(failure));
    close(&engine);
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(held(&engine), before);
    engine.close().unwrap();
}

#[test]
fn a_full_disk_leaves_the_last_view_readable_until_the_store_is_open_again() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (engine, failures) = open_watched(dir.path());
    write_all(&engine, (0..20).map(|i| put(&format!("{i}"), b"acknowledged")));
    let before = held(&engine);
    faults::arm("log_full", "return").unwrap();
    let unknown = write(&engine, put("20", b"?"));
    let failure = wait_for_failure(&failures);
    assert!(matches!(failure, EngineError::DiskFull { .. }), "{failure:?}");
    assert!(unknown.is_err(), "{unknown:?}");
    let assert_read_only = |what: &str| {
        assert_eq!(held(&engine), before, "{what}");
        assert!(engine.authoritative_view().unwrap().is_some(), "{what}: nobody else can have written");
        assert_eq!(write(&engine, put("refused", b"")), Err(failure.clone()), "{what}");
        assert_eq!(engine.status().unwrap().failure, Some(failure.clone()), "{what}");
    };
    assert_read_only("failed");
    let _last_sync_fails = engine.retire();
    assert_read_only("retired");
    assert!(matches!(try_open(dir.path()).map(drop), Err(EngineError::DiskFull { .. })));
    assert_read_only("after a try to open it again");

    faults::arm("log_full", "off").unwrap();
    let again = open(dir.path());
    assert_read_only("while it is open again");
    write_all(&again, [put("after", b"")]);
    close(&engine);
    assert_eq!(engine.view().map(drop), Err(EngineError::Closed));
    for i in 0..20 {
        assert!(again.view().unwrap().get(&support::key(&i.to_string())).is_some(), "{i} was acknowledged and is gone");
    }
    again.close().unwrap();
}

#[test]
fn the_reclaiming_thread_survives_panics() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (engine, failures) = open_watched(dir.path());
    faults::arm("reclaim", "5*panic(planted)").unwrap();
    write_all(&engine, (0..500).map(|i| put(&format!("{}", i % 10), b"x")));
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        reclaim::now(Counted(Arc::clone(&dropped)));
        reclaim::when_unused(Arc::new(Counted(Arc::clone(&dropped))));
    }
    wait::until("20 values to be dropped", LIMIT, || dropped.load(Ordering::SeqCst), |n| *n == 20).unwrap();
    assert_eq!(failures.lock().unwrap().len(), 0);
    assert!(engine.status().unwrap().readable);
    engine.close().unwrap();
}

#[test]
fn a_panic_while_installing_a_snapshot_leaves_the_old_state() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    for (dir, name) in [(&from, "new"), (&to, "old")] {
        let engine = open(dir);
        write_all(&engine, (0..30).map(|i| put(&format!("{name}-{i}"), b"x")));
        engine.close().unwrap();
    }
    let source = Member::open(&from).unwrap();
    let (frames, header) = source.frames();
    let mut target = Member::open(&to).unwrap();
    let old = target.held();
    faults::arm("snapshot_install", "1*panic(planted)").unwrap();
    let received = target.receive(&frames).unwrap().unwrap();
    assert!(target.install(SnapshotData::Received(received), &header).is_err());
    assert!(matches!(target.failures.lock().unwrap().as_slice(), [EngineError::Failed(_)]));
    assert_eq!(target.held(), old);
    target.close();
    let mut target = Member::open(&to).unwrap();
    assert_eq!(target.held(), old, "after another start");
    let received = target.receive(&frames).unwrap().unwrap();
    target.install(SnapshotData::Received(received), &header).unwrap();
    assert_eq!(target.held(), source.held());
    target.close();
    source.close();
}

#[test]
fn killed_before_an_install_it_holds_the_old_state() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    for name in ["from", "to"] {
        let engine = open(&root.path().join(name));
        write_all(&engine, (0..30).map(|i| put(&format!("{name}-{i}"), b"x")));
        engine.close().unwrap();
    }
    let member = Member::open(&root.path().join("to")).unwrap();
    let old = member.held();
    member.close();
    let victim = Victim::start("stops_before_an_install", root.path(), &[]);
    assert_eq!(victim.hear(), "received");
    victim.kill();
    let member = Member::open(&root.path().join("to")).unwrap();
    assert_eq!(member.held(), old);
    assert_eq!(member.generations(), ["state_0"]);
    assert!(!member.dir().join("incoming").exists(), "the parts that were received are gone");
    member.close();
}

/// Receives a snapshot and stays where it would install it.
#[test]
#[ignore = "started by other tests, to be killed"]
fn stops_before_an_install() {
    let Some(root) = Victim::dir() else { return };
    let source = Member::open(&root.join("from")).unwrap();
    let mut target = Member::open(&root.join("to")).unwrap();
    faults::arm("snapshot_install", "pause").unwrap();
    let (frames, header) = source.frames();
    let received = target.receive(&frames).unwrap().unwrap();
    Victim::say("received");
    target.install(SnapshotData::Received(received), &header).unwrap();
}

#[test]
fn small_writes_pass_a_large_one_until_that_is_on_the_disk() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (engine, _failures) = open_watched(dir.path());
    let value = vec![7; 4 << 20];
    faults::arm("log_stage", "1*sleep(4000)").unwrap();
    let started = Instant::now();
    let large = submit(&engine, put("large", &value)).unwrap();
    write_all(&engine, (0..20).map(|i| put(&format!("small-{i}"), b"acknowledged")));
    assert!(started.elapsed().as_secs() < 4, "20 small writes took {:?}", started.elapsed());
    assert_eq!(large.try_recv(), Err(mpsc::TryRecvError::Empty), "it is not on the disk");
    assert!(matches!(large.recv_timeout(LIMIT).unwrap(), Ok(Outcome::Done { .. })));
    engine.close().unwrap();
    assert_eq!(held(&open(dir.path())).entries.len(), 21);
}

#[test]
fn a_large_write_that_could_not_go_to_the_disk_early_goes_with_its_entry() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (engine, failures) = open_watched(dir.path());
    for (point, action) in [("log_stage", "1*return"), ("log_stage", "1*panic(planted)")] {
        faults::arm(point, action).unwrap();
        write_all(&engine, [put(action, &vec![7; 2 << 20])]);
    }
    assert!(failures.lock().unwrap().is_empty());
    engine.close().unwrap();
    assert_eq!(held(&open(dir.path())).entries.len(), 2);
}
