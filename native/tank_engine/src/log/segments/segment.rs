//! One file of the log: made whole, written at its end, removed whole or written anew.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::sync_dir;
use crate::types::{LogId, Vote};

use super::ahead::Ready;
use super::record::{self, Kind, Place};

const SUFFIX: &str = ".segment";

/// The extension of a file that is none yet.
pub(super) const TEMPORARY: &str = "tmp";

/// What each segment begins with, so that it needs nothing of those before it but their entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Whose log it is.
    pub(super) member_id: u64,
    /// Where the segment before ended.
    pub(super) previous_bytes: u64,
    /// The index of the next entry; none when there was never one.
    pub(super) next: Option<u64>,
    /// See [`crate::log::disk::Recovered`].
    pub(super) purged: Option<LogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: File,
    path: PathBuf,
}

/// Where the segment that is written ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Behind its last record.
    pub(super) bytes: u64,
    /// Up to here it is durable.
    pub(super) synced: u64,
    /// Of the file: what is behind `bytes` was written before.
    pub(super) file_bytes: u64,
}

impl Segment {
    /// Makes the first segment of a log in `dir`. After a crash it is there, with its head, or it is not.
    pub(super) fn create_first(dir: &Path, head: &Head) -> io::Result<()> {
        let (number, mut bytes) = (1, Vec::new());
        record::put(&mut bytes, Place { segment: number, offset: 0 }, Kind::Head, &[], head)?;
        let path = dir.join(name(number));
        let temporary = path.with_extension(TEMPORARY);
        let file = File::options().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_dir(dir)
    }

    /// Makes segment `number`, which is not begun, of an empty file.
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<Self> {
        let path = dir.join(name(number));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        sync_dir(dir)?;
        Ok(Self::new(number, file, path))
    }

    /// Segment `number`, whose file this is.
    pub(super) fn new(number: u64, file: File, path: PathBuf) -> Self {
        Self { number, file, path }
    }

    pub(super) fn open(dir: &Path, number: u64) -> io::Result<Self> {
        let path = dir.join(name(number));
        Ok(Self { number, file: File::options().read(true).write(true).open(&path)?, path })
    }

    /// Ends it at `bytes`: what comes after is no part of it, and must never look as if it were. Writes again what
    /// it holds from `synced` on, so that the sync covers it.
    pub(super) fn end_at(&self, bytes: u64, synced: u64, unsynced: &[u8]) -> io::Result<End> {
        self.file.write_all_at(unsynced, synced)?;
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        Ok(End { bytes, synced: bytes, file_bytes: bytes })
    }

    /// Writes `bytes` at the end, without a sync.
    pub(super) fn append(&self, end: &mut End, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, end.bytes)?;
        end.bytes += bytes.len() as u64;
        end.file_bytes = end.file_bytes.max(end.bytes);
        Ok(())
    }

    pub(super) fn sync(&self, end: &mut End) -> io::Result<()> {
        self.file.sync_data()?;
        end.synced = end.bytes;
        Ok(())
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

impl End {
    /// The end of a segment that is not begun.
    pub(super) fn of(ready: &Ready) -> Self {
        Self { bytes: 0, synced: 0, file_bytes: ready.bytes }
    }

    /// Bytes behind it that were written before.
    pub(super) fn room(&self) -> u64 {
        self.file_bytes - self.bytes
    }
}

/// The numbers of the segments in `dir`, in order. What a crash left of one that was being made is removed.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
        numbers.extend(number(&entry.file_name()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number of the segment in the file of this name, if it is one's.
pub(super) fn number(name: &std::ffi::OsStr) -> Option<u64> {
    name.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The name of a segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:08}{SUFFIX}")
}
