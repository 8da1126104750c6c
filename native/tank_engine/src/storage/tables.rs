//! Files that RocksDB takes over as they are: sorted, and durable before it knows of them.

use std::path::{Path, PathBuf};

use rocksdb::{Options, SstFileWriter};

use crate::error::EngineError;

use super::rocks::state_options;
use crate::files::remove_dir;

/// About how large one gets.
const FILE_BYTES: u64 = 64 << 20;

/// Writes rows of the state, in the order of their keys, to files of one folder. Dropped before
/// [`Tables::finish`], it leaves files that the next one removes.
pub(crate) struct Tables {
    folder: PathBuf,
    /// The store's directory, for errors.
    store: PathBuf,
    // Writing may go on for long, and the writer borrows its options: those live for ever.
    options: &'static Options,
    writer: Option<SstFileWriter<'static>>,
    files: Vec<PathBuf>,
}

impl Tables {
    /// Begins, in `folder`, which is emptied, for the store in `store`.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn new(folder: PathBuf, store: &Path) -> Result<Self, EngineError> {
        static OPTIONS: once_cell::sync::Lazy<Options> = once_cell::sync::Lazy::new(state_options);
        remove_dir(&folder)?;
        std::fs::create_dir(&folder).map_err(|error| EngineError::from_io(&folder, &error))?;
        Ok(Self { folder, store: store.to_path_buf(), options: &OPTIONS, writer: None, files: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The disk's, or the row is not behind the last one.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.add(|writer| writer.put(key, value))
    }

    /// Adds that there is no row of that key any more.
    ///
    /// # Errors
    /// As [`Tables::put`].
    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.add(|writer| writer.delete(key))
    }

    /// The files, durable, in the order of their keys.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn finish(mut self) -> Result<Vec<PathBuf>, EngineError> {
        self.finish_file()?;
        Ok(self.files)
    }

    fn add(
        &mut self,
        row: impl FnOnce(&mut SstFileWriter<'static>) -> Result<(), rocksdb::Error>,
    ) -> Result<(), EngineError> {
        let failed = |error: rocksdb::Error| EngineError::from_rocks(&self.store, &error);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let path = self.folder.join(format!("{:06}.sst", self.files.len()));
                let writer = SstFileWriter::create(self.options);
                writer.open(&path).map_err(failed)?;
                self.files.push(path);
                none.insert(writer)
            }
        };
        row(writer).map_err(failed)?;
        if writer.file_size() >= FILE_BYTES {
            self.finish_file()?;
        }
        Ok(())
    }

    fn finish_file(&mut self) -> Result<(), EngineError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().map_err(|error| EngineError::from_rocks(&self.store, &error))
    }
}
