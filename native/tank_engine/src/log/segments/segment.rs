//! One file of the log: made whole, written at its end, removed whole or written anew.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::raft::{LogId, Vote};
use crate::storage::sync_dir;

use super::record::{self, Kind, Place};

/// Space is reserved on the disk in steps of this: a sync then seldom has to make the file's new
/// length durable too, and a full disk is noticed before anything is written.
const RESERVE_BYTES: u64 = 1 << 20;

/// Before a batch of up to so many bytes, zeros are written ahead of it instead. Where space is only
/// reserved, a sync has to make durable, with a second wait for the disk, that there is something in it
/// now: with one to sixteen writers that is a third of its time. A large batch has to wait for its
/// own bytes anyway, and would have them written twice.
const SMALL_BATCH_BYTES: usize = 16 << 10;

/// How far ahead: the sync that has the zeros to write as well takes twice as long.
const ZEROS_BYTES: u64 = 64 << 10;

const SUFFIX: &str = ".segment";
const SPARE_SUFFIX: &str = "spare";

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
    /// Up to here there is space for it; no less than `bytes`.
    pub(super) reserved: u64,
}

/// The file of a segment that nobody needs any more, for a later one.
///
/// Where a file was written before, a sync has nothing to do but to write: its blocks and its length
/// are known. It takes three quarters of the time. What stands there is taken for nothing: the number
/// of the segment is in the checksum of each record.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Segment {
    /// Makes segment `number` in `dir`. After a crash it is there, with its head, or it is not.
    pub(super) fn create(dir: &Path, number: u64, head: &Head, spare: Option<Spare>) -> io::Result<(Self, End)> {
        let path = dir.join(name(number));
        let mut bytes = Vec::new();
        record::put(&mut bytes, Place { segment: number, offset: 0 }, Kind::Head, &[], head)?;
        let Spare { file, path: temporary, bytes: reserved } = match spare {
            Some(spare) => spare,
            None => Spare::new(path.with_extension("tmp"))?,
        };
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_dir(dir)?;
        let bytes = bytes.len() as u64;
        // A spare one may have been shorter.
        let end = End { bytes, synced: bytes, reserved: reserved.max(bytes) };
        Ok((Self { number, file, path }, end))
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
        Ok(End { bytes, synced: bytes, reserved: bytes })
    }

    /// Writes `bytes` at the end, without a sync.
    pub(super) fn append(&self, end: &mut End, bytes: &[u8]) -> io::Result<()> {
        let behind = end.bytes + bytes.len() as u64;
        if behind > end.reserved {
            end.reserved = if bytes.len() <= SMALL_BATCH_BYTES {
                write_zeros(&self.file, end.reserved, behind.next_multiple_of(ZEROS_BYTES))?
            } else {
                reserve(&self.file, end.reserved, behind.next_multiple_of(RESERVE_BYTES))?
            };
        }
        self.file.write_all_at(bytes, end.bytes)?;
        end.bytes = behind;
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

    /// Removes the file. Who still reads it can go on.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Sets the file, which is in `dir`, aside. Nobody may read it any more.
    pub(super) fn into_spare(self, dir: &Path) -> io::Result<Spare> {
        let path = self.path.with_extension(SPARE_SUFFIX);
        fs::rename(&self.path, &path)?;
        // Or a crash may bring the name back when there is something else in the file.
        sync_dir(dir)?;
        let bytes = self.file.metadata()?.len();
        Ok(Spare { file: self.file, path, bytes })
    }
}

impl Spare {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A file that was never written.
    fn new(path: PathBuf) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let bytes = write_zeros(&file, 0, ZEROS_BYTES)?;
        Ok(Self { file, path, bytes })
    }
}

/// The numbers of the segments in `dir`, in order. What is none, a spare or a crash's rest of one that
/// was being made, is removed.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "tmp" || extension == SPARE_SUFFIX) {
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

/// Writes zeros from `from` to `to`, which it returns.
fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<u64> {
    let bytes = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    file.write_all_at(&vec![0; bytes], from)?;
    Ok(to)
}

/// Reserves the space from `from` to `to`, which it returns. Where the system cannot, the file grows as it is written.
fn reserve(file: &File, from: u64, to: u64) -> io::Result<u64> {
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, to - from) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        reserved => reserved?,
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, from);
    Ok(to)
}
