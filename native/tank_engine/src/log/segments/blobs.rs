//! Large commands, each in a file of its own, to which the record of its entry refers.
//!
//! ```text
//! <dir>/log/1f0c9a27b8d3e465.blob   the MessagePack of one command
//! ```
//!
//! Small entries behind a large one in a segment would be durable only after it. So a large command is written before
//! its entry is logged, in slices, and the entry is as short as others: small entries pass it meanwhile. That happens
//! twice over: in the background, by members that hold a command until it is logged ([`Blobs::stage`]); and by the
//! writer, for an entry whose command was not staged.
//!
//! A file and its name are durable before the record that refers to it is written, so one that a record refers to is
//! whole, or damaged. One to which no record refers is removed: when its entry is truncated or purged, once that is
//! durable; when its command is not logged after all; and when the log is opened.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::command::{Command, Request, RequestId};
use crate::files::sync_dir;
use crate::reclaim;
use crate::sync::lock;
use crate::types::random_id;
use crate::types::{LogEntry, LogId};

use super::{damaged, record};

/// So much is written and synced at a time: what others write waits no longer.
const SLICE_BYTES: usize = 1 << 20;

/// What is written or read at once, where a command consists of many parts.
const BUFFER_BYTES: usize = 64 << 10;

const EXTENSION: &str = "blob";

/// A command in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    /// Its name: random, so that none is ever used again.
    id: u64,
    bytes: u64,
    /// CRC-32C.
    checksum: u32,
}

/// A log entry without its command, as its record has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Detached {
    log_id: LogId,
    id: RequestId,
    time_ms: u64,
    seen_ms: u64,
    pub(super) blob: Blob,
}

/// The files of one log.
#[derive(Debug)]
pub(super) struct Blobs {
    dir: PathBuf,
    /// Those whose entries are not written yet; `None` while the file is being written.
    staged: Mutex<HashMap<Key, Staged>>,
    /// Held by those that stage.
    staging: RwLock<()>,
    ended: AtomicBool,
}

/// A request, whatever it says of others.
type Key = (u64, u64);

#[derive(Debug)]
struct Staged {
    /// Of the command.
    size: usize,
    /// Tells apart those of the same request.
    id: u64,
    blob: Option<Blob>,
}

/// Files that are removed when this is dropped.
struct Unneeded(Vec<PathBuf>);

impl Blob {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn path(&self, dir: &Path) -> PathBuf {
        path(dir, self.id)
    }

    /// Checks that all of it is there.
    pub(super) fn check(&self, dir: &Path) -> io::Result<()> {
        let mut checked = Checked { bytes: 0, checksum: 0 };
        io::copy(&mut self.open(dir)?, &mut checked)?;
        if (checked.bytes, checked.checksum) == (self.bytes, self.checksum) { Ok(()) } else { Err(self.damaged()) }
    }

    fn read(&self, dir: &Path) -> io::Result<Command> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0));
        io::copy(&mut self.open(dir)?, &mut bytes)?;
        if bytes.len() as u64 != self.bytes || crc32c::crc32c(&bytes) != self.checksum {
            return Err(self.damaged());
        }
        record::decode(&bytes).map_err(|why| io::Error::other(damaged(why)))
    }

    fn open(&self, dir: &Path) -> io::Result<File> {
        File::open(self.path(dir)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other(damaged(format!("{} is missing", self.name()))),
            _ => error,
        })
    }

    fn name(&self) -> String {
        name(self.id)
    }

    fn damaged(&self) -> io::Error {
        io::Error::other(damaged(format!("{} does not match its checksum", self.name())))
    }
}

impl Detached {
    pub(super) fn new(log_id: LogId, request: &Request, blob: Blob) -> Self {
        Self { log_id, id: request.id, time_ms: request.time_ms, seen_ms: request.seen_ms, blob }
    }

    /// The whole entry.
    pub(super) fn read(self, dir: &Path) -> io::Result<LogEntry> {
        use openraft::entry::RaftEntry;
        let Self { log_id, id, time_ms, seen_ms, blob } = self;
        let command = blob.read(dir)?;
        Ok(LogEntry::new_normal(log_id, Arc::new(Request { id, time_ms, command, seen_ms })))
    }
}

