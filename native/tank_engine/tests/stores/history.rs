//! A store that does not go on from what its clients have seen: restored from a backup, forced into a new cluster,
//! replaced by an import. Nothing of what they have seen may count in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tank_engine::backup::{Progress, restore};
use tank_engine::command::{Command, LeaseCommand};
use tank_engine::engine::{Engine, From, Place, Position, Since};
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::lease::Lease;
use tank_engine::options::Formation;
use tank_engine::outcome::{Outcome, Refusal};
use tank_engine::state::REVISION_STEP;
use tank_engine::watch::{Budget, Cursor, Filter, Next};

use crate::support::{held, key, open, options, put, write, write_all};

const PATIENT: Budget = Budget { revisions: 100, bytes: 1 << 20, look: 1_000, changes: 1_000, patient: true };

fn history_of(engine: &Engine) -> u64 {
    engine.history_id(engine.view().unwrap().history)
}

/// Where a client is that knows all there is.
fn position(engine: &Engine) -> Position {
    Position { history: Some(history_of(engine)), revision: engine.view().unwrap().revision }
}

fn since(engine: &Engine, position: Position) -> Since {
    let view = engine.authoritative_view().unwrap().expect("readable once it is open");
    engine.changes_since(&view, &Filter::prefix(Key::default()), position, true).unwrap()
}

fn watch(engine: &Engine, from: From) -> (Cursor, Arc<AtomicBool>) {
    let woken: Arc<AtomicBool> = Arc::default();
    let wake = Arc::clone(&woken);
    let wake = Box::new(move || wake.store(true, Ordering::SeqCst));
    (engine.watch(Filter::prefix(Key::default()), from, wake).unwrap().0, woken)
}

fn acquire(engine: &Engine, name: &'static str) -> Lease {
    let (name, holder) = (Bytes::from_static(name.as_bytes()), Bytes::from_static(b"me"));
    let command = LeaseCommand::Acquire { name, holder, ttl_ms: 600_000 };
    let Ok(Outcome::Granted(lease)) = write(engine, Command::Lease(command)) else { panic!("not granted") };
    lease
}

fn renew(engine: &Engine, lease: &Lease) -> Result<Outcome, EngineError> {
    write(engine, Command::Lease(LeaseCommand::Renew { name: lease.name.clone(), epoch: lease.epoch }))
}

fn forced_alone(dir: &Path, cluster_id: u64) -> Engine {
    let mut options = options(dir);
    options.formation = Formation::ForceNew { cluster_id };
    Engine::open(options, Box::new(|_| {})).unwrap()
}

/// That `after`, which began from what `before` held at `kept`, takes nothing for its own that is not.
fn assert_another_history(engine: &Engine, kept: Position, lost: Position, lease: &Lease) {
    let now = position(engine);
    assert!(now.history != kept.history && now.revision >= lost.revision + REVISION_STEP, "{now:?} after {lost:?}");
    let compacted = engine.view().unwrap().compacted;
    assert!(compacted >= lost.revision + REVISION_STEP, "compacted up to {compacted}");
    let alone = |revision| Position { history: None, revision };
    for stale in [kept, lost, alone(kept.revision), alone(lost.revision), alone(now.revision + 1_000)] {
        let told = since(engine, stale);
        assert!(matches!(told, Since::Compacted(min) if min == compacted), "{stale:?}: {told:?}");
        let entry = engine.entry_at(&key("k0"), stale);
        let refused =
            [EngineError::Compacted { min: compacted }, EngineError::FutureRevision { current: now.revision }];
        assert!(refused.contains(&entry.unwrap_err()), "{stale:?}");
    }
    let other = Position { history: lost.history, ..now };
    assert!(matches!(since(engine, other), Since::Compacted(_)), "the same revision of another history");
    assert!(matches!(since(engine, now), Since::Unchanged));
    for revision in [kept.revision, lost.revision] {
        let (cursor, _) = watch(engine, From::After(revision));
        let next = cursor.next(PATIENT).unwrap();
        assert!(matches!(next, Next::Compacted(min) if min == compacted), "after {revision}: {next:?}");
    }
    let renewed = renew(engine, lease).unwrap();
    assert_eq!(renewed, Outcome::Refused(Refusal::LeaseEnded));
    assert!(acquire(engine, "another").epoch > compacted);
    let Ok(Outcome::Done { revision }) = write(engine, put("k0", b"new")) else { panic!("no write") };
    assert!(matches!(since(engine, now), Since::Changed(changed) if changed.revision == revision));
}

/// A store whose clients know more than the backup, or the survivor, has.
fn with_clients(dir: &Path) -> (Engine, Position, Lease) {
    let engine = open(dir);
    write_all(&engine, (0..100).map(|i| put(&format!("k{i}"), b"old")));
    let lease = acquire(&engine, "lease");
    let known = position(&engine);
    (engine, known, lease)
}

#[test]
fn a_restored_store_takes_no_position_and_no_lease_of_before() {
    let root = tempfile::tempdir().unwrap();
    let (engine, kept, lease) = with_clients(&root.path().join("from"));
    let file = root.path().join("backup");
    let about = engine.backup(&file, &Progress::default()).unwrap();
    assert_eq!(Some(about.history), kept.history);
    write_all(&engine, (0..50).map(|i| put(&format!("lost{i}"), b"lost")));
    let lost = position(&engine);
    let before = engine.authoritative_view().unwrap().unwrap().digest;
    engine.close().unwrap();

    let mut histories = vec![kept.history];
    for dir in ["first", "second"] {
        let dir = root.path().join(dir);
        restore(&file, &dir, None, "nonode@nohost", &Progress::default()).unwrap();
        let restored = open(&dir);
        assert_eq!(held(&restored).digest, about.digest);
        assert_ne!(about.digest, before);
        let began = position(&restored);
        assert!(!histories.contains(&began.history));
        histories.push(began.history);
        assert_another_history(&restored, kept, lost, &lease);
        restored.close().unwrap();
        // Also when it is opened again.
        let restored = open(&dir);
        assert_eq!(Some(history_of(&restored)), began.history);
        assert!(matches!(since(&restored, lost), Since::Compacted(_)));
        assert!(matches!(since(&restored, began), Since::Changed(_)));
        restored.close().unwrap();
    }
}

