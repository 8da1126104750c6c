//! What a directory holds, told without opening it: no lock is taken, and nothing is changed.
//!
//! It is what opening the directory would find: a member that was set aside counts, since it comes back at the next open
//! (aside.rs). And the file FORMED says that the member has its place in a cluster. A store that was restored from a
//! backup, or has run by itself only, does not have it.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::EngineError;
use crate::files::write_file;

use super::format::{Format, Identity, Stage};
use super::{aside, check_never_used, check_store_id, check_unused};

/// The file that says that the member has its place in a cluster.
pub(super) const FORMED: &str = "FORMED";

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// No store, or one that was never ready: a first start makes one.
    Blank,
    /// A member.
    Holds {
        /// Who it is.
        identity: Identity,
        /// Whether it has its place in a cluster.
        formed: bool,
    },
}

/// What `path` holds of the store `store_id`.
///
/// # Errors
/// It holds another store, is of a newer format, damaged, no store's, or cannot be read.
pub fn peek(path: &Path, store_id: &str) -> Result<Peeked, EngineError> {
    check_store_id(store_id)?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Peeked::Blank),
        Err(error) => return Err(EngineError::from_io(path, &error)),
        Ok(_) => {}
    }
    let Some(place) = aside::place_after_settling(path) else { return Ok(Peeked::Blank) };
    let Some(format) = Format::read(&place)? else {
        check_unused(&place)?;
        return Ok(Peeked::Blank);
    };
    format.check_store(store_id)?;
    if format.stage == Stage::Creating {
        check_never_used(&place)?;
        return Ok(Peeked::Blank);
    }
    Ok(Peeked::Holds { identity: format.identity, formed: place.join(FORMED).exists() })
}

/// Notes that the member in `path` has its place in a cluster.
///
/// # Errors
/// What the file system says.
pub fn mark_formed(path: &Path) -> Result<(), EngineError> {
    if path.join(FORMED).exists() {
        return Ok(());
    }
    write_file(&path.join(FORMED), b"").map_err(|error| EngineError::from_io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DirectoryTrouble;
    use crate::storage::Directory;
    use crate::storage::Formation;

    const FIRST: crate::storage::Opening = crate::storage::Opening::First(crate::storage::First::MayCreate);
    const ID: &str = "tank";

    fn joining() -> Formation {
        Formation::Joining { cluster_id: 7, member_id: 8 }
    }

    fn make(path: &Path, formation: Formation) -> Identity {
        let directory = Directory::open_as(path, ID, formation, &FIRST).unwrap();
        let identity = directory.identity.clone();
        directory.close().unwrap();
        identity
    }

    #[test]
    fn a_missing_and_an_empty_directory_are_blank_and_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(peek(&dir.path().join("missing"), ID).unwrap(), Peeked::Blank);
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Blank);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_is_told_with_its_ids_also_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path(), ID).unwrap();
        let identity = directory.identity.clone();
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Holds { identity: identity.clone(), formed: false });
        mark_formed(dir.path()).unwrap();
        directory.close().unwrap();
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Holds { identity, formed: true });
        assert!(matches!(peek(dir.path(), "other"), Err(EngineError::WrongStore { .. })));
    }

    #[test]
    fn a_store_that_was_never_ready_is_blank() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_new(ID, Formation::NewCluster).unwrap();
        Format { stage: Stage::Creating, identity }.write(dir.path()).unwrap();
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Blank);
    }

    #[test]
    fn what_is_no_store_or_damaged_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        let kind = |error| match error {
            EngineError::Directory { kind, .. } => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(peek(&file, ID).unwrap_err()), DirectoryTrouble::NotADirectory);
        assert_eq!(kind(peek(dir.path(), ID).unwrap_err()), DirectoryTrouble::NotAStore);
        let store = dir.path().join("store");
        make(&store, Formation::NewCluster);
        fs::remove_file(store.join("FORMAT")).unwrap();
        assert!(matches!(peek(&store, ID), Err(EngineError::Corrupt { what: "format", .. })));
    }

    #[test]
    fn a_member_that_joins_from_a_blank_directory_is_blank_until_it_is_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), joining());
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Blank);
        // The next open finds it blank, too.
        let second = make(dir.path(), Formation::NewCluster);
        assert_ne!(second.member_id, 8);
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Holds { identity: second, formed: false });
    }

    #[test]
    fn a_member_that_was_taken_in_stays() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open_as(dir.path(), ID, joining(), &FIRST).unwrap();
        directory.discard_aside(true).unwrap();
        let identity = directory.identity.clone();
        directory.close().unwrap();
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Holds { identity: identity.clone(), formed: false });
        assert_eq!(make(dir.path(), Formation::NewCluster), identity);
    }

    #[test]
    fn a_store_set_aside_is_what_the_directory_holds() {
        let dir = tempfile::tempdir().unwrap();
        let identity = make(dir.path(), Formation::NewCluster);
        mark_formed(dir.path()).unwrap();
        make(dir.path(), joining());
        assert!(!dir.path().join(FORMED).exists());
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Holds { identity, formed: true });
    }

    #[test]
    fn an_erased_store_is_blank() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), Formation::NewCluster);
        mark_formed(dir.path()).unwrap();
        fs::write(dir.path().join(".erasing"), "").unwrap();
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Blank);
        Directory::erase(dir.path(), ID).unwrap();
        assert_eq!(peek(dir.path(), ID).unwrap(), Peeked::Blank);
    }
}
