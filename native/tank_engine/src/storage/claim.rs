//! Who uses a directory: one store at a time.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use once_cell::sync::Lazy;

use crate::error::{EngineError, LockHolder};
use crate::sync::lock;

/// The lock file's name.
pub(super) const FILE: &str = "LOCK";

/// The canonical paths of all directories that stores of this VM have open. The file lock would
/// refuse them too, but could not say who holds it.
static CLAIMED: Lazy<Mutex<HashSet<PathBuf>>> = Lazy::new(Mutex::default);

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    /// Holds the lock. The operating system lets go of it when the process ends in any way.
    lock_file: Option<File>,
}

impl Claim {
    pub(super) fn take(canonical: &Path) -> Result<Self, EngineError> {
        let locked = |by| EngineError::Locked { path: canonical.to_path_buf(), by };
        if !lock(&CLAIMED).insert(canonical.to_path_buf()) {
            return Err(locked(LockHolder::ThisVm));
        }
        let mut claim = Self { path: canonical.to_path_buf(), lock_file: None };
        let file = File::options().create(true).truncate(false).read(true).write(true).open(canonical.join(FILE));
        let mut file = file.map_err(|error| EngineError::from_io(canonical, &error))?;
        match file.try_lock() {
            Ok(()) => {
                write_pid(&mut file).map_err(|error| EngineError::from_io(canonical, &error))?;
                claim.lock_file = Some(file);
                Ok(claim)
            }
            Err(TryLockError::WouldBlock) => Err(locked(LockHolder::OtherProcess(read_pid(&mut file)))),
            Err(TryLockError::Error(error)) => Err(EngineError::from_io(canonical, &error)),
        }
    }
}

/// Notes who holds the lock, for the message of those that do not get it.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    pid.parse().ok()
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock first: a store that finds the path unclaimed must get the lock.
        // Unlocked, not only closed: a process that is just being forked may still have the file.
        if let Some(file) = self.lock_file.take() {
            let _ = file.set_len(0);
            let _ = file.unlock();
        }
        lock(&CLAIMED).remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_ends_although_a_forked_process_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let claim = Claim::take(&path).unwrap();
        let other = EngineError::Locked { path: path.clone(), by: LockHolder::ThisVm };
        assert_eq!(Claim::take(&path).map(drop), Err(other));
        assert_eq!(std::fs::read_to_string(path.join(FILE)).unwrap(), std::process::id().to_string());
        let forked = claim.lock_file.as_ref().unwrap().try_clone().unwrap();
        drop(claim);
        assert!(Claim::take(&path).is_ok());
        drop(forked);
    }
}
