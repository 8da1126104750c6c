//! The next segment, made ready in the background.
//!
//! ```text
//! begin --> Making --> Ready  --take--> the log goes on in it
//!                  \-> Failed --take--> the log goes on in an empty file
//! ```
//!
//! A write to where the file was written before is synced in half of the time: the file's blocks and its length are
//! known. So the next file is full of zeros, or of what an older segment held: no record of that is taken for one of
//! the new segment, because each checksum covers the number of the segment. The file is durable under its name before
//! the log goes on in it, which then costs no more than another write.
//!
//! A crash may leave a file that is not begun. It has no head, and is removed when the log is opened.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::files::sync_dir;
use crate::reclaim;

use super::segment::{self, Segment};

/// Segments whose files are kept for later ones. A purge usually frees one or two.
pub(super) const SPARES_MAX: usize = 2;

/// Bytes that are zeroed and synced at a time: no other write waits for more.
const SLICE_BYTES: usize = 1 << 20;

/// A segment that is not begun.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) segment: Segment,
    /// Bytes of its file, all of which were written before.
    pub(super) bytes: u64,
}

/// The next segment, and the files that later ones can be made of.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    next: Next,
    /// Bytes of the file of `next`, or that it will have.
    next_bytes: u64,
    /// Segments that nobody needs any more, the oldest first, and their bytes. They keep their names until their files
    /// are used again: no put has to wait for a rename.
    spares: VecDeque<(Arc<Segment>, u64)>,
    /// Whether the log is closed.
    ended: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
enum Next {
    #[default]
    None,
    Making(JoinHandle<io::Result<Ready>>),
    Ready(Ready),
    /// It is not tried again until the log has gone on in another segment: the disk may be full.
    Failed,
}

impl Ahead {
    /// Begins to make segment `number` ready in `dir`, with room for `bytes`, unless that was begun.
    pub(super) fn begin(&mut self, dir: &Path, number: u64, bytes: u64) {
        if !matches!(self.next, Next::None) {
            return;
        }
        let (dir, spare) = (dir.to_path_buf(), self.take_spare());
        self.next_bytes = spare.as_ref().map_or(bytes, |(_, spare_bytes)| bytes.max(*spare_bytes));
        let ended = Arc::clone(&self.ended);
        let make = move || make(&dir, number, bytes, spare, &ended);
        let making = std::thread::Builder::new().name("tank-log-ahead".to_owned()).spawn(make);
        self.next = making.map_or(Next::Failed, Next::Making);
    }

    /// Segment `number`, which goes on where the log ends now. Waits while it is being made.
    pub(super) fn take(&mut self, dir: &Path, number: u64) -> io::Result<Ready> {
        self.finish();
        self.next_bytes = 0;
        match std::mem::take(&mut self.next) {
            Next::Ready(ready) => Ok(ready),
            // What is written now may fit all the same.
            _ => Ok(Ready { segment: Segment::create(dir, number)?, bytes: 0 }),
        }
    }

    /// Whether [`Ahead::take`] gives a segment with room, at once.
    pub(super) fn is_ready(&mut self) -> bool {
        if matches!(&self.next, Next::Making(making) if making.is_finished()) {
            self.finish();
        }
        matches!(self.next, Next::Ready(_))
    }

    pub(super) fn is_making(&self) -> bool {
        matches!(self.next, Next::Making(_))
    }

    /// Makes nothing more: returns when no file is changed any more.
    pub(super) fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.finish();
    }

    /// Waits until nothing is being made.
    pub(super) fn finish(&mut self) {
        self.next = match std::mem::take(&mut self.next) {
            Next::Making(making) => self.made(making.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))),
            next => next,
        };
    }

    fn made(&mut self, made: io::Result<Ready>) -> Next {
        match made {
            Ok(ready) => Next::Ready(ready),
            Err(error) => {
                if !self.ended.load(Ordering::Relaxed) {
                    tracing::warn!(%error, "the log's next segment was not made ready: writes take longer without it");
                }
                self.next_bytes = 0;
                Next::Failed
            }
        }
    }

    /// Keeps the files of segments that nobody needs any more, the oldest first, or removes them.
    pub(super) fn retire(&mut self, segments: Vec<Arc<Segment>>) -> io::Result<()> {
        for segment in segments {
            let bytes = segment.bytes()?;
            self.spares.push_back((segment, bytes));
        }
        while self.spares.len() > SPARES_MAX {
            self.spares.pop_front().into_iter().try_for_each(|(spare, _)| remove(spare))?;
        }
        Ok(())
    }

    /// The oldest spare that nobody reads; a file that is read must stay what it is.
    fn take_spare(&mut self) -> Option<(Segment, u64)> {
        loop {
            let (spare, bytes) = self.spares.pop_front()?;
            match Arc::try_unwrap(spare) {
                Ok(spare) => return Some((spare, bytes)),
                // A file that cannot be removed stays until the log is opened.
                Err(spare) => drop(remove(spare)),
            }
        }
    }

    /// As if the next segment were being made until `held` ends, and failed then.
    #[cfg(test)]
    pub(super) fn hold(&mut self, held: std::sync::mpsc::Receiver<()>) {
        self.next = Next::Making(std::thread::spawn(move || Err(io::Error::other(held.recv().unwrap_err()))));
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.next_bytes + self.spares.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}

impl Drop for Ahead {
    /// The directory may be opened again next.
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes the file. A thread that still reads it can go on.
fn remove(spare: Arc<Segment>) -> io::Result<()> {
    fs::remove_file(spare.path())?;
    // The file system frees the blocks when the last one closes the file, which takes a while.
    reclaim::now(spare);
    Ok(())
}

/// Makes segment `number` of a spare one, or of a new file.
fn make(dir: &Path, number: u64, bytes: u64, spare: Option<(Segment, u64)>, ended: &AtomicBool) -> io::Result<Ready> {
    let path = dir.join(segment::name(number));
    let (file, begin, former) = match spare {
        Some((spare, bytes)) => {
            let former = spare.path().to_path_buf();
            (spare.into_file(), bytes, former)
        }
        None => {
            let former = path.with_extension(segment::TEMPORARY);
            (File::options().read(true).write(true).create(true).truncate(true).open(&former)?, 0, former)
        }
    };
    let made = zero(&file, begin, bytes, ended).and_then(|()| fs::rename(&former, &path));
    if let Err(error) = made {
        // What it took of the disk is given back. A file that cannot be removed goes when the log is opened.
        let _ = fs::remove_file(&former);
        return Err(error);
    }
    sync_dir(dir)?;
    Ok(Ready { segment: Segment::new(number, file, path), bytes: bytes.max(begin) })
}

/// Writes zeros from `begin` to `end`, durably, unless the log has `ended`.
fn zero(file: &File, begin: u64, end: u64, ended: &AtomicBool) -> io::Result<()> {
    let zeros = vec![0; SLICE_BYTES];
    let mut at = begin;
    while at < end {
        if ended.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log is closed"));
        }
        let slice = usize::try_from(end - at).unwrap_or(SLICE_BYTES).min(SLICE_BYTES);
        file.write_all_at(zeros.get(..slice).unwrap_or(&zeros), at)?;
        file.sync_data()?;
        at += slice as u64;
    }
    file.sync_all()
}
