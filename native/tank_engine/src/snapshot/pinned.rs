//! A member's state, pinned at a moment, in its own database.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};

use crate::error::EngineError;
use crate::machine::Header;
use crate::storage::rocks::{self, Db};

use super::frame::{FRAME_BYTES, Frame};

/// The state at one log id. Held for as long as a member that lags may need it.
pub struct PinnedSnapshot {
    // Dropped before the database that it points into: fields are dropped in this order.
    snapshot: SnapshotWithThreadMode<'static, Db>,
    db: Arc<Db>,
    family: String,
    header: Header,
}

impl std::fmt::Debug for PinnedSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedSnapshot").field("header", &self.header).finish_non_exhaustive()
    }
}

impl PinnedSnapshot {
    /// Pins the column family `family` of `db` as it is now.
    ///
    /// # Errors
    /// Its header cannot be read.
    pub(crate) fn new(db: Arc<Db>, family: String) -> Result<Self, EngineError> {
        let snapshot = db.snapshot();
        // SAFETY: the snapshot borrows the database behind `db`, which this value keeps alive at
        // the same address for longer than the snapshot (see the order of the fields), and the
        // snapshot is never handed out.
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, Db>, SnapshotWithThreadMode<'static, Db>>(snapshot)
        };
        let record = snapshot
            .get_pinned_cf(&rocks::family(&db, &family)?, Header::key())
            .map_err(|error| EngineError::from_rocks_read("state", &error))?;
        let header = Header::from_record(record.as_deref())?;
        drop(record);
        Ok(Self { snapshot, db, family, header })
    }

    /// What the snapshot is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The snapshot in frames, read as they are asked for.
    ///
    /// # Errors
    /// The state's column family is gone.
    pub fn frames(&self) -> Result<impl Iterator<Item = Result<Frame, EngineError>> + '_, EngineError> {
        let family = rocks::family(&self.db, &self.family)?;
        let mut records = self.snapshot.raw_iterator_cf_opt(&family, ReadOptions::default());
        records.seek_to_first();
        Ok(Frames { records, buffer: BytesMut::new(), sequence: 0, ended: false })
    }
}

struct Frames<'a> {
    records: DBRawIteratorWithThreadMode<'a, Db>,
    buffer: BytesMut,
    sequence: u32,
    ended: bool,
}

impl Frames<'_> {
    /// Reads records until a frame is full or there are no more.
    fn fill(&mut self) -> Result<(), EngineError> {
        while self.buffer.len() < FRAME_BYTES
            && let Some((key, value)) = self.records.item()
        {
            for part in [key, value] {
                let length = u32::try_from(part.len()).map_err(|_| damaged("a record is too long".to_owned()))?;
                self.buffer.extend_from_slice(&length.to_be_bytes());
            }
            self.buffer.extend_from_slice(key);
            self.buffer.extend_from_slice(value);
            self.records.next();
        }
        self.records.status().map_err(|error| EngineError::from_rocks_read("state", &error))
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if let Err(error) = self.fill() {
            self.ended = true;
            return Some(Err(error));
        }
        let body: Bytes = self.buffer.split_to(self.buffer.len().min(FRAME_BYTES)).freeze();
        self.ended = self.buffer.is_empty() && !self.records.valid();
        let frame = Frame { sequence: self.sequence, last: self.ended, body };
        self.sequence += 1;
        Some(Ok(frame))
    }
}

fn damaged(detail: String) -> EngineError {
    EngineError::Corrupt { what: "state", detail }
}
