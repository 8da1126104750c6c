//! Making a store's directory of a backup: beside its place, and then all at once.
//!
//! It is made in `<dir>/.restoring`. Its parts are moved up when it is whole, FORMAT the last: a
//! crash before that leaves a directory that cannot be opened, never half a store.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{DirectoryTrouble, EngineError};
use crate::files::{remove_dir, sync_dir};
use crate::log::{marker, segments};

use super::claim::{self, Claim};
use super::{Directory, format, make_dir, rocks};

const STAGING: &str = ".restoring";

/// A directory that a backup is being restored into. Dropped before [`Restoring::finish`], it
/// leaves nothing in it.
pub struct Restoring {
    path: PathBuf,
    _claim: Claim,
}

impl Restoring {
    /// Begins, in `path`, which must be missing or empty.
    ///
    /// # Errors
    /// It is not, is in use, or what the file system says.
    pub fn begin(path: &Path) -> Result<Self, EngineError> {
        make_dir(path)?;
        let path = path.canonicalize().map_err(|error| EngineError::from_io(path, &error))?;
        let claim = Claim::take(&path)?;
        check_empty(&path)?;
        let restoring = Self { path, _claim: claim };
        remove_dir(&restoring.staging())?;
        make_dir(&restoring.staging())?;
        Ok(restoring)
    }

    /// Where the store is made.
    pub fn staging(&self) -> PathBuf {
        self.path.join(STAGING)
    }

    /// Moves the store, which is made and closed, to its place.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(self, made: Directory) -> Result<(), EngineError> {
        made.close()?;
        let staging = self.staging();
        for name in [rocks::DIR, segments::DIR, marker::FILE, format::FILE] {
            let moved = fs::rename(staging.join(name), self.path.join(name)).and_then(|()| sync_dir(&self.path));
            moved.map_err(|error| EngineError::from_io(&self.path, &error))?;
        }
        Ok(())
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        // The next restore removes it otherwise.
        let _ = remove_dir(&self.staging());
    }
}

fn check_empty(path: &Path) -> Result<(), EngineError> {
    let entries = fs::read_dir(path).map_err(|error| EngineError::from_io(path, &error))?;
    for entry in entries {
        let name = entry.map_err(|error| EngineError::from_io(path, &error))?.file_name();
        let name = name.to_string_lossy();
        if ![claim::FILE, STAGING, "lost+found"].contains(&name.as_ref()) {
            let why = format!("it is not empty ({name}): give a new or an empty directory");
            return Err(EngineError::Directory { path: path.to_path_buf(), kind: DirectoryTrouble::NotEmpty, why });
        }
    }
    Ok(())
}
