//! An engine as its users see it: opened on a real directory, written to, closed, opened again.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Op, Txn, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::error::{EngineError, LockHolder};
use tank_engine::key::{Component, Key};
use tank_engine::options::Options;
use tank_engine::outcome::{Outcome, Refusal};

fn key(name: &str) -> Key {
    Key::of(&[Component::Atom(b"pods".to_vec()), Component::String(name.as_bytes().to_vec())])
}

fn open(dir: &std::path::Path) -> Engine {
    Engine::open(Options::new(dir, "tank"), Box::new(|error| panic!("failed: {error}"))).unwrap()
}

fn put(name: &str, payload: &[u8]) -> Command {
    Command::Put(Write::new(key(name), Bytes::copy_from_slice(payload)))
}

/// Hands `command` over and waits for its outcome.
fn write(engine: &Engine, command: Command) -> Result<Outcome, EngineError> {
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |result| sender.send(result).unwrap());
    engine.write(command, reply).map_err(|(error, _)| error)?;
    receiver.recv_timeout(Duration::from_secs(30)).expect("an answer within 30 s")
}

#[test]
fn writes_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let identity = engine.identity().clone();
    assert_eq!(write(&engine, put("a", b"1")), Ok(Outcome::Done { revision: 1 }));
    assert_eq!(write(&engine, put("b", b"2")), Ok(Outcome::Done { revision: 2 }));
    let create = Command::Create(Write::new(key("a"), Bytes::new()));
    assert!(matches!(write(&engine, create), Ok(Outcome::Refused(Refusal::Exists(_)))));
    let delete = Command::Delete(key("b").into());
    assert_eq!(write(&engine, delete), Ok(Outcome::Done { revision: 3 }));
    let before = engine.status().unwrap();
    engine.close().unwrap();
    assert_eq!(engine.view().map(drop), Err(EngineError::Closed));
    assert_eq!(write(&engine, put("c", b"3")), Err(EngineError::Closed));

    let engine = open(dir.path());
    assert_eq!(engine.identity(), &identity);
    let view = engine.authoritative_view().unwrap().expect("readable at once");
    assert_eq!((view.revision, view.entries.len(), view.digest), (3, 1, before.digest));
    assert_eq!(view.get(&key("a")).unwrap().payload.in_memory().unwrap(), "1");
    drop(view);
    assert_eq!(write(&engine, put("c", b"3")), Ok(Outcome::Done { revision: 4 }));
    engine.close().unwrap();
}

#[test]
fn what_a_single_writer_writes_is_synced_at_once_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    for i in 0..100u32 {
        assert_eq!(write(&engine, put("a", &i.to_be_bytes())), Ok(Outcome::Done { revision: u64::from(i) + 1 }));
    }
    let status = engine.status().unwrap();
    // Not before it is known to be a single one, nor while the log's thread has something else to do.
    assert!((50..=84).contains(&status.fsyncs_at_once), "{status:?}");
    let large = vec![7; 100_000];
    assert_eq!(write(&engine, put("large", &large)), Ok(Outcome::Done { revision: 101 }));
    assert_eq!(engine.status().unwrap().fsyncs_at_once, status.fsyncs_at_once, "a large one takes too long");
    let before = engine.status().unwrap();
    engine.close().unwrap();
    let engine = open(dir.path());
    let after = engine.status().unwrap();
    assert_eq!((after.revision, after.entries, after.digest), (101, 2, before.digest));
    engine.close().unwrap();
}

