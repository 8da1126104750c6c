//! Is a directory still the one that it was?
//!
//! A disk can be removed, a mount can go away and show what is below it, a symbolic link can be turned. The open files
//! of a store do not notice: what is written to them goes where nobody will look. And who opens the path again finds
//! nothing, or another store. So an open directory is compared with its path ([`Location::check`]), and one that is opened
//! again with what was there before ([`Expected::check`]).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{EngineError, Loss};

use super::claim;
use super::format::{Format, Identity, Stage};

/// What a directory must hold when it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The cluster; `None` when it may have got a new id meanwhile.
    pub cluster_id: Option<u64>,
    /// The member.
    pub member_id: u64,
    /// Where it is.
    pub file_system: FileSystem,
}

/// Which file system something is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its device. The same file system may have another one when it is mounted again.
    pub device: u64,
    /// Its own id, which many keep for good; 0 when it has none.
    pub id: u64,
}

/// Where an open directory is.
#[derive(Debug)]
pub struct Location {
    store_id: String,
    /// As it was given: it may lead through symbolic links.
    given: PathBuf,
    /// Where it led.
    canonical: PathBuf,
    /// The device and the number of the file LOCK.
    lock: (u64, u64),
    expected: Expected,
}

impl FileSystem {
    fn of(path: &Path) -> io::Result<Self> {
        let device = fs::metadata(path)?.dev();
        Ok(Self { device, id: rustix::fs::statvfs(path)?.f_fsid })
    }

    fn is(self, other: Self) -> bool {
        self.device == other.device || (self.id != 0 && self.id == other.id)
    }
}

impl Expected {
    /// Whether `path` holds that member of the store. Changes nothing there.
    ///
    /// # Errors
    /// [`EngineError::Lost`], or what the file system says.
    pub fn check(&self, path: &Path, store_id: &str) -> Result<(), EngineError> {
        Self::check_any(std::slice::from_ref(self), path, store_id)
    }

    /// As [`Expected::check`], for one of several members.
    ///
    /// # Errors
    /// As there.
    pub(super) fn check_any(any: &[Self], path: &Path, store_id: &str) -> Result<(), EngineError> {
        let lost = |what| Err(EngineError::Lost { what, path: path.to_path_buf() });
        if is_gone(path)? {
            return lost(Loss::Missing);
        }
        let Some(found) = Format::read_settled(path)?.filter(|format| format.stage == Stage::Ready) else {
            return lost(Loss::Empty);
        };
        let found = found.identity;
        if found.store_id != store_id {
            return lost(Loss::OtherStore);
        }
        let members: Vec<_> = any.iter().filter(|expected| expected.member_id == found.member_id).collect();
        if members.is_empty() {
            return lost(Loss::OtherMember);
        }
        if !members.iter().any(|expected| expected.cluster_id.is_none_or(|id| id == found.cluster_id)) {
            return lost(Loss::OtherCluster);
        }
        let file_system = FileSystem::of(path).map_err(|error| EngineError::from_io(path, &error))?;
        if !members.iter().any(|expected| expected.file_system.is(file_system)) {
            return lost(Loss::OtherFileSystem);
        }
        Ok(())
    }
}

impl Location {
    /// The place of a directory that is claimed.
    pub(super) fn of(given: &Path, canonical: &Path, identity: &Identity) -> Result<Self, EngineError> {
        let failed = |error: io::Error| EngineError::from_io(canonical, &error);
        let lock = file_id(&canonical.join(claim::FILE)).map_err(failed)?;
        let file_system = FileSystem::of(canonical).map_err(failed)?;
        let expected = Expected { cluster_id: Some(identity.cluster_id), member_id: identity.member_id, file_system };
        let (given, canonical) = (given.to_path_buf(), canonical.to_path_buf());
        Ok(Self { store_id: identity.store_id.clone(), given, canonical, lock, expected })
    }

    /// What the directory must hold when it is opened again.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// Whether both paths still lead to the directory that is open.
    ///
    /// # Errors
    /// [`EngineError::Lost`]. What else the file system says is no reason to give a directory up.
    pub fn check(&self) -> Result<(), EngineError> {
        self.check_path(&self.canonical)?;
        if self.given != self.canonical {
            self.check_path(&self.given)?;
        }
        Ok(())
    }

    fn check_path(&self, path: &Path) -> Result<(), EngineError> {
        match file_id(&path.join(claim::FILE)) {
            Ok(found) if found == self.lock => return Ok(()),
            Err(error) if !says_gone(&error) => return Ok(()),
            _ => {}
        }
        let replaced = EngineError::Lost { what: Loss::Replaced, path: path.to_path_buf() };
        match self.expected.check(path, &self.store_id) {
            Err(lost @ EngineError::Lost { .. }) => Err(lost),
            _ => Err(replaced),
        }
    }
}