#[test]
fn a_backup_of_a_backup_is_of_another_history_again() {
    let root = tempfile::tempdir().unwrap();
    let (engine, _, _) = with_clients(&root.path().join("from"));
    let mut seen = vec![position(&engine)];
    let mut last = engine;
    for round in 0..3 {
        let (file, dir) = (root.path().join(format!("backup{round}")), root.path().join(format!("store{round}")));
        last.backup(&file, &Progress::default()).unwrap();
        last.close().unwrap();
        restore(&file, &dir, None, "nonode@nohost", &Progress::default()).unwrap();
        last = open(&dir);
        write_all(&last, [put("k", b"v")]);
        let now = position(&last);
        assert!(seen.iter().all(|one| one.history != now.history && one.revision + REVISION_STEP <= now.revision));
        seen.push(now);
    }
    last.close().unwrap();
}

#[test]
fn a_forced_cluster_takes_no_position_and_no_lease_of_before() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let (engine, kept, lease) = with_clients(&dir);
    engine.close().unwrap();
    // What only the lost members had.
    let lost = Position { revision: kept.revision + 50, ..kept };
    let forced = forced_alone(&dir, 7);
    assert_another_history(&forced, kept, lost, &lease);
    let second = position(&forced);
    forced.close().unwrap();
    // Done again, it is another one again; opened as usual, it is not.
    let forced = forced_alone(&dir, 8);
    assert!(position(&forced).history != second.history && position(&forced).revision > second.revision);
    let third = position(&forced);
    forced.close().unwrap();
    let opened = open(&dir);
    assert_eq!(position(&opened), third);
    opened.close().unwrap();
}

#[test]
fn a_history_that_begins_in_an_open_store_ends_its_watches() {
    let root = tempfile::tempdir().unwrap();
    let (engine, kept, lease) = with_clients(&root.path().join("store"));
    let (cursor, woken) = watch(&engine, From::Now);
    assert!(matches!(cursor.next(PATIENT), Ok(Next::Idle(at)) if at == kept.revision));
    // In one batch, perhaps: what came before it is compacted with all the rest.
    let started: Vec<_> = [put("k0", b"before"), Command::NewHistory { id: 7 }, put("k1", b"after")]
        .into_iter()
        .map(|command| crate::support::submit(&engine, command).unwrap())
        .collect();
    for outcome in started {
        assert!(matches!(outcome.recv_timeout(crate::support::LIMIT), Ok(Ok(Outcome::Done { .. }))));
    }
    let deadline = std::time::Instant::now() + crate::support::LIMIT;
    while !woken.load(Ordering::SeqCst) {
        assert!(std::time::Instant::now() < deadline, "the watch was not woken");
        std::thread::yield_now();
    }
    let mut told = Vec::new();
    let min = loop {
        match cursor.next(PATIENT).unwrap() {
            Next::Changes(revisions, _) => told.extend(revisions.iter().map(|one| one.revision)),
            Next::Compacted(min) => break min,
            other => panic!("{other:?} after {told:?}"),
        }
    };
    assert!(min > REVISION_STEP && told.iter().all(|revision| *revision == kept.revision + 1), "{told:?}");
    assert!(matches!(engine.place(&engine.view().unwrap(), kept, false), Place::Compacted(_)));
    assert_another_history(&engine, kept, Position { revision: kept.revision + 1, ..kept }, &lease);
    // What was compacted goes from the disk, over the gap.
    write_all(&engine, (0..20).map(|_| put("k1", b"again")));
    let before = held(&engine);
    engine.close().unwrap();
    let engine = open(&root.path().join("store"));
    assert_eq!(held(&engine), before);
    engine.close().unwrap();
}

#[test]
fn a_member_that_lags_does_not_refuse_what_may_come() {
    let root = tempfile::tempdir().unwrap();
    let (engine, kept, _) = with_clients(&root.path().join("store"));
    let view = engine.view().unwrap();
    let ahead = Position { revision: kept.revision + 1, ..kept };
    let later = Position { history: Some(9), revision: kept.revision + REVISION_STEP };
    for position in [ahead, later] {
        assert_eq!(engine.place(&view, position, false), Place::Ahead);
        assert_eq!(engine.place(&view, position, true), Place::Compacted(0), "once it was asked");
    }
    assert_eq!(engine.place(&view, kept, true), Place::At);
    assert_eq!(engine.place(&view, Position { revision: 7, ..kept }, true), Place::Before);
    drop(view);
    engine.close().unwrap();
}

#[test]
fn a_backup_of_the_former_format_can_be_restored() {
    let root = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format_1.backup");
    let about = restore(&file, root.path(), None, "nonode@nohost", &Progress::default()).unwrap();
    assert_eq!((about.store_id.as_str(), about.revision, about.entries, about.history), ("tank", 14, 7, 0));
    let engine = open(root.path());
    let held = held(&engine);
    // Stores had no records of nodes then.
    let nodes = engine.view().unwrap().nodes.digest().value();
    assert_eq!((held.digest.wrapping_sub(nodes), held.entries.len()), (about.digest, 7));
    assert!(held.revision >= about.revision + REVISION_STEP);
    assert_eq!(engine.view().unwrap().leases.len(), 1);
    engine.close().unwrap();
}
