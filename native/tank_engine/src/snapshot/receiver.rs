//! Takes a snapshot's frames and makes SST files of them, ready to be ingested.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::error::EngineError;
use crate::storage::{INCOMING, Tables};

use super::frame::Frame;

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
    /// None behind the last frame.
    tables: Option<Tables>,
    buffer: BytesMut,
    next_sequence: u32,
}

impl SnapshotReceiver {
    /// Begins to receive, in the store's directory `dir`. What another one left is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(dir: &Path) -> Result<Self, EngineError> {
        let tables = Some(Tables::new(dir.join(INCOMING), dir)?);
        Ok(Self { tables, buffer: BytesMut::new(), next_sequence: 0 })
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
        let files = self.tables.take().map_or_else(|| Ok(Vec::new()), Tables::finish)?;
        Ok(Some(ReceivedSnapshot { files: Arc::new(files) }))
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
        let tables = self.tables.as_mut().ok_or_else(|| damaged("something follows its end".to_owned()))?;
        tables.put(key, value)?;
        self.buffer.advance(head_bytes() + length);
        Ok(true)
    }
}

const fn head_bytes() -> usize {
    2 * size_of::<u32>()
}

fn damaged(why: String) -> EngineError {
    EngineError::Corrupt { what: "snapshot", detail: why }
}
