//! Checkpoints, the history across them, and what is removed of it: without a raft core.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::delta::Delta;
use super::version_key::ENTRY;
use super::*;
use crate::command::{Command, Request, RequestId, Write};
use crate::payload::Memory;
use crate::state::{Filter, Revised, Sessions};
use crate::storage::rocks::{self, Db};

/// A state with what is on its disk.
struct Stored {
    checkpoints: Arc<Checkpoints>,
    state: State,
    db: Arc<Db>,
    dir: TempDir,
}

/// A change, as a reader of the history is told of it.
type Told = (u64, Vec<(Key, Option<u64>, Option<(u64, Bytes)>)>);

impl Stored {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), true)
    }

    fn open(dir: TempDir, create: bool) -> Self {
        let db = Arc::new(rocks::open(dir.path(), create).unwrap());
        if create {
            // Durable, as the directory's creation makes it.
            rocks::set_generation(&db, dir.path(), 0).unwrap();
        }
        let store = StateStore::open(Arc::clone(&db), dir.path()).unwrap();
        let (state, header) = store.load(&Arc::default()).unwrap();
        let checkpoints = Arc::new(Checkpoints::new(store, &state, &header, Arc::new(Memory::default()), 64));
        Self { checkpoints, state, db, dir }
    }

    /// What is there after a crash at this moment.
    fn crashed(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        self.db.disable_file_deletions().unwrap();
        copy_files(&self.dir.path().join(rocks::DIR), &dir.path().join(rocks::DIR));
        self.db.enable_file_deletions().unwrap();
        Self::open(dir, false)
    }

    /// Applies commands as one batch.
    fn apply(&mut self, commands: impl IntoIterator<Item = Command>) {
        let mut delta = Delta::of_bytes(1);
        for (sequence, command) in (1..).zip(commands) {
            let id = RequestId { client: 1, sequence, resolved_below: sequence };
            let mut applied = self.state.apply(&Request { id, time_ms: 7, command, seen_ms: 0 }, 1);
            let mut told = super::Told { jumped_to: None, revised: Vec::new() };
            let revised = told.add(&mut applied);
            delta.add_applied(&applied, revised.as_ref(), 7);
        }
        // What is remembered of requests is looked at elsewhere.
        self.state.sessions = Sessions::default();
        let header = Header::new(&self.state, None, StoredMembership::default(), 0);
        delta.end(1, Vec::new(), &mut self.state, header);
        self.checkpoints.add(delta);
    }

    fn compact(&mut self, revision: u64) {
        self.apply([Command::Compact { revision }]);
    }

    fn checkpoint(&self) {
        self.checkpoints.finish().unwrap();
    }

    fn trimmed(&self) -> u64 {
        self.checkpoints.store().header().unwrap().trimmed
    }

    /// The names and revisions of the versions on the disk.
    fn versions(&self) -> Vec<(String, u64)> {
        let mut iterator = self.db.raw_iterator_cf(&rocks::family(&self.db, "state_0").unwrap());
        iterator.seek([ENTRY]);
        let mut versions = Vec::new();
        while let Some((path, revision)) = iterator.key().and_then(version_key::parse) {
            versions.push((String::from_utf8(path[1..path.len() - 1].to_vec()).unwrap(), revision));
            iterator.next();
        }
        versions
    }

    /// What a reader is told behind a revision; or what is compacted.
    fn told(&self, after: u64) -> Result<Vec<Told>, u64> {
        let mut told = Vec::new();
        let mut take = |revised: Revised| {
            let value = |entry: &Entry| (entry.version, entry.payload.in_memory().unwrap());
            let changes = revised.changes.iter().map(|change| {
                let before = change.previous.as_ref().map(|entry| entry.revision);
                (change.key.clone(), before, change.entry.as_deref().map(value))
            });
            told.push((revised.revision, changes.collect()));
            ControlFlow::Continue(())
        };
        let filter = Filter::prefix(Key::default());
        match self.replay().each(after, self.state.revision, &filter, &mut take).unwrap() {
            Replayed::Done => Ok(told),
            Replayed::Compacted(min) => Err(min),
        }
    }

    fn replay(&self) -> Replay {
        Replay::new(&self.checkpoints)
    }

    fn found(&self, name: &str, revision: u64) -> Option<(u64, u64, Bytes, u64)> {
        let found = self.replay().found_at(&key(name), revision).unwrap()?;
        Some((found.entry.revision, found.entry.version, found.payload.unwrap(), found.child_count))
    }
}

