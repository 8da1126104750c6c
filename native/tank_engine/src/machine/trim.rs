//! Removes compacted revisions from the disk, a bounded number with each batch.

use crate::error::EngineError;

use super::batch::StateBatch;
use super::history::{self, Record};

/// How far compacted revisions are gone from the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Up to here.
    revision: u64,
    /// The next ones stay until this one is compacted: it shares their record. Saves a look at the
    /// disk with each batch until then. No larger than `revision` when it is not known.
    kept_by: u64,
}

impl Trimmed {
    /// Up to a revision, as a header says.
    pub fn to(revision: u64) -> Self {
        Self { revision, kept_by: 0 }
    }

    /// Whether something is to be removed, when `compacted` is the oldest revision that can be read.
    pub(super) fn is_behind(self, compacted: u64) -> bool {
        compacted > self.revision && compacted >= self.kept_by
    }

    /// The revision up to which they are gone.
    pub fn revision(self) -> u64 {
        self.revision
    }
}

impl StateBatch<'_> {
    /// Adds the removal of what only compacted revisions need. Records go whole: the first one always,
    /// if all in it is compacted, and no more once `revisions_max` revisions or more are gone.
    ///
    /// # Errors
    /// The history is damaged.
    pub fn put_trim(&mut self, trimmed: Trimmed, compacted: u64, revisions_max: u64) -> Result<Trimmed, EngineError> {
        if !trimmed.is_behind(compacted) {
            return Ok(trimmed);
        }
        let mut iterator = self.db.raw_iterator_cf(&self.family);
        iterator.seek(history::key(trimmed.revision + 1));
        let mut gone = trimmed.revision;
        while gone - trimmed.revision < revisions_max {
            // Those that this batch makes are not there yet: the next one removes them.
            let Some(record) = Record::holding(gone + 1, &iterator) else { break };
            let record = record?;
            if record.last() > compacted {
                return Ok(Trimmed { revision: gone, kept_by: record.last() });
            }
            for (number, revision) in record.decode()? {
                for (key, version) in revision.replaced(number) {
                    self.remove_version(key, version);
                }
            }
            gone = record.last();
            self.remove_history(gone);
            iterator.next();
        }
        iterator.status().map_err(|error| EngineError::from_rocks_read(history::WHAT, &error))?;
        Ok(Trimmed::to(gone))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;
    use crate::command::{Command, Condition, Delete, Request, RequestId, Write};
    use crate::key::Key;
    use crate::machine::version_key::{self, ENTRY};
    use crate::machine::{Header, Replay, Replayed, StateStore};
    use crate::raft::StoredMembership;
    use crate::state::{Sessions, State};
    use crate::storage::rocks::{self, Db};
    use crate::watch::Filter;

    /// A state with its store, without a raft core.
    struct Stored {
        store: StateStore,
        state: State,
        trimmed: Trimmed,
        db: Arc<Db>,
        dir: TempDir,
    }

    impl Stored {
        fn new() -> Self {
            Self::open(tempfile::tempdir().unwrap(), true)
        }

        fn open(dir: TempDir, create: bool) -> Self {
            let db = Arc::new(rocks::open(dir.path(), create).unwrap());
            let store = StateStore::open(Arc::clone(&db), dir.path()).unwrap();
            let (state, header) = store.load(&Arc::default()).unwrap();
            Self { store, state, trimmed: Trimmed::to(header.trimmed), db, dir }
        }

        /// What is there after a crash at this moment.
        fn crashed(&self) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join(rocks::DIR)).unwrap();
            for file in std::fs::read_dir(self.dir.path().join(rocks::DIR)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), dir.path().join(rocks::DIR).join(file.file_name())).unwrap();
            }
            Self::open(dir, false)
        }

        /// Makes all durable, and brings all of it together.
        fn settle(&self) {
            self.store.flush().unwrap();
            self.db.compact_range_cf(&rocks::family(&self.db, "state_0").unwrap(), None::<&[u8]>, None::<&[u8]>);
        }

        /// Applies commands with one write, and trims with it.
        fn apply(&mut self, commands: impl IntoIterator<Item = Command>, trim_max: u64) {
            let mut batch = self.store.batch(0).unwrap();
            for (sequence, command) in (1..).zip(commands) {
                let id = RequestId { client: 1, sequence, resolved_below: sequence };
                let applied = self.state.apply(&Request { id, time_ms: 7, command, seen_ms: 0 }, 1);
                batch.put_applied(&applied, 7).unwrap();
            }
            // What is remembered of requests is not written here.
            self.state.sessions = Sessions::default();
            self.trimmed = batch.put_trim(self.trimmed, self.state.compacted, trim_max).unwrap();
            let header = Header::new(&self.state, None, StoredMembership::default(), self.trimmed.revision());
            batch.put_header(&header).unwrap();
            self.store.write(batch).unwrap();
        }

        fn compact(&mut self, revision: u64, trim_max: u64) -> u64 {
            self.apply([Command::Compact { revision }], trim_max);
            self.trimmed.revision()
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

        /// The revisions that a reader is given behind one.
        fn read(&self, after: u64) -> Result<Vec<u64>, u64> {
            let mut given = Vec::new();
            let filter = Filter::prefix(Key::default());
            let mut take = |revised: crate::watch::Revised| {
                given.push(revised.revision);
                ControlFlow::Continue(())
            };
            match Replay::new(&self.db).each(after, u64::MAX, &filter, &mut take).unwrap() {
                Replayed::Done => Ok(given),
                Replayed::Compacted(min) => Err(min),
            }
        }
    }

    fn key(name: &str) -> Key {
        Key::from_bytes(format!("\x02{name}\0").as_bytes())
    }

    fn put(name: &str) -> Command {
        Command::Put(Write::new(key(name), Bytes::from_static(b"value")))
    }

    fn delete(name: &str) -> Command {
        Command::Delete(Delete { key: key(name), condition: Condition::Always })
    }

    fn named(versions: &[(&str, u64)]) -> Vec<(String, u64)> {
        versions.iter().map(|(name, revision)| ((*name).to_owned(), *revision)).collect()
    }

    #[test]
    fn a_record_goes_once_all_in_it_is_compacted() {
        let mut stored = Stored::new();
        stored.apply([put("a"), put("b"), put("a")], 100);
        stored.apply([put("a"), delete("b"), put("c")], 100);
        let all = named(&[("a", 4), ("a", 3), ("a", 1), ("b", 5), ("b", 2), ("c", 6)]);
        assert_eq!(stored.versions(), all);

        assert_eq!(stored.compact(2, 100), 0);
        assert_eq!(stored.trimmed, Trimmed { revision: 0, kept_by: 3 });
        assert_eq!(stored.versions(), all);
        // On the disk still, and compacted for all that.
        assert_eq!((stored.read(1), stored.read(2)), (Err(2), Ok(vec![3, 4, 5, 6])));

        assert_eq!(stored.compact(5, 100), 3);
        assert_eq!(stored.trimmed, Trimmed { revision: 3, kept_by: 6 });
        assert_eq!(stored.versions(), named(&[("a", 4), ("a", 3), ("b", 5), ("b", 2), ("c", 6)]));
        assert_eq!((stored.read(3), stored.read(4), stored.read(5)), (Err(5), Err(5), Ok(vec![6])));

        assert_eq!(stored.compact(6, 100), 6);
        assert_eq!(stored.versions(), named(&[("a", 4), ("c", 6)]));
        let (state, header) = stored.store.load(&Arc::default()).unwrap();
        assert_eq!((state.revision, header.compacted, header.trimmed), (6, 6, 6));
    }

    #[test]
    fn trimming_goes_on_batch_by_batch_and_over_large_records() {
        let mut stored = Stored::new();
        for size in [30, 4, 4, 4, 4] {
            stored.apply((0..size).map(|_| put("a")), 10);
        }
        // Larger than what a batch may remove: it goes whole, and nothing with it.
        assert_eq!(stored.compact(46, 10), 30);
        // The third of these exceeds it.
        assert_eq!(stored.compact(46, 10), 42);
        // A batch that changes nothing goes on with it.
        stored.apply([], 10);
        assert_eq!(stored.trimmed, Trimmed::to(46));
        assert_eq!(stored.versions(), named(&[("a", 46)]));
    }

    #[test]
    fn what_is_made_and_compacted_at_once_goes_with_the_next_batch() {
        let mut stored = Stored::new();
        stored.apply([put("a"), put("a"), Command::Compact { revision: 2 }], 10);
        assert_eq!((stored.trimmed, stored.versions().len()), (Trimmed::to(0), 2));
        stored.apply([], 10);
        assert_eq!((stored.trimmed, stored.versions().len()), (Trimmed::to(2), 1));
    }

    #[test]
    fn nothing_stays_of_what_is_removed() {
        let mut stored = Stored::new();
        let written = |range: std::ops::Range<u32>| range.map(|n| put(&format!("{}", n % 10)));
        stored.apply(written(0..100), 1000);
        // Some of it removed where it was put, in memory, and some when it is in a file.
        stored.compact(100, 1000);
        stored.apply(written(0..100), 1000);
        stored.store.flush().unwrap();
        stored.compact(200, 1000);
        stored.settle();
        let files = stored.db.live_files().unwrap();
        let state: Vec<_> = files.iter().filter(|file| file.column_family_name == "state_0").collect();
        let (entries, deletions): (u64, u64) =
            (state.iter().map(|f| f.num_entries).sum(), state.iter().map(|f| f.num_deletions).sum());
        // The newest versions and the header.
        assert_eq!((entries, deletions), (11, 0));
        assert_eq!(stored.store.load(&Arc::default()).unwrap().0.digest, stored.state.digest);
    }

    #[test]
    fn what_a_crash_takes_is_put_and_removed_again() {
        let command = |n: u64| match n % 10 {
            3 => delete(&format!("{}", n % 4)),
            9 => Command::Compact { revision: n / 2 },
            _ => put(&format!("{}", n % 7)),
        };
        let commands: Vec<_> = (0..200).map(command).collect();
        let (durable, lost) = commands.split_at(120);
        let mut stored = Stored::new();
        durable.chunks(8).for_each(|batch| stored.apply(batch.to_vec(), 10));
        stored.store.flush().unwrap();
        let revision = stored.state.revision;
        lost.chunks(8).for_each(|batch| stored.apply(batch.to_vec(), 10));

        // The log has its entries, in whatever batches.
        let mut again = stored.crashed();
        assert_eq!(again.state.revision, revision);
        assert!(again.trimmed.revision() < stored.trimmed.revision());
        lost.chunks(5).for_each(|batch| again.apply(batch.to_vec(), 10));
        again.settle();
        assert_eq!(again.read(again.state.compacted), stored.read(stored.state.compacted));

        let revision = stored.state.revision;
        for stored in [&mut stored, &mut again] {
            assert_eq!(stored.compact(revision, 1000), revision);
            stored.settle();
        }
        assert_eq!(again.versions(), stored.versions());
        assert_eq!(again.versions().len(), stored.state.entries.len());
        assert_eq!(again.crashed().state.digest, stored.state.digest);
    }
}
