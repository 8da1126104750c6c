//! Disk that nothing needs any more.

use std::path::Path;

use tank_engine::command::Command;
use tank_sim::{Rng, wait};

use crate::support::{LIMIT, delete, held, open, put, write, write_all};

/// What RocksDB's files take up.
fn disk_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("db")).unwrap().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn an_emptied_compacted_store_gives_its_disk_back_without_traffic() {
    const ENTRIES: usize = 125;
    const KEPT: usize = 5;
    const BYTES: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut rng = Rng::new(1);
    let mut payload = || (0..BYTES / 8).flat_map(|_| rng.next_u64().to_be_bytes()).collect::<Vec<u8>>();
    write_all(&engine, (0..ENTRIES).map(|i| put(&format!("{i}"), &payload())));
    // The last snapshot holds on to what was there.
    let much = (ENTRIES * BYTES / 2) as u64;
    wait::until("a snapshot", LIMIT, || disk_bytes(dir.path()), |bytes| *bytes > much).unwrap();

    write_all(&engine, (KEPT..ENTRIES).map(|i| delete(&format!("{i}"))));
    let revision = engine.view().unwrap().revision;
    write(&engine, Command::Compact { revision }).unwrap();
    let little = (2 * KEPT * BYTES) as u64;
    wait::until("the disk to be given back", LIMIT, || disk_bytes(dir.path()), |bytes| *bytes < little).unwrap();

    let before = held(&engine);
    assert_eq!(before.entries.len(), KEPT);
    engine.close().unwrap();
    let engine = open(dir.path());
    assert_eq!(held(&engine), before);
    assert!(engine.view().unwrap().entries.len() == KEPT && disk_bytes(dir.path()) < little);
}