/// Copies the manifest before the tables: those that it names are there then, and stay. RocksDB may still remove tables
/// that no manifest names.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for of_tables in [false, true] {
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let is_table = file.path().extension().is_some_and(|extension| extension == "sst");
            if is_table != of_tables || file.file_type().is_ok_and(|kind| !kind.is_file()) {
                continue;
            }
            match std::fs::copy(file.path(), to.join(file.file_name())) {
                Err(error) if is_table && error.kind() == io::ErrorKind::NotFound => {}
                copied => assert!(copied.is_ok(), "{}: {copied:?}", file.path().display()),
            }
        }
    }
}

fn key(path: &str) -> Key {
    let bytes: String = path.split('/').map(|name| format!("\x02{name}\0")).collect();
    Key::from_bytes(bytes.as_bytes())
}

fn put(name: &str) -> Command {
    put_value(name, "value")
}

fn put_value(name: &str, value: &str) -> Command {
    Command::Put(Write::new(key(name), Bytes::copy_from_slice(value.as_bytes())))
}

fn delete(name: &str) -> Command {
    Command::Delete(key(name).into())
}

fn named(versions: &[(&str, u64)]) -> Vec<(String, u64)> {
    versions.iter().map(|(name, revision)| ((*name).to_owned(), *revision)).collect()
}

/// Puts, deletes and compactions of few names.
fn mixed(count: u64) -> Vec<Command> {
    let command = |n: u64| match n % 10 {
        3 => delete(&format!("{}", n % 4)),
        9 => Command::Compact { revision: n / 2 },
        _ => put_value(&format!("{}", n % 7), &format!("{n}")),
    };
    (0..count).map(command).collect()
}

#[test]
fn nothing_is_on_the_disk_before_a_checkpoint_and_all_of_it_after() {
    let mut stored = Stored::new();
    stored.apply([put("a"), put("b"), put("a")]);
    assert_eq!((stored.versions(), stored.crashed().state.revision), (vec![], 0));
    let told = stored.told(0);
    stored.checkpoint();
    assert_eq!(stored.versions(), named(&[("a", 3), ("a", 1), ("b", 2)]));
    let again = stored.crashed();
    assert_eq!((again.state.digest, again.state.revision), (stored.state.digest, 3));
    assert_eq!((again.told(0), stored.told(0)), (told.clone(), told));
}

#[test]
fn a_record_goes_once_all_in_it_is_compacted() {
    let mut stored = Stored::new();
    stored.apply([put("a"), put("b"), put("a")]);
    stored.checkpoint();
    stored.apply([put("a"), delete("b"), put("c")]);
    stored.checkpoint();
    let all = named(&[("a", 4), ("a", 3), ("a", 1), ("b", 5), ("b", 2), ("c", 6)]);
    assert_eq!(stored.versions(), all);

    stored.compact(2);
    stored.checkpoint();
    assert_eq!((stored.trimmed(), stored.versions()), (0, all));
    // On the disk still, and compacted for all that.
    assert_eq!((stored.told(1), stored.told(2).map(|told| told.len())), (Err(2), Ok(4)));

    stored.compact(5);
    assert_eq!(stored.told(4), Err(5), "before it is on the disk");
    stored.checkpoint();
    assert_eq!(stored.trimmed(), 3);
    assert_eq!(stored.versions(), named(&[("a", 4), ("a", 3), ("b", 5), ("b", 2), ("c", 6)]));

    stored.compact(6);
    stored.checkpoint();
    assert_eq!((stored.trimmed(), stored.versions()), (6, named(&[("a", 4), ("c", 6)])));
}

#[test]
fn what_is_compacted_before_a_checkpoint_never_gets_to_the_disk() {
    let mut stored = Stored::new();
    stored.apply([put("a"), put("b")]);
    stored.checkpoint();
    stored.apply([put("a"), put("a"), delete("b"), put("b"), delete("b"), put("c"), put("a")]);
    stored.compact(7);
    stored.checkpoint();
    // The last one of `a` was written behind what is compacted.
    assert_eq!(stored.versions(), named(&[("a", 9), ("a", 4), ("c", 8)]));
    assert_eq!((stored.trimmed(), stored.told(7).unwrap().len()), (7, 2));
    assert_eq!(stored.crashed().told(7), stored.told(7));
}