/// Whether there is no directory at `path`.
pub(super) fn is_gone(path: &Path) -> Result<bool, EngineError> {
    match fs::metadata(path) {
        Ok(found) => Ok(!found.is_dir()),
        Err(error) if says_gone(&error) => Ok(true),
        Err(error) => Err(EngineError::from_io(path, &error)),
    }
}

fn says_gone(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::NotFound | K::NotADirectory | K::StaleNetworkFileHandle)
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;
    use crate::error::DirectoryTrouble;
    use crate::storage::{First, Formation, Opening};

    fn open(path: &Path, opening: &Opening) -> Result<Directory, EngineError> {
        Directory::open_as(path, "tank", Formation::NewCluster, opening)
    }

    fn made(path: &Path) -> Expected {
        let directory = open(path, &Opening::First(First::MayCreate)).unwrap();
        let expected = directory.location.expected();
        directory.close().unwrap();
        expected
    }

    fn what(result: Result<Directory, EngineError>) -> Loss {
        match result.map(drop) {
            Err(EngineError::Lost { what, .. }) => what,
            other => panic!("not lost: {other:?}"),
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_directory_that_is_opened_again_must_hold_what_it_held_and_is_not_touched_otherwise() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        let expected = made(&path);
        open(&path, &Opening::Again(vec![expected])).unwrap().close().unwrap();

        let away = root.path().join("away");
        fs::rename(&path, &away).unwrap();
        assert_eq!(what(open(&path, &Opening::Again(vec![expected]))), Loss::Missing);
        assert!(!path.exists());

        fs::create_dir(&path).unwrap();
        assert_eq!(what(open(&path, &Opening::Again(vec![expected]))), Loss::Empty);
        assert_eq!(names(&path), Vec::<String>::new());
        fs::remove_dir(&path).unwrap();

        let other = made(&path);
        assert_eq!(what(open(&path, &Opening::Again(vec![expected]))), Loss::OtherMember);
        open(&path, &Opening::Again(vec![expected, other])).unwrap().close().unwrap();

        let cluster = Expected { cluster_id: Some(7), ..other };
        assert_eq!(what(open(&path, &Opening::Again(vec![cluster]))), Loss::OtherCluster);
        let any_cluster = Expected { cluster_id: None, ..other };
        open(&path, &Opening::Again(vec![any_cluster])).unwrap().close().unwrap();

        let elsewhere = Expected { file_system: FileSystem { device: u64::MAX, id: 0 }, ..other };
        assert_eq!(what(open(&path, &Opening::Again(vec![elsewhere]))), Loss::OtherFileSystem);

        fs::remove_dir_all(&path).unwrap();
        Directory::open(&path, "other").unwrap().close().unwrap();
        assert_eq!(what(open(&path, &Opening::Again(vec![expected]))), Loss::OtherStore);
    }

    #[test]
    fn a_member_that_was_set_aside_is_found() {
        let root = tempfile::tempdir().unwrap();
        let expected = made(root.path());
        super::super::aside::set_aside(root.path()).unwrap();
        open(root.path(), &Opening::Again(vec![expected])).unwrap().close().unwrap();
    }

    #[test]
    fn a_first_start_that_may_not_create_names_the_directory_and_leaves_it_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        let first = |path: &Path| open(path, &Opening::First(First::MustExist)).map(drop);
        let refused = || {
            let kind = DirectoryTrouble::NoStore;
            assert!(matches!(first(&path), Err(EngineError::Directory { kind: found, .. }) if found == kind));
        };
        refused();
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        refused();
        assert_eq!(names(&path), Vec::<String>::new());
        made(&path);
        first(&path).unwrap();
    }

    #[test]
    fn an_open_directory_notices_that_its_path_leads_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (path, link) = (root.path().join("store"), root.path().join("link"));
        made(&path);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let directory = open(&link, &Opening::First(First::MustExist)).unwrap();
        let check = || match directory.location.check() {
            Err(EngineError::Lost { what, .. }) => Some(what),
            other => other.map(|()| None).unwrap(),
        };
        assert_eq!(check(), None);

        let empty = root.path().join("empty");
        fs::create_dir(&empty).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&empty, &link).unwrap();
        assert_eq!(check(), Some(Loss::Empty));
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(check(), None);

        fs::rename(&path, root.path().join("away")).unwrap();
        assert_eq!(check(), Some(Loss::Missing));
        fs::rename(root.path().join("away"), &path).unwrap();
        assert_eq!(check(), None);

        fs::remove_file(path.join(claim::FILE)).unwrap();
        assert_eq!(check(), Some(Loss::Replaced));
    }
}