#[test]
fn many_writes_share_a_sync_and_a_purged_log_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path(), "tank");
    options.timing.snapshot_interval_entries = 500;
    options.timing.log_retention_entries = 100;
    options.timing.purge_batch = 50;
    let open = || Engine::open(options.clone(), Box::new(|error| panic!("failed: {error}"))).unwrap();
    let engine = open();
    let count = 20_000u32;
    let (sender, receiver) = mpsc::channel();
    let started = Instant::now();
    for i in 0..count {
        let sender = sender.clone();
        let reply = Reply::new(move |result: Result<Outcome, EngineError>| sender.send(result.unwrap()).unwrap());
        engine.write(put(&(i % 1000).to_string(), &i.to_be_bytes()), reply).map_err(|(error, _)| error).unwrap();
    }
    for _ in 0..count {
        receiver.recv_timeout(Duration::from_secs(30)).expect("an answer within 30 s");
    }
    eprintln!("{count} writes in {:?}, {:?}", started.elapsed(), engine.status().unwrap());
    let status = engine.status().unwrap();
    assert_eq!((status.revision, status.entries, status.in_flight), (u64::from(count), 1000, 0));
    assert!(status.fsyncs < u64::from(count) / 10, "{} syncs", status.fsyncs);
    engine.close().unwrap();
    let engine = open();
    let again = engine.status().unwrap();
    assert_eq!((again.revision, again.entries, again.digest), (status.revision, status.entries, status.digest));
    engine.close().unwrap();
}

#[test]
fn a_directory_is_one_stores_at_a_time_and_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let open_as = |id: &str| Engine::open(Options::new(dir.path(), id), Box::new(|_| {})).map(drop);
    let path = dir.path().canonicalize().unwrap();
    assert_eq!(open_as("tank"), Err(EngineError::Locked { path, by: LockHolder::ThisVm }));
    engine.close().unwrap();
    let wrong = EngineError::WrongStore { expected: "other".to_owned(), found: "tank".to_owned() };
    assert_eq!(open_as("other"), Err(wrong));
    open(dir.path()).close().unwrap();
}

#[test]
fn a_transaction_over_the_limit_is_refused_by_name_and_not_logged() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path(), "tank");
    (options.value_bytes_max, options.txn_bytes_max) = (10_000, 30_000);
    let engine = Engine::open(options, Box::new(|error| panic!("failed: {error}"))).unwrap();
    let puts = |count: usize| {
        let then = (0..count).map(|i| Op::Put(Write::new(key(&i.to_string()), Bytes::from(vec![7; 9_000])))).collect();
        Command::Txn(Txn { compare: vec![], then, otherwise: vec![] })
    };
    assert!(matches!(write(&engine, puts(3)), Ok(Outcome::Txn { succeeded: true, .. })));
    let logged = engine.status().unwrap().log_entries;
    let size = puts(4).size();
    assert_eq!(write(&engine, puts(4)), Err(EngineError::TooLarge { what: "txn", size, limit: 30_000 }));
    assert_eq!(engine.status().unwrap().log_entries, logged);
    assert!(matches!(write(&engine, put("a", &[0; 10_000])), Ok(Outcome::Done { .. })), "a value has its own limit");
    engine.close().unwrap();
}

#[test]
fn a_value_at_its_limit_fits_into_a_transaction_whose_limit_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path(), "tank");
    (options.value_bytes_max, options.txn_bytes_max) = (1_000, 1_000);
    let engine = Engine::open(options, Box::new(|error| panic!("failed: {error}"))).unwrap();
    let then = vec![Op::Put(Write::new(key("a"), Bytes::from(vec![7; 1_000])))];
    let outcome = write(&engine, Command::Txn(Txn { compare: vec![], then, otherwise: vec![] }));
    assert!(matches!(outcome, Ok(Outcome::Txn { succeeded: true, .. })));
    engine.close().unwrap();

    let mut options = Options::new(dir.path(), "tank");
    (options.value_bytes_max, options.txn_bytes_max) = (1_000, 999);
    let refused = Engine::open(options, Box::new(|_| {})).map(|_| ()).unwrap_err();
    let why = "must be at least value_bytes_max, which is 1000, got: 999".to_owned();
    assert_eq!(refused, EngineError::InvalidOption { option: "txn_bytes_max", why });
}
