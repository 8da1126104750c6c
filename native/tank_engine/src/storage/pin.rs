//! A way to a directory that leads to it whatever its path leads to.
//!
//! RocksDB opens, makes and removes files by their paths, also when it is closed. When a directory was moved, or a mount
//! covers it, the path leads elsewhere, perhaps to another store: RocksDB would take that one's files for its own waste.
//! So it is given a path through an open file, which the kernel resolves to the very directory.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use crate::error::{EngineError, OPEN_FILES};

use super::rocks::Db;

/// An open directory.
#[derive(Debug)]
pub(super) struct Pin {
    dir: Option<File>,
    path: PathBuf,
    user: Weak<Db>,
}

impl Pin {
    pub(super) fn on(canonical: &Path) -> Result<Self, EngineError> {
        let failed = |error: std::io::Error| EngineError::from_io(canonical, &error);
        let dir = File::open(canonical).map_err(failed)?;
        let path = PathBuf::from(format!("{OPEN_FILES}{}", dir.as_raw_fd()));
        let opened = dir.metadata().map_err(failed)?;
        let shown = fs::metadata(&path).is_ok_and(|shown| (shown.dev(), shown.ino()) == (opened.dev(), opened.ino()));
        // Without /proc there is only the path.
        let path = if shown { path } else { canonical.to_path_buf() };
        Ok(Self { dir: Some(dir), path, user: Weak::new() })
    }

    /// The way to the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The database that uses it.
    pub(super) fn used_by(&mut self, db: Weak<Db>) {
        self.user = db;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // Another file may get its number. Whoever still uses the database would be led there.
        if self.user.strong_count() > 0
            && let Some(dir) = self.dir.take()
        {
            let _ = dir.into_raw_fd();
        }
    }
}
