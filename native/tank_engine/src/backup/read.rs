//! Reading a backup, and noticing that it is none, or not what was written.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::EngineError;
use crate::snapshot::{FRAME_BYTES, Frame};
use crate::storage::rocks;

use super::{About, FORMAT_VERSION, FORMAT_VERSION_MIN, MAGIC, damaged};

/// The longest record that makes sense: a frame and its head.
const RECORD_BYTES_MAX: usize = FRAME_BYTES + 1024;

/// An open backup, read from its beginning to its end.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    crc: u32,
    /// What it is of.
    pub(super) about: About,
    /// Bytes of the file.
    pub(super) bytes: u64,
    ended: bool,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let failed = |error: io::Error| EngineError::from_file(path, &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(EngineError::File { path: path.to_path_buf(), why: "it is a directory".to_owned() });
        }
        let (bytes, file) = (metadata.len(), BufReader::with_capacity(1 << 20, file));
        let mut reader = Self { path: path.to_path_buf(), file, crc: 0, about: About::default(), bytes, ended: false };
        if &reader.take::<8>()? != MAGIC {
            return Err(damaged("it is no backup of a store"));
        }
        let found = reader.number()?;
        if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&found) {
            return Err(EngineError::NewerFormat { found, supported: FORMAT_VERSION });
        }
        let about = reader.record()?.ok_or_else(|| damaged("it has no head"))?;
        reader.about = rocks::decode(&about).map_err(|error| damaged(error.to_string()))?;
        Ok(reader)
    }

    /// The next frame; `None` at the end, when all was as it was written.
    pub(super) fn frame(&mut self) -> Result<Option<Frame>, EngineError> {
        if self.ended {
            return Ok(None);
        }
        if let Some(record) = self.record()? {
            return Frame::decode(&record).map(Some).map_err(|error| damaged(error.to_string()));
        }
        self.ended = true;
        let sum = self.crc;
        if self.number()? != sum {
            return Err(damaged("it does not match its checksum"));
        }
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(None),
            Ok(_) => Err(damaged("something follows its end")),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn record(&mut self) -> Result<Option<Vec<u8>>, EngineError> {
        let length = self.number()? as usize;
        if length == 0 {
            return Ok(None);
        }
        if length > RECORD_BYTES_MAX {
            return Err(damaged("a record is too long"));
        }
        let mut record = vec![0; length];
        self.fill(&mut record)?;
        Ok(Some(record))
    }

    fn number(&mut self) -> Result<u32, EngineError> {
        self.take().map(u32::from_be_bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], EngineError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EngineError> {
        self.file.read_exact(bytes).map_err(|error| self.failed(&error))?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> EngineError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return damaged("it is cut off");
        }
        EngineError::from_file(&self.path, error)
    }
}
