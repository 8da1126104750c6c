//! A store's directory: who may use it, what it is, and the database in it.
//!
//! ```text
//! <dir>/LOCK     held while the store is open
//! <dir>/FORMAT   what this is: format version, store, cluster and member id        (format.rs)
//! <dir>/FORMED   says that the member has its place in a cluster                 (peek.rs)
//! <dir>/SYNCED   how far the log was synced: tells that it lost its end   (crate::log::marker)
//! <dir>/MEMBERS  how far each member has come: tells that one went back in time    (members.rs)
//! <dir>/log/     the log                                                  (crate::log::segments)
//! <dir>/db/      RocksDB: the state                                                (rocks.rs)
//! <dir>/incoming/  parts of a snapshot that is being received; emptied at open
//! <dir>/.restoring/  a store that is being made of a backup                     (restoring.rs)
//! <dir>/.aside/  the member that was here before, while a new one joins a cluster  (aside.rs)
//! ```

pub mod format;
pub(crate) mod members;
pub mod peek;
pub mod rocks;

mod aside;
mod claim;
mod framing;
mod guard;
mod location;
mod opening;
mod pin;
mod records;
mod restoring;
mod tables;

pub(crate) use guard::Guard;
pub use location::{Expected, FileSystem, Location};
pub use opening::{First, Formation, Opening};
pub use restoring::Restoring;
pub(crate) use tables::Tables;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{DirectoryTrouble, EngineError};
use crate::files::remove_dir;
use crate::log::marker::{self, MarkerFile};
use crate::log::segments::{self, SegmentLog};
use crate::mutants;

use claim::Claim;
use format::{Format, Identity, Stage};
use members::MembersFile;
use pin::Pin;
use rocks::Db;

/// An open directory. It stays claimed until this is dropped.
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// What it holds.
    pub identity: Identity,
    /// The database.
    pub db: Arc<Db>,
    /// Whether it was made for a member that joins a cluster: such a member founds none, also when it has heard
    /// nothing yet of the one that takes it in.
    pub(crate) joins: bool,
    /// Whether it was made at this opening.
    pub(crate) is_new: bool,
    /// The marker of the log's durable end.
    pub marker: Arc<MarkerFile>,
    /// Where it is.
    pub location: Arc<Location>,
    /// Dropped after the database.
    pin: Pin,
    claim: Claim,
}

impl Directory {
    /// As [`Directory::open_as`]; a new one is a new cluster's.
    ///
    /// # Errors
    /// As there.
    pub fn open(path: &Path, store_id: &str) -> Result<Self, EngineError> {
        Self::open_as(path, store_id, Formation::NewCluster, &Opening::First(First::MayCreate))
    }

    /// Opens `path` for the store `store_id`; makes it, as `formation` says, when it is missing or
    /// empty and `opening` allows that. A member that joins a cluster sets aside what is there, also nothing; that comes back at
    /// the next open, unless [`Directory::discard_aside`] was called.
    ///
    /// # Errors
    /// The directory is locked, is no store's or another's, is of a newer format, damaged, full, lost,
    /// or cannot be used at all. One that is lost is not touched.
    pub fn open_as(path: &Path, store_id: &str, formation: Formation, opening: &Opening) -> Result<Self, EngineError> {
        check_store_id(store_id)?;
        let given = path;
        let anything = Opening::First(First::MayCreate);
        let opening = if mutants::is("any_directory") { &anything } else { opening };
        match opening {
            Opening::First(First::MayCreate) => make_dir(path)?,
            Opening::First(First::MustExist) => check_exists(path)?,
            Opening::Again(expected) => Expected::check_any(expected, path, store_id)?,
        }
        let path = path.canonicalize().map_err(|error| EngineError::from_io(path, &error))?;
        let claim = Claim::take(&path)?;
        aside::settle(&path)?;
        // Once more: from here on nobody else changes it, and what is below a mount point is never mistaken for it.
        match opening {
            Opening::First(First::MayCreate) => {}
            Opening::First(First::MustExist) => check_exists(&path)?,
            Opening::Again(expected) => Expected::check_any(expected, &path, store_id)?,
        }
        if let Formation::Joining { .. } = formation {
            match Format::read(&path)? {
                Some(present) => present.check_store(store_id)?,
                None => check_unused(&path)?,
            }
            aside::set_aside(&path)?;
        }
        let identity = || Identity::of_new(store_id, formation);
        let pin = Pin::on(&path)?;
        let claimed = Claimed { given, path, pin, claim };
        match Format::read(&claimed.path)? {
            None => {
                check_unused(&claimed.path)?;
                Self::create(claimed, identity()?, formation)
            }
            // The last start ended before the store was ready: nothing in it was ever promised.
            Some(format) if format.stage == Stage::Creating => {
                format.check_store(store_id)?;
                check_never_used(&claimed.path)?;
                remove_parts(&claimed.path)?;
                Self::create(claimed, identity()?, formation)
            }
            Some(format) => {
                format.check_store(store_id)?;
                let mut identity = format.identity;
                if let Formation::ForceNew { cluster_id } = formation {
                    identity = rename_cluster(&claimed.path, identity, cluster_id)?;
                }
                Self::open_existing(claimed, identity)
            }
        }
    }

