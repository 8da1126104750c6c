//! Takes a snapshot's frames and makes SST files of them, ready to be ingested.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rocksdb::{Options, SstFileWriter};

use crate::error::EngineError;
use crate::storage::rocks::state_options;
use crate::storage::{INCOMING, remove_dir};

use super::frame::Frame;

/// About how large one file gets.
const FILE_BYTES: u64 = 64 << 20;

/// The largest record that makes sense: a value at its highest limit, and its head.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// A received snapshot, in files of the folder `incoming`.
#[derive(Clone, Debug)]
pub struct ReceivedSnapshot {
    files: Arc<Vec<PathBuf>>,
}

impl ReceivedSnapshot {
    /// The files, in the order of their keys.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Receives one snapshot. Dropped before the last frame, it leaves files that the next one, or
/// the next start, removes.
pub struct SnapshotReceiver {
    dir: PathBuf,
    store_dir: PathBuf,
    options: &'static Options,
    // Writing may go on over many frames, and the writer borrows its options: those live for ever.
    writer: Option<SstFileWriter<'static>>,
    files: Vec<PathBuf>,
    buffer: BytesMut,
    next_sequence: u32,
}

impl SnapshotReceiver {
    /// Begins to receive, in the store's directory `dir`. What another one left is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(dir: &Path) -> Result<Self, EngineError> {
        static OPTIONS: once_cell::sync::Lazy<Options> = once_cell::sync::Lazy::new(state_options);
        let incoming = dir.join(INCOMING);
        remove_dir(&incoming)?;
        std::fs::create_dir(&incoming).map_err(|error| EngineError::from_io(&incoming, &error))?;
        Ok(Self {
            dir: incoming,
            store_dir: dir.to_path_buf(),
            options: &OPTIONS,
            writer: None,
            files: Vec::new(),
            buffer: BytesMut::new(),
            next_sequence: 0,
        })
    }

    /// The number of the frame that comes next.
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Takes the next frame; gives the snapshot with the last one.
    ///
    /// # Errors
    /// The frame is not the next one, or holds no records; or the disk's. The receiver is of no
    /// more use then.
    pub fn accept(&mut self, frame: &Frame) -> Result<Option<ReceivedSnapshot>, EngineError> {
        if frame.sequence != self.next_sequence {
            return Err(damaged(format!("frame {} came in the place of {}", frame.sequence, self.next_sequence)));
        }
        self.next_sequence += 1;
        self.buffer.extend_from_slice(&frame.body);
        while self.take_record()? {}
        if !frame.last {
            return Ok(None);
        }
        if !self.buffer.is_empty() {
            return Err(damaged("it ends within a record".to_owned()));
        }
        self.finish_file()?;
        Ok(Some(ReceivedSnapshot { files: Arc::new(std::mem::take(&mut self.files)) }))
    }

    /// Writes the buffer's first record to a file, if it is there as a whole.
    fn take_record(&mut self) -> Result<bool, EngineError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<8>() else { return Ok(false) };
        let [k0, k1, k2, k3, v0, v1, v2, v3] = *head;
        let key_len = u32::from_be_bytes([k0, k1, k2, k3]) as usize;
        let value_len = u32::from_be_bytes([v0, v1, v2, v3]) as usize;
        let length = key_len.saturating_add(value_len);
        if length > RECORD_BYTES_MAX {
            return Err(damaged("a record is too long".to_owned()));
        }
        let Some((key, value)) = rest.get(..length).and_then(|record| record.split_at_checked(key_len)) else {
            return Ok(false);
        };
        let (key, value) = (key.to_vec(), value.to_vec());
        self.write(&key, &value)?;
        self.buffer.advance(head_bytes() + length);
        Ok(true)
    }

    fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let failed = |error: rocksdb::Error| EngineError::from_rocks(&self.store_dir, &error);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let path = self.dir.join(format!("{:06}.sst", self.files.len()));
                let writer = SstFileWriter::create(self.options);
                writer.open(&path).map_err(failed)?;
                self.files.push(path);
                none.insert(writer)
            }
        };
        writer.put(key, value).map_err(failed)?;
        if writer.file_size() >= FILE_BYTES {
            self.finish_file()?;
        }
        Ok(())
    }

    fn finish_file(&mut self) -> Result<(), EngineError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().map_err(|error| EngineError::from_rocks(&self.store_dir, &error))
    }
}

const fn head_bytes() -> usize {
    2 * size_of::<u32>()
}

fn damaged(why: String) -> EngineError {
    EngineError::Corrupt { what: "snapshot", detail: why }
}
