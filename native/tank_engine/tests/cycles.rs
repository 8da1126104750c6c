//! Opening and closing again and again leaves nothing behind: no thread, no file, no view in memory.
//!
//! Alone in its binary: other tests would open files and start threads meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
#![allow(missing_docs, unreachable_pub, dead_code)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use tank_engine::error::EngineError;
use tank_engine::outcome::Outcome;
use tank_sim::wait;

use support::{held, open, put, try_open, write};

const CYCLES: u64 = 100;

/// Threads, files.
fn used() -> (usize, usize) {
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

#[test]
fn a_hundred_cycles_leave_no_thread_no_file_and_no_view() {
    let root = tempfile::tempdir().unwrap();
    let (dir, damaged) = (root.path().join("store"), root.path().join("damaged"));
    open(&damaged).close().unwrap();
    std::fs::remove_file(damaged.join("SYNCED")).unwrap();
    let mut views = Vec::new();
    let mut cycle = |number: u64| {
        let engine = open(&dir);
        assert_eq!(write(&engine, put("n", &number.to_be_bytes())), Ok(Outcome::Done { revision: number }));
        // What is refused must leave nothing either.
        assert!(matches!(try_open(&dir).map(drop), Err(EngineError::Locked { .. })));
        assert!(matches!(try_open(&damaged).map(drop), Err(EngineError::Corrupt { .. })));
        assert_eq!(held(&engine).revision, number);
        views.push(Arc::downgrade(&engine.view().unwrap()));
        engine.close().unwrap();
    };
    // The runtime, RocksDB's pools and the reclaiming thread start once.
    (1..=10).for_each(&mut cycle);
    let before = used();
    (11..=10 + CYCLES).for_each(&mut cycle);
    let small = |after: &(usize, usize)| after.0 <= before.0 && after.1 <= before.1;
    let after = wait::until("no more threads and files than before", Duration::from_secs(10), used, small);
    let after = after.unwrap_or_else(|why| panic!("before: {before:?}; {why}"));
    eprintln!("threads and files after 10 cycles: {before:?}; after {CYCLES} more: {after:?}");
    let kept = || views.iter().filter(|view| view.strong_count() > 0).count();
    wait::until("all views to be dropped", Duration::from_secs(10), kept, |kept| *kept == 0).unwrap();
}