    fn create(claimed: Claimed<'_>, identity: Identity, formation: Formation) -> Result<Self, EngineError> {
        let path = &claimed.path;
        Format { stage: Stage::Creating, identity: identity.clone() }.write(path)?;
        let db = rocks::open_through(claimed.pin.path(), path, true)?;
        let joins = matches!(formation, Formation::Joining { .. });
        rocks::begin(&db, path, &identity, joins)?;
        let marker = MarkerFile::create(path, identity.member_id)?;
        SegmentLog::create(path, identity.member_id).map_err(|error| EngineError::from_io(path, &error))?;
        Format { stage: Stage::Ready, identity: identity.clone() }.write(path)?;
        aside::forget_emptied(path)?;
        claimed.opened(identity, db, (joins, true), marker)
    }

    fn open_existing(claimed: Claimed<'_>, identity: Identity) -> Result<Self, EngineError> {
        let path = &claimed.path;
        let marker = MarkerFile::open(path, identity.member_id)?;
        remove_dir(&path.join(INCOMING))?;
        let db = rocks::open_through(claimed.pin.path(), path, false)?;
        let found = rocks::read_identity(&db)?;
        if found != identity {
            let detail = format!("FORMAT says {identity:?}, the database says {found:?}");
            return Err(EngineError::Corrupt { what: "format", detail });
        }
        let joins = rocks::read_joins(&db)?;
        claimed.opened(identity, db, (joins, false), marker)
    }

    /// How far the members were known to have come when this was written last.
    pub(crate) fn members(&self) -> Result<MembersFile, EngineError> {
        MembersFile::open(&self.path, &self.identity).map_err(|error| EngineError::from_io(&self.path, &error))
    }

    /// The log in it.
    pub fn log(&self) -> SegmentLog {
        let log = SegmentLog::new(&self.path, self.identity.member_id, Arc::clone(&self.marker));
        let location = Arc::clone(&self.location);
        log.within(Arc::new(move || location.check().map_err(io::Error::other)))
    }

    /// Discards the member that was set aside: the new one has taken its place, as a learner. `is_to_vote` notes that it is
    /// to become a voter.
    ///
    /// # Errors
    /// What the file system says.
    pub fn discard_aside(&self, is_to_vote: bool) -> Result<(), EngineError> {
        if is_to_vote {
            // First: after a crash, a learner that stays must know this.
            rocks::write_is_to_vote(&self.db, &self.path, true)?;
        }
        aside::discard(&self.path)
    }

    /// Removes all that a store keeps in `path`, which must not be open. The directory stays.
    ///
    /// # Errors
    /// It is in use, holds another store, or what the file system says.
    pub fn erase(path: &Path, store_id: &str) -> Result<(), EngineError> {
        let path = path.canonicalize().map_err(|error| EngineError::from_io(path, &error))?;
        let _claim = Claim::take(&path)?;
        if let Some(format) = Format::read(&path)? {
            format.check_store(store_id)?;
        }
        aside::erase(&path)
    }

    /// Bytes on the disk of everything in the directory of a store but its log.
    pub(crate) fn disk_bytes_besides_log(path: &Path) -> u64 {
        let Ok(entries) = fs::read_dir(path) else { return 0 };
        let others = entries.filter_map(Result::ok).filter(|entry| entry.file_name() != segments::DIR);
        others.map(|entry| disk_bytes(&entry)).sum()
    }

    /// Gives up the directory: nothing may use the database any more.
    ///
    /// # Errors
    /// It is lost, or the last sync failed. The directory is given up all the same.
    pub fn close(self) -> Result<(), EngineError> {
        let lost = self.location.check();
        let Self { path, db, marker, claim, pin, .. } = self;
        let marked = marker.sync().map_err(|error| EngineError::from_io(&path, &error));
        db.cancel_all_background_work(true);
        drop(db);
        drop(pin);
        drop(claim);
        lost.and(marked)
    }
}

/// A directory that is claimed, and not open yet.
struct Claimed<'a> {
    given: &'a Path,
    path: PathBuf,
    pin: Pin,
    claim: Claim,
}

impl Claimed<'_> {
    /// `(joins, is_new)` are the directory's.
    fn opened(
        self,
        identity: Identity,
        db: Db,
        (joins, is_new): (bool, bool),
        marker: MarkerFile,
    ) -> Result<Directory, EngineError> {
        let Self { given, path, mut pin, claim } = self;
        let location = Arc::new(Location::of(given, &path, &identity)?);
        let (db, marker) = (Arc::new(db), Arc::new(marker));
        pin.used_by(Arc::downgrade(&db));
        Ok(Directory { path, identity, db, joins, is_new, marker, location, pin, claim })
    }
}

