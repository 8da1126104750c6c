use tempfile::TempDir;

use super::*;
use crate::storage::rocks::{self, Db};

/// A database with a history in it.
struct History {
    db: Db,
    _dir: TempDir,
}

impl History {
    /// Of revisions that were applied in batches of these sizes, each with the names `names` gives.
    fn of(batches: &[u64], names: impl Fn(u64) -> Revision) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = rocks::open(dir.path(), true).unwrap();
        let history = Self { db, _dir: dir };
        let mut numbers = 1..;
        for size in batches {
            let mut writer = Writer::default();
            for number in numbers.by_ref().take(usize::try_from(*size).unwrap()) {
                writer.add(number, &names(number)).unwrap();
            }
            writer.finish().into_iter().for_each(|(last, record)| history.set(last, Some(&record)));
        }
        history
    }

    fn iterator(&self) -> rocksdb::DBRawIteratorWithThreadMode<'_, Db> {
        self.db.raw_iterator_cf(&rocks::family(&self.db, "state_0").unwrap())
    }

    fn after(&self, revision: u64) -> Result<Vec<(u64, Revision)>, EngineError> {
        Revisions::after(&mut self.iterator(), revision).collect()
    }

    fn check(&self, trimmed: u64, revision: u64) -> Result<(), EngineError> {
        check(&mut self.iterator(), trimmed, revision)
    }

    /// Each record's last revision and size.
    fn records(&self) -> Vec<(u64, usize)> {
        let mut iterator = self.iterator();
        iterator.seek_to_first();
        let mut records = Vec::new();
        while let Some((key, value)) = iterator.item() {
            records.push((u64::from_be_bytes(key[1..].try_into().unwrap()), value.len()));
            iterator.next();
        }
        records
    }

    fn get(&self, last: u64) -> Vec<u8> {
        self.db.get_cf(&rocks::family(&self.db, "state_0").unwrap(), key(last)).unwrap().unwrap()
    }

    fn set(&self, last: u64, value: Option<&[u8]>) {
        let family = rocks::family(&self.db, "state_0").unwrap();
        match value {
            Some(value) => self.db.put_cf(&family, key(last), value).unwrap(),
            None => self.db.delete_cf(&family, key(last)).unwrap(),
        }
    }
}

/// As many changes as the number says, up to three.
fn names(number: u64) -> Revision {
    let change = |n: u64| ChangeRecord {
        key: Key::from_bytes(format!("\x02{n}\0").as_bytes()),
        previous: number - 1,
        kind: [Kind::Written, Kind::Deleted, Kind::Expired][n as usize % 3],
    };
    Revision { time_ms: 1_700_000_000_000 + number, changes: (0..number % 4).map(change).collect() }
}

fn detail<T: std::fmt::Debug>(result: Result<T, EngineError>) -> String {
    match result {
        Err(EngineError::Corrupt { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn revisions_come_back_from_any_one_on() {
    let history = History::of(&[1, 5, 1, 3], names);
    assert_eq!(history.records().iter().map(|(last, _)| *last).collect::<Vec<_>>(), [1, 6, 7, 10]);
    for after in 0..=11 {
        let expected: Vec<_> = (after + 1..=10).map(|number| (number, names(number))).collect();
        assert_eq!(history.after(after), Ok(expected), "after {after}");
    }
}

#[test]
fn a_record_is_bounded_and_a_revision_never_split() {
    let many = History::of(&[600], names);
    assert_eq!(many.records().iter().map(|(last, _)| *last).collect::<Vec<_>>(), [256, 512, 600]);
    assert_eq!(many.after(0).unwrap().len(), 600);

    let change = |n: u64| ChangeRecord {
        key: Key::from_bytes(format!("\x02{n:0>200}\0").as_bytes()),
        previous: 0,
        kind: Kind::Written,
    };
    // One of more than 64 KiB between small ones, then many that fill records together.
    let large =
        |number| Revision { time_ms: 0, changes: (0..if number == 3 { 500 } else { 20 }).map(change).collect() };
    let history = History::of(&[40], large);
    let records = history.records();
    assert_eq!(records[0].0, 3);
    assert!(records.len() > 2 && records[1..].iter().all(|(_, size)| *size < 80 << 10), "{records:?}");
    assert_eq!(history.after(0).unwrap(), (1..=40).map(|n| (n, large(n))).collect::<Vec<_>>());
}

#[test]
fn a_whole_history_is_whole_and_no_other() {
    let history = History::of(&[4, 3, 5], names);
    for trimmed in [0, 4, 7, 12] {
        assert_eq!(history.check(trimmed, 12), Ok(()), "trimmed to {trimmed}");
    }
    assert_eq!(detail(history.check(0, 13)), "it ends at revision 12, not 13");
    assert_eq!(detail(history.check(0, 11)), "it ends at revision 12, not 11");
    assert_eq!(detail(history.check(5, 12)), "revision 5 stands in two records");
    assert_eq!(History::of(&[], names).check(0, 0), Ok(()));
}

#[test]
fn a_lost_record_is_a_gap() {
    let history = History::of(&[4, 3, 5], names);
    history.set(7, None);
    assert_eq!(detail(history.check(0, 12)), "revision 5 is missing");
    assert_eq!(detail(history.after(0)), "revision 5 is missing");
    assert_eq!(detail(history.after(5)), "revision 6 is missing");
    assert_eq!(history.after(7).unwrap().len(), 5);
    history.set(12, None);
    assert_eq!(detail(history.check(0, 12)), "it ends at revision 4, not 12");
}

#[test]
fn a_damaged_record_is_refused() {
    let history = History::of(&[4, 3, 5], names);
    let whole = history.get(7);
    let begins = |first: u64| [&first.to_be_bytes()[..], &whole[8..]].concat();
    for (value, what) in [(whole[..7].to_vec(), "too short"), (begins(6), "5 is missing"), (begins(8), "5 is missing")]
    {
        history.set(7, Some(&value));
        assert!(detail(history.check(0, 12)).contains(what), "{what}");
        assert!(detail(history.after(0)).contains(what), "{what}");
    }
    history.set(7, Some(&begins(4)));
    assert_eq!(detail(history.check(0, 12)), "revision 4 stands in two records");
    // Less or more in it than it says.
    for value in [whole[..whole.len() - 1].to_vec(), [&whole[..], b"\x00"].concat(), begins(4)] {
        history.set(7, Some(&value));
        detail(history.after(4));
    }
}
