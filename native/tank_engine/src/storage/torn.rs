//! The torn end of RocksDB's write-ahead log.
//!
//! A power cut in the middle of a write can leave a file with its new length, and zeros where the
//! data did not reach the disk any more. RocksDB takes zeros behind a record for the log's end, but
//! not zeros in a record: it refuses to open, as for any damage. Such a record is cut off here.
//!
//! Nothing that was reported durable goes with it: behind the zeros there is nothing, so the last
//! sync had not come this far. Should a disk have lied about a sync, the marker tells as always.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::records::{BLOCK_BYTES, HEADER_BYTES, Part, Record};

/// Cuts the torn end off the newest log in the database's directory `db`; false when it has none.
pub(super) fn cut(db: &Path) -> io::Result<bool> {
    let Some(path) = newest_log(db)? else { return Ok(false) };
    let Some(end) = torn_at(&fs::read(&path)?) else { return Ok(false) };
    tracing::warn!(?path, end, "cutting off the record that a crash left incomplete");
    let file = File::options().write(true).open(&path)?;
    file.set_len(end as u64)?;
    file.sync_all()?;
    Ok(true)
}

/// The newest log that is not empty. Logs are named by rising numbers: `000012.log`.
fn newest_log(db: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(db)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok());
        if number.is_some() && entry.metadata()?.len() > 0 {
            newest = newest.max(number.map(|number| (number, entry.path())));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the record begins that is zeros from somewhere inside it to the end of the file. `None`
/// when the log has no such record, also when it is damaged in another way.
fn torn_at(log: &[u8]) -> Option<usize> {
    let zeros_from = log.iter().rposition(|&byte| byte != 0)? + 1;
    let mut in_parts = false;
    for (number, block) in log.chunks(BLOCK_BYTES).enumerate() {
        let mut rest = block;
        while let Some(record) = Record::first(rest) {
            let at = number * BLOCK_BYTES + block.len() - rest.len();
            if record.is_blank() {
                // An end as it should be, but in the middle of a record of several parts.
                return (in_parts && zeros_from <= at + HEADER_BYTES).then_some(at);
            }
            let Some(behind) = record.behind().filter(|_| record.is_whole()) else {
                return (zeros_from < at + record.bytes).then_some(at);
            };
            match record.part() {
                Part::More => in_parts = true,
                Part::Last => in_parts = false,
                Part::Other => {}
            }
            rest = behind;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::rocks::{self, Db};
    use super::*;

    const WRITES: usize = 8;

    /// A database as a crash would leave it, and the bytes of its log.
    fn crashed(value_bytes: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let live = tempfile::tempdir().unwrap();
        let db = rocks::open(live.path(), true).unwrap();
        for write in 0..WRITES {
            let family = rocks::family(&db, rocks::META).unwrap();
            db.put_cf(&family, key(write), vec![7; value_bytes]).unwrap();
        }
        db.flush_wal(false).unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_db(live.path(), copy.path());
        let log = newest_log(&copy.path().join("db")).unwrap().unwrap();
        let bytes = fs::read(&log).unwrap();
        (copy, log, bytes)
    }

    fn copy_db(from: &Path, to: &Path) {
        fs::create_dir(to.join("db")).unwrap();
        for entry in fs::read_dir(from.join("db")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join("db").join(entry.file_name())).unwrap();
        }
    }

    fn key(write: usize) -> [u8; 8] {
        (write as u64).to_be_bytes()
    }

    /// How many of the writes are there; they must be the first ones.
    fn count(db: &Db) -> usize {
        let family = rocks::family(db, rocks::META).unwrap();
        let there = (0..WRITES).map(|write| db.get_cf(&family, key(write)).unwrap().is_some());
        let there: Vec<bool> = there.collect();
        let count = there.iter().take_while(|&&there| there).count();
        assert!(there.iter().skip(count).all(|there| !there), "a gap: {there:?}");
        count
    }

    /// Opens copies whose log is zeros from each of `from` on, and returns what they hold.
    fn counts_torn(value_bytes: usize, from: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
        let (dir, log, bytes) = crashed(value_bytes);
        let open_torn = |from: usize| {
            let torn = tempfile::tempdir().unwrap();
            copy_db(dir.path(), torn.path());
            let file = File::options().write(true).open(torn.path().join("db").join(log.file_name().unwrap())).unwrap();
            file.write_all_at(&vec![0; bytes.len() - from + 5000], from as u64).unwrap();
            count(&rocks::open(torn.path(), false).unwrap())
        };
        from(bytes.len()).into_iter().map(open_torn).collect()
    }

    #[test]
    fn a_log_that_ends_in_zeros_opens_wherever_they_begin() {
        // Every byte of the last writes: headers, bodies and borders.
        let counts = counts_torn(40, |end| (end - 160..end).collect());
        assert!(counts.is_sorted() && counts.contains(&(WRITES - 1)) && !counts.contains(&0), "{counts:?}");
        // Records in several parts, each in a block of its own.
        let counts = counts_torn(100_000, |end| (end / 2..end).step_by(4096).collect());
        assert!(counts.is_sorted() && counts.contains(&(WRITES / 2)), "{counts:?}");
        let counts =
            counts_torn(100_000, |end| (end / 2 / BLOCK_BYTES * BLOCK_BYTES..end).step_by(BLOCK_BYTES).collect());
        assert!(counts.is_sorted(), "{counts:?}");
    }

    #[test]
    fn other_damage_is_refused_and_left_as_it_is() {
        let (dir, log, bytes) = crashed(3000);
        for at in [bytes.len() / 2, bytes.len() - 100] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&log, &flipped).unwrap();
            assert!(rocks::open(dir.path(), false).is_err(), "a flipped byte at {at}");
            // A hole: behind it there are records that may have been durable.
            let mut hole = bytes.clone();
            hole[bytes.len() / 2..][..500].fill(0);
            fs::write(&log, &hole).unwrap();
            assert!(rocks::open(dir.path(), false).is_err(), "zeros at {at}, and more records");
            assert_eq!(fs::read(&log).unwrap(), hole);
        }
    }
}