#[test]
fn the_past_is_the_same_in_memory_and_on_the_disk() {
    let mut stored = Stored::new();
    stored.apply(mixed(60));
    stored.checkpoint();
    stored.apply([put("1/x/y"), put("1/z"), delete("1/z"), put("1/u"), put("2/v")]);
    stored.apply(mixed(40));
    let look = |stored: &Stored| {
        let revisions = stored.state.compacted..=stored.state.revision;
        let found = |revision| ["0", "1", "2", "3", "1/u"].map(|name| stored.found(name, revision));
        (revisions.map(found).collect::<Vec<_>>(), stored.told(stored.state.compacted))
    };
    let before = look(&stored);
    stored.checkpoint();
    assert_eq!(look(&stored), before);
    assert_eq!(look(&stored.crashed()), before);
}

#[test]
fn nothing_stays_of_what_is_removed() {
    let mut stored = Stored::new();
    for round in 1..=3 {
        stored.apply((0..100).map(|n| put(&format!("{}", n % 10))));
        stored.checkpoint();
        stored.compact(round * 100);
        stored.checkpoint();
    }
    stored.db.compact_range_cf(&rocks::family(&stored.db, "state_0").unwrap(), None::<&[u8]>, None::<&[u8]>);
    let files = stored.db.live_files().unwrap();
    let state: Vec<_> = files.iter().filter(|file| file.column_family_name == "state_0").collect();
    let (entries, deletions): (u64, u64) =
        (state.iter().map(|f| f.num_entries).sum(), state.iter().map(|f| f.num_deletions).sum());
    // The newest versions, the header, and how many children the root has.
    assert_eq!((entries, deletions), (12, 0));
}

#[test]
fn what_a_crash_takes_is_applied_again() {
    let commands = mixed(200);
    let (durable, lost) = commands.split_at(120);
    let mut stored = Stored::new();
    for batch in durable.chunks(8) {
        stored.apply(batch.to_vec());
        stored.checkpoint();
    }
    let revision = stored.state.revision;
    lost.chunks(8).for_each(|batch| stored.apply(batch.to_vec()));

    // The log has its entries, in whatever batches.
    let mut again = stored.crashed();
    assert_eq!(again.state.revision, revision);
    for batch in lost.chunks(5) {
        again.apply(batch.to_vec());
        again.checkpoint();
    }
    assert_eq!(again.told(again.state.compacted), stored.told(stored.state.compacted));
    let revision = stored.state.revision;
    for stored in [&mut stored, &mut again] {
        stored.compact(revision);
        stored.checkpoint();
        assert_eq!(stored.trimmed(), revision);
    }
    assert_eq!(again.versions(), stored.versions());
    assert_eq!(again.versions().len(), stored.state.entries.len());
    assert_eq!(again.crashed().state.digest, stored.state.digest);
}

#[test]
fn a_new_history_leaves_nothing_of_the_one_before() {
    let mut stored = Stored::new();
    stored.apply([put("a"), put("b")]);
    stored.checkpoint();
    stored.apply([put("a"), delete("b"), Command::NewHistory { id: 7 }, put("c")]);
    let told = stored.told(stored.state.compacted);
    stored.checkpoint();
    assert_eq!(stored.versions(), named(&[("a", 3), ("c", stored.state.revision)]));
    assert_eq!((stored.told(stored.state.compacted), stored.trimmed()), (told, stored.state.compacted));
    assert_eq!(stored.crashed().state.digest, stored.state.digest);
}

#[test]
fn disk_is_not_given_back_while_an_older_snapshot_is_in_use() {
    let stored = Stored::new();
    let sent = stored.checkpoints.pin().unwrap();
    // A state without a last snapshot, and one whose last snapshot is the one in use, keep no new one.
    assert!(!stored.checkpoints.shrink(|_new| false).unwrap());
    drop(sent);
    assert!(stored.checkpoints.shrink(|_new| false).unwrap());
    let mut last = None;
    assert!(stored.checkpoints.shrink(|new| last.replace(new).is_none()).unwrap());
}
