//! The file SYNCED: how far the log was durable, kept outside of the log.
//!
//! A log whose end is cut off, or whose last file is gone, looks as after a crash. A member that went on with a shortened log could take
//! back what it promised. So after each sync the log's durable end and the vote are noted here,
//! and a log that holds less is refused.
//!
//! The note is written, not synced: it costs a microsecond. After a `kill -9` it is exact. After a
//! power cut it may be old, and then only says less; it is never ahead of the log, since it is
//! written after the sync. Before the log is truncated, the note is lowered and synced.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::sync::lock;
use crate::types::Vote;

use crate::files::slots::{self, SLOTS};

/// The file's name.
pub(crate) const FILE: &str = "SYNCED";
const MARKER_FORMAT: u8 = 1;

const SLOT_BYTES: u64 = 2048;

/// What is noted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    format: u8,
    member_id: u64,
    /// Rises with each note, and tells the newer slot.
    sequence: u64,
    /// The log is durable up to this index.
    pub synced: Option<u64>,
    /// The vote that is durable.
    pub vote: Option<Vote>,
    /// The log's last file ([`crate::log::segments`]).
    pub segment: u64,
}

impl Marker {
    /// Notes that the log holds nothing from this index on.
    pub fn truncate_from(&mut self, index: u64) {
        self.synced = self.synced.filter(|_| index > 0).map(|synced| synced.min(index - 1));
    }
}

/// The open file.
#[derive(Debug)]
pub struct MarkerFile {
    file: File,
    current: Mutex<Marker>,
}

impl MarkerFile {
    pub(crate) fn create(dir: &Path, member_id: u64) -> Result<Self, EngineError> {
        let path = dir.join(FILE);
        let failed = |error: std::io::Error| EngineError::from_io(&path, &error);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(failed)?;
        let marker =
            Self { file, current: Mutex::new(Marker { format: MARKER_FORMAT, member_id, ..Marker::default() }) };
        marker.file.set_len(SLOTS * SLOT_BYTES).map_err(failed)?;
        for _ in 0..SLOTS {
            marker.note(|_| {}).map_err(failed)?;
        }
        marker.file.sync_all().map_err(failed)?;
        crate::files::sync_dir(dir).map_err(failed)?;
        Ok(marker)
    }

    pub(crate) fn open(dir: &Path, member_id: u64) -> Result<Self, EngineError> {
        let path = dir.join(FILE);
        let corrupt = |detail: String| EngineError::Corrupt { what: "marker", detail };
        let file = File::options().read(true).write(true).open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => corrupt(format!("{FILE} is missing")),
            _ => EngineError::from_io(&path, &error),
        })?;
        let newest = read_newest(&file).map_err(|error| EngineError::from_io(&path, &error))?;
        let current = newest.ok_or_else(|| corrupt(format!("{FILE} does not match its checksums")))?;
        if current.member_id != member_id {
            return Err(corrupt(format!("{FILE} is of member {}, not {member_id}", current.member_id)));
        }
        Ok(Self { file, current: Mutex::new(current) })
    }

    /// Whether the file of `dir`, if there is a whole one, notes anything.
    pub(crate) fn is_used(dir: &Path) -> bool {
        let Ok(file) = File::open(dir.join(FILE)) else { return false };
        let newest = read_newest(&file).ok().flatten();
        newest.is_some_and(|marker| marker.synced.is_some() || marker.vote.is_some())
    }

    /// What is noted.
    pub fn current(&self) -> Marker {
        lock(&self.current).clone()
    }

    /// Changes the note, without a sync.
    ///
    /// # Errors
    /// The disk's.
    pub fn note(&self, change: impl FnOnce(&mut Marker)) -> std::io::Result<()> {
        let mut current = lock(&self.current);
        let mut next = current.clone();
        change(&mut next);
        next.sequence += 1;
        slots::write(&self.file, SLOT_BYTES, next.sequence, &next)?;
        *current = next;
        Ok(())
    }

    /// Makes the note durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

fn read_newest(file: &File) -> std::io::Result<Option<Marker>> {
    let whole = slots::read_all(file, SLOT_BYTES)?.into_iter();
    Ok(whole.filter(|marker: &Marker| marker.format == MARKER_FORMAT).max_by_key(|marker| marker.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_note_counts() {
        let dir = tempfile::tempdir().unwrap();
        let marker = MarkerFile::create(dir.path(), 7).unwrap();
        for index in 1..=5 {
            marker.note(|m| m.synced = Some(index)).unwrap();
        }
        drop(marker);
        assert_eq!(MarkerFile::open(dir.path(), 7).unwrap().current().synced, Some(5));
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        // Each slot spoilt alone: the other one counts. Both: refused.
        let first: Marker = slots::read(&File::open(&path).unwrap(), SLOT_BYTES, 0).unwrap().unwrap();
        let newest = if first.synced == Some(5) { 0 } else { 2048 };
        let mut torn = whole.clone();
        torn[newest + 8] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(MarkerFile::open(dir.path(), 7).unwrap().current().synced, Some(4));
        torn[2048 - newest + 8] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        assert!(matches!(MarkerFile::open(dir.path(), 7), Err(EngineError::Corrupt { what: "marker", .. })));
        std::fs::write(&path, &whole[..100]).unwrap();
        assert!(MarkerFile::open(dir.path(), 7).is_err() || newest == 0);
        std::fs::write(&path, &whole).unwrap();
        assert!(MarkerFile::open(dir.path(), 8).is_err(), "another member's");
    }
}