/// Bytes of a file, or of all in a directory. What goes meanwhile counts for nothing.
fn disk_bytes(entry: &fs::DirEntry) -> u64 {
    let Ok(metadata) = entry.metadata() else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let Ok(entries) = fs::read_dir(entry.path()) else { return 0 };
    entries.filter_map(Result::ok).map(|entry| disk_bytes(&entry)).sum()
}

/// Gives a member's cluster a new id. Interrupted, it has to be done again: the directory is
/// refused until then.
fn rename_cluster(path: &Path, identity: Identity, cluster_id: u64) -> Result<Identity, EngineError> {
    let renamed = Identity { cluster_id, ..identity };
    let db = rocks::open(path, false)?;
    let found = rocks::read_identity(&db)?;
    if (&found.store_id, found.member_id) != (&renamed.store_id, renamed.member_id) {
        let detail = format!("FORMAT says member {}, the database says {found:?}", renamed.member_id);
        return Err(EngineError::Corrupt { what: "format", detail });
    }
    rocks::write_identity(&db, path, &renamed)?;
    Format { stage: Stage::Ready, identity: renamed.clone() }.write(path)?;
    Ok(renamed)
}

/// The folder for the parts of a snapshot that is being received.
pub const INCOMING: &str = "incoming";

/// The longest store id, in bytes.
const STORE_ID_BYTES_MAX: usize = 255;

fn check_store_id(store_id: &str) -> Result<(), EngineError> {
    let invalid = |why: &str| Err(EngineError::InvalidOption { option: "store_id", why: why.to_owned() });
    if store_id.is_empty() {
        return invalid("it is empty");
    }
    if store_id.len() > STORE_ID_BYTES_MAX {
        return invalid("it is longer than 255 bytes");
    }
    if store_id.chars().any(char::is_control) {
        return invalid("it contains a control character");
    }
    Ok(())
}

/// Makes the directory, readable by its owner only.
fn make_dir(path: &Path) -> Result<(), EngineError> {
    if path.as_os_str().is_empty() {
        let why = "it is empty".to_owned();
        return Err(EngineError::InvalidOption { option: "data_dir", why });
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| EngineError::from_io(path, &error))
}

/// Refuses a directory that holds no store. Changes nothing there.
fn check_exists(path: &Path) -> Result<(), EngineError> {
    let refused = |why: &str| {
        let (path, why) = (path.to_path_buf(), why.to_owned());
        Err(EngineError::Directory { path, kind: DirectoryTrouble::NoStore, why })
    };
    if location::is_gone(path)? {
        return refused("there is no such directory, and none may be made here");
    }
    match Format::read_settled(path)? {
        Some(format) if format.stage == Stage::Ready => Ok(()),
        Some(_) => refused("the store in it was never ready, and none may be made here"),
        None => {
            check_unused(path)?;
            refused("it holds no store, and none may be made here")
        }
    }
}

/// Refuses a directory without FORMAT that is not empty, unless a store was erased there.
fn check_unused(path: &Path) -> Result<(), EngineError> {
    for name in [rocks::DIR, marker::FILE, members::FILE, peek::FORMED, segments::DIR] {
        let is_part = path.join(name).exists() && (name != segments::DIR || SegmentLog::is_in(path));
        if is_part {
            let detail = format!("FORMAT is missing, but {name} is there");
            return Err(EngineError::Corrupt { what: "format", detail });
        }
    }
    match foreign(path)? {
        Some(name) if !aside::is_emptied(path) => {
            let why = format!("it is not empty ({name}), and not a store's: give an empty or a new directory");
            Err(EngineError::Directory { path: path.to_path_buf(), kind: DirectoryTrouble::NotAStore, why })
        }
        _ => Ok(()),
    }
}

/// A file in a directory without a store that no store made.
fn foreign(path: &Path) -> Result<Option<String>, EngineError> {
    let failed = |error: io::Error| EngineError::from_io(path, &error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        // A fresh file system has lost+found; LOCK is ours, made a moment ago.
        if name != claim::FILE && name != "lost+found" && !name.starts_with('.') && !name.ends_with(".tmp") {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

/// Refuses to make a directory anew that was in use: its FORMAT is an old one.
fn check_never_used(path: &Path) -> Result<(), EngineError> {
    if MarkerFile::is_used(path) {
        let detail = "FORMAT says that the directory was never ready, and it was in use".to_owned();
        return Err(EngineError::Corrupt { what: "format", detail });
    }
    Ok(())
}

fn remove_parts(path: &Path) -> Result<(), EngineError> {
    remove_dir(&path.join(rocks::DIR))?;
    remove_dir(&path.join(segments::DIR))?;
    remove_dir(&path.join(INCOMING))?;
    for file in [marker::FILE, peek::FORMED] {
        match fs::remove_file(path.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(EngineError::from_io(path, &error)),
            _ => {}
        }
    }
    Ok(())
}
