//! Giving a directory up for a new member, and taking it back when that came to nothing.
//!
//! ```text
//! the old member --set_aside--> in .aside, a new member in its place --discard--> only the new one
//!        ^                                       |
//!        +--------- settle, at the next open ----+
//! ```
//!
//! Each step is a rename that is synced before the next, so that a crash at any point leaves the
//! old member or the new one, whole. All of it happens while the directory is claimed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::EngineError;
use crate::files::{remove_dir, sync_dir};
use crate::log::{marker, segments};

use super::{INCOMING, members, peek, rocks};

/// Holds the old member's files.
const ASIDE: &str = ".aside";
/// What [`ASIDE`] is called once nobody will want it back.
const DISCARDED: &str = ".discarded";
/// In [`ASIDE`]: nothing was set aside, since the directory was blank. It is blank again when the new member comes to nothing.
const BLANK: &str = "BLANK";
/// Says that a store was erased in a directory that holds files of others: it may be made there again.
const EMPTIED: &str = ".emptied";
/// Says that the directory is being emptied.
const ERASING: &str = ".erasing";

/// All that a member keeps in its directory; the first one tells what the directory is.
const PARTS: [&str; 7] =
    [super::format::FILE, marker::FILE, members::FILE, rocks::DIR, segments::DIR, INCOMING, peek::FORMED];

/// Ends what a crash or a failed join left undone: a member set aside comes back.
pub(super) fn settle(dir: &Path) -> Result<(), EngineError> {
    remove_dir(&dir.join(DISCARDED))?;
    if dir.join(ERASING).exists() {
        erase(dir)?;
    }
    let aside = dir.join(ASIDE);
    if !aside.exists() {
        return Ok(());
    }
    let comes_back = |part: &str| aside.join(part).exists();
    for part in PARTS {
        if comes_back(part) {
            remove(&dir.join(part))?;
            rename(&aside.join(part), &dir.join(part))?;
        } else if comes_back(BLANK) {
            remove(&dir.join(part))?;
        }
    }
    sync(dir)?;
    remove_dir(&aside)
}

/// Where the member is that is in `dir` once it is settled; `None`: there is none.
pub(super) fn place_after_settling(dir: &Path) -> Option<PathBuf> {
    let aside = dir.join(ASIDE);
    if dir.join(ERASING).exists() || aside.join(BLANK).exists() {
        return None;
    }
    // The first part is moved first, and comes back first.
    Some(if aside.join(PARTS[0]).exists() { aside } else { dir.to_path_buf() })
}

/// Sets the member in `dir` aside; notes that there is none if it is blank.
pub(super) fn set_aside(dir: &Path) -> Result<(), EngineError> {
    let aside = dir.join(ASIDE);
    fs::create_dir(&aside).map_err(|error| EngineError::from_io(&aside, &error))?;
    if !PARTS.iter().any(|part| dir.join(part).exists()) {
        fs::write(aside.join(BLANK), b"").map_err(|error| EngineError::from_io(&aside, &error))?;
    }
    for part in PARTS {
        if dir.join(part).exists() {
            rename(&dir.join(part), &aside.join(part))?;
        }
    }
    sync(&aside)?;
    sync(dir)
}

/// Discards what was set aside: the new member stays, whatever happens. Space that cannot be freed now is freed at the next
/// open.
pub(super) fn discard(dir: &Path) -> Result<(), EngineError> {
    if dir.join(ASIDE).exists() {
        rename(&dir.join(ASIDE), &dir.join(DISCARDED))?;
        sync(dir)?;
    }
    if let Err(error) = remove_dir(&dir.join(DISCARDED)) {
        tracing::error!(%error, "removing what a member left that was replaced");
    }
    Ok(())
}

/// Removes all that a member left in `dir`.
pub(super) fn erase(dir: &Path) -> Result<(), EngineError> {
    let erasing = dir.join(ERASING);
    fs::write(&erasing, b"").map_err(|error| EngineError::from_io(&erasing, &error))?;
    sync(dir)?;
    for part in PARTS.iter().chain(&[ASIDE, DISCARDED]) {
        remove(&dir.join(part))?;
    }
    if super::foreign(dir)?.is_some() {
        let emptied = dir.join(EMPTIED);
        fs::write(&emptied, b"").map_err(|error| EngineError::from_io(&emptied, &error))?;
    }
    sync(dir)?;
    remove(&erasing)
}

/// Whether a store was erased in `dir`, whatever else is there.
pub(super) fn is_emptied(dir: &Path) -> bool {
    dir.join(EMPTIED).exists()
}

/// Forgets that: there is a store again.
pub(super) fn forget_emptied(dir: &Path) -> Result<(), EngineError> {
    remove(&dir.join(EMPTIED))
}

fn remove(path: &Path) -> Result<(), EngineError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EngineError::from_io(path, &error)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), EngineError> {
    fs::rename(from, to).map_err(|error| EngineError::from_io(from, &error))
}

fn sync(dir: &Path) -> Result<(), EngineError> {
    sync_dir(dir).map_err(|error| EngineError::from_io(dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(dir: &Path, text: &str) {
        fs::write(dir.join(marker::FILE), text).unwrap();
        fs::create_dir_all(dir.join("db")).unwrap();
        fs::write(dir.join("db/CURRENT"), text).unwrap();
    }

    fn found(dir: &Path) -> Option<String> {
        let text = fs::read_to_string(dir.join(marker::FILE)).ok()?;
        assert_eq!(fs::read_to_string(dir.join("db/CURRENT")).unwrap(), text, "parts of one member");
        Some(text)
    }

    #[test]
    fn a_member_set_aside_comes_back_unless_it_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        member(dir.path(), "old");
        set_aside(dir.path()).unwrap();
        assert_eq!(found(dir.path()), None);
        settle(dir.path()).unwrap();
        assert_eq!(found(dir.path()).unwrap(), "old");

        set_aside(dir.path()).unwrap();
        member(dir.path(), "new");
        settle(dir.path()).unwrap();
        assert_eq!(found(dir.path()).unwrap(), "old", "the new one never became a member");

        set_aside(dir.path()).unwrap();
        member(dir.path(), "new");
        discard(dir.path()).unwrap();
        settle(dir.path()).unwrap();
        assert_eq!(found(dir.path()).unwrap(), "new");
        assert!(!dir.path().join(ASIDE).exists() && !dir.path().join(DISCARDED).exists());
    }

    #[test]
    fn settling_after_a_crash_in_the_middle_finds_the_old_member() {
        for moved in 0..=PARTS.len() {
            let dir = tempfile::tempdir().unwrap();
            member(dir.path(), "old");
            fs::create_dir(dir.path().join(ASIDE)).unwrap();
            for part in PARTS.iter().take(moved).filter(|part| dir.path().join(part).exists()) {
                fs::rename(dir.path().join(part), dir.path().join(ASIDE).join(part)).unwrap();
            }
            settle(dir.path()).unwrap();
            assert_eq!(found(dir.path()).unwrap(), "old", "{moved} parts were moved");
        }
    }

    #[test]
    fn erasing_is_finished_at_the_next_open() {
        let dir = tempfile::tempdir().unwrap();
        member(dir.path(), "old");
        fs::write(dir.path().join(ERASING), "").unwrap();
        settle(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
