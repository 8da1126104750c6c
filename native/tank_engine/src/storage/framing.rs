//! A look at RocksDB's log files before RocksDB reads them.
//!
//! Its reader does not end when a record's type was damaged into one that only recycled logs have:
//! it reports a bad record and stays where it is (`log::Reader::ReadPhysicalRecord` in 11.8). One
//! flipped bit makes a type of those of another, and a store must not spin at its start. Our logs
//! are never recycled, so such a type is damage, in whatever mode RocksDB reads. All other damage
//! it finds itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::EngineError;

use super::records::{BLOCK_BYTES, Record};

/// Looks at the write-ahead logs and manifests in `db`, the database of the store in `dir`.
///
/// # Errors
/// [`EngineError::Corrupt`] when RocksDB could not read one to its end; or the disk's.
pub(super) fn check(db: &Path, dir: &Path) -> Result<(), EngineError> {
    let entries = match fs::read_dir(db) {
        Ok(entries) => entries,
        // RocksDB says it better.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EngineError::from_io(dir, &error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| EngineError::from_io(dir, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.ends_with(".log") && !name.starts_with("MANIFEST-") {
            continue;
        }
        if !is_readable(&path).map_err(|error| EngineError::from_io(dir, &error))? {
            let detail = format!("{name} holds a record of a kind that is never written");
            return Err(EngineError::Corrupt { what: "database", detail });
        }
    }
    Ok(())
}

fn is_readable(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut block = Vec::new();
    loop {
        block.clear();
        if file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            return Ok(true);
        }
        if !is_block_readable(&block) {
            return Ok(false);
        }
    }
}

fn is_block_readable(mut rest: &[u8]) -> bool {
    while let Some(record) = Record::first(rest) {
        if record.is_recycled() {
            return false;
        }
        // What has no end or no kind ends the block for RocksDB too.
        let Some(behind) = record.behind().filter(|_| !record.is_blank()) else { break };
        rest = behind;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_le_bytes();
        [&[0; 4], &length[..], &[kind], body].concat()
    }

    #[test]
    fn a_recycled_kind_is_refused_wherever_a_record_begins() {
        let whole = [record(1, b"one"), record(2, &[5; 100]), record(4, b"")].concat();
        assert!(is_block_readable(&whole) && is_block_readable(&[]));
        for kind in [5, 6, 7, 8, 11, 131] {
            assert!(!is_block_readable(&[&whole[..], &record(kind, b"x")].concat()), "{kind}");
        }
    }

    #[test]
    fn a_torn_end_and_zeros_are_a_crash() {
        let whole = [record(1, b"one"), record(1, &[5; 100])].concat();
        for end in 0..whole.len() {
            assert!(is_block_readable(&whole[..end]), "cut at {end}");
        }
        assert!(is_block_readable(&[&whole[..], &[0; 600]].concat()));
    }
}