impl Blobs {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, staged: Mutex::default(), staging: RwLock::default(), ended: AtomicBool::default() }
    }

    /// Writes the command of a request that will come with an entry. What fails is left to the entry's write.
    pub(super) fn stage(&self, request: &Request) {
        let _staging = self.staging.read().unwrap_or_else(PoisonError::into_inner);
        let (Ok(id), key, size) = (random_id(), key(request.id), request.command.size()) else { return };
        {
            let mut staged = lock(&self.staged);
            if self.ended.load(Ordering::Relaxed) || staged.contains_key(&key) {
                return;
            }
            staged.insert(key, Staged { size, id, blob: None });
        }
        let written = self.write(id, &request.command, || lock(&self.staged).get(&key).is_some_and(|it| it.id == id));
        let mut staged = lock(&self.staged);
        match (written, staged.get_mut(&key).filter(|staged| staged.id == id)) {
            (Ok(blob), Some(staged)) => staged.blob = Some(blob),
            (Ok(blob), None) => self.remove(&[blob]),
            (Err(_), Some(_)) => drop(staged.remove(&key)),
            (Err(_), None) => {}
        }
    }

    /// The entry of this request was written, or does not come.
    pub(super) fn unstage(&self, id: RequestId) {
        let staged = lock(&self.staged).remove(&key(id));
        if let Some(blob) = staged.and_then(|staged| staged.blob) {
            self.remove(&[blob]);
        }
    }

    /// Stages no more; returns when nothing is being staged.
    pub(super) fn end_staging(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let staged = std::mem::take(&mut *lock(&self.staged));
        let blobs: Vec<Blob> = staged.into_values().filter_map(|staged| staged.blob).collect();
        self.remove(&blobs);
        drop(self.staging.write());
    }

    /// The file with the command of a request whose entry is about to be written.
    pub(super) fn take(&self, request: &Request) -> io::Result<Blob> {
        let size = request.command.size();
        let staged = lock(&self.staged).remove(&key(request.id));
        if let Some(Staged { size: staged, blob: Some(blob), .. }) = staged {
            if staged == size {
                return Ok(blob);
            }
            self.remove(&[blob]);
        }
        self.write(random_id().map_err(io::Error::other)?, &request.command, || true)
    }

    /// Bytes of the files whose entries are not written yet.
    pub(super) fn staged_bytes(&self) -> u64 {
        lock(&self.staged).values().filter_map(|staged| staged.blob).map(|blob| blob.bytes).sum()
    }

    /// Removes files to which no durable record refers. Not where others wait: that takes a while.
    pub(super) fn remove(&self, blobs: &[Blob]) {
        if !blobs.is_empty() {
            reclaim::now(Unneeded(blobs.iter().map(|blob| blob.path(&self.dir)).collect()));
        }
    }

    /// Writes a command, durably, as long as it is `wanted`.
    fn write(&self, id: u64, command: &Command, wanted: impl Fn() -> bool) -> io::Result<Blob> {
        let path = path(&self.dir, id);
        let written = write(&path, command, wanted).and_then(|slices| {
            sync_dir(&self.dir)?;
            Ok(Blob { id, bytes: slices.checked.bytes, checksum: slices.checked.checksum })
        });
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }
}

fn write<F: Fn() -> bool>(path: &Path, command: &Command, wanted: F) -> io::Result<Slices<F>> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let checked = Checked { bytes: 0, checksum: 0 };
    let mut buffered =
        BufWriter::with_capacity(BUFFER_BYTES, Slices { file, unsynced: 0, checked, wanted, failure: None });
    if let Err(error) = rmp_serde::encode::write(&mut buffered, command) {
        // It does not say which error of the disk it was.
        return Err(buffered.get_mut().failure.take().unwrap_or_else(|| io::Error::other(error)));
    }
    let slices = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    slices.file.sync_all()?;
    Ok(slices)
}

/// A file that is synced after each slice.
struct Slices<F> {
    file: File,
    unsynced: usize,
    checked: Checked,
    /// Asked after each slice.
    wanted: F,
    failure: Option<io::Error>,
}

impl<F: Fn() -> bool> Slices<F> {
    fn write_slice(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(SLICE_BYTES - self.unsynced);
        let written = self.file.write(bytes.get(..fits).unwrap_or(bytes))?;
        self.checked.write_all(bytes.get(..written).unwrap_or(bytes))?;
        self.unsynced += written;
        if self.unsynced >= SLICE_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
            if !(self.wanted)() {
                return Err(io::Error::other("the command is not wanted any more"));
            }
        }
        Ok(written)
    }
}

impl<F: Fn() -> bool> Write for Slices<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_slice(bytes).map_err(|error| {
            let told = io::Error::from(error.kind());
            self.failure = Some(error);
            told
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was written to it.
#[derive(Debug)]
struct Checked {
    bytes: u64,
    checksum: u32,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Unneeded {
    fn drop(&mut self) {
        for path in &self.0 {
            // What stays is removed when the log is opened.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes all files from `dir` but those that are `needed`.
pub(super) fn remove_others<'a>(dir: &Path, needed: impl Iterator<Item = &'a Blob>) -> io::Result<()> {
    let needed: Vec<PathBuf> = needed.map(|blob| blob.path(dir)).collect();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) && !needed.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn key(id: RequestId) -> Key {
    (id.client, id.sequence)
}

fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(name(id))
}

fn name(id: u64) -> String {
    format!("{id:016x}.{EXTENSION}")
}
