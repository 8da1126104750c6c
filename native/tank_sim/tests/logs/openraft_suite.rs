//! openraft's own test of a log store and a state machine, over our log on each disk.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tank_engine::health::Health;
use tank_engine::log::disk::LogDisk;
use tank_engine::log::segments::SegmentLog;
use tank_engine::log::{LogCloser, LogStore};
use tank_engine::machine::{Machine, StateStore};
use tank_engine::raft::Types;
use tank_engine::storage::Directory;
use tank_engine::view::Published;
use tank_sim::{SimDisk, wait};

use crate::support::LIMIT;

/// Keeps what the log and the machine of one test stand on; takes it down after them.
struct Guard {
    closer: Option<LogCloser>,
    directory: Option<Directory>,
    _dir: tempfile::TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The suite drops the guard after the log and the machine.
        self.closer.take().unwrap().join();
        let directory = self.directory.take().unwrap();
        if !std::thread::panicking() {
            // Snapshots are let go of by another thread.
            let users = || Arc::strong_count(&directory.db);
            wait::until("log and machine to let go of the database", LIMIT, users, |users| *users == 1).unwrap();
        }
        directory.close().unwrap();
    }
}

fn build<D: LogDisk>(disk: impl Fn(&Directory) -> D) -> (Guard, LogStore<D>, Machine) {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path(), "tank").unwrap();
    let health = Arc::new(Health::new(Box::new(|error| panic!("the store failed: {error}"))));
    let (log, closer) = LogStore::open(disk(&directory), Path::new("suite"), &health).unwrap();
    let store = StateStore::open(Arc::clone(&directory.db), &directory.path).unwrap();
    let machine = Machine::open(store, Arc::new(Published::default()), health).unwrap();
    (Guard { closer: Some(closer), directory: Some(directory), _dir: dir }, log, machine)
}

struct OnSegments;

impl StoreBuilder<Types, LogStore<SegmentLog>, Machine, Guard> for OnSegments {
    async fn build(&self) -> Result<(Guard, LogStore<SegmentLog>, Machine), StorageError<Types>> {
        Ok(build(|directory| directory.log()))
    }
}

struct OnSim;

impl StoreBuilder<Types, LogStore<SimDisk>, Machine, Guard> for OnSim {
    async fn build(&self) -> Result<(Guard, LogStore<SimDisk>, Machine), StorageError<Types>> {
        Ok(build(|_| SimDisk::new()))
    }
}

#[test]
fn on_segments() {
    crate::support::block_on(Suite::test_all(OnSegments)).unwrap();
}

#[test]
fn on_the_simulated_disk() {
    crate::support::block_on(Suite::test_all(OnSim)).unwrap();
}
