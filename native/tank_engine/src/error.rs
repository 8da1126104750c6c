//! What can go wrong, by what it means for the caller.

use std::io;
use std::path::PathBuf;

/// Where the kernel shows the files that this process has open. RocksDB is given its directory through it.
pub(crate) const OPEN_FILES: &str = "/proc/self/fd/";

/// Why a call to the engine did not succeed. Every variant says what the reader can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    // -- Surely not applied: safe to retry.
    /// More calls are in flight than the store allows. Slow down, then retry.
    #[error("too many calls in flight (limit {limit}); retry later")]
    Overloaded {
        /// The configured bound.
        limit: usize,
    },
    /// The store is not open (any more).
    #[error("the store is not running")]
    Closed,
    /// This member does not know of a leader that a quorum follows.
    #[error("no quorum: no leader that a majority of the members follows is known")]
    NoQuorum,
    /// This member is a witness: it holds nothing to read, and takes no writes. Ask another one.
    #[error("a witness serves neither reads nor writes")]
    Witness,
    /// This member's disk went back in time: it takes part in nothing until it is replaced by a new member.
    #[error("this member's disk went back in time; it is being replaced by a new member")]
    LogLost,
    /// This member holds committed entries that the cluster does not have any more.
    #[error("this member holds committed entries that the cluster does not have any more; an operator has to decide")]
    HistoryLost,
    /// The state of this member differs from that of the others. It serves nobody until it has been replaced: its alarms
    /// say what to do. Ask another member.
    #[error("the state of this member differs from that of the others: it serves nobody until it has been replaced")]
    Differs,
    /// The change would leave witnesses as the only voters, and they never lead.
    #[error("only witnesses would be left to vote")]
    OnlyWitnesses,

    // -- Outcome unknown: ask again with the same request id, or read.
    /// The write was handed over, and its fate was not learned.
    #[error("the outcome is unknown")]
    Unknown,

    // -- The caller's fault.
    /// A name, path or value is larger than the store takes.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// What was too large: `value`, `path` or `path_component`.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The path's bytes are not a path.
    #[error("invalid path: {0}")]
    InvalidPath(String),
    /// A pattern makes no sense.
    #[error("invalid pattern: {0}")]
    InvalidPattern(String),
    /// The revision is too old to be read.
    #[error("revisions below {min} are compacted")]
    Compacted {
        /// The oldest that can be read.
        min: u64,
    },
    /// The store has not come to the revision yet.
    #[error("the revision is in the future; the store is at {current}")]
    FutureRevision {
        /// The store's revision.
        current: u64,
    },
    /// An option of the store has a value that it cannot have.
    #[error("option {option}: {why}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        why: String,
    },

    // -- The store is down, or did not come up.
    /// The engine met a panic or a storage error and stopped. Its supervisor restarts it.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// Another store holds the directory.
    #[error("{path:?} is in use by {by}")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it.
        by: LockHolder,
    },
    /// The directory cannot be used: a file is in its place, it cannot be written, and the like.
    #[error("data directory {path:?}: {why}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Which kind of trouble.
        kind: DirectoryTrouble,
        /// What the operating system said.
        why: String,
    },
    /// No space is left. Free some and start the store again.
    #[error("no space left on the disk of {path:?}")]
    DiskFull {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds another store.
    #[error("the directory holds the store {found:?}, not {expected:?}")]
    WrongStore {
        /// The store id asked for.
        expected: String,
        /// The store id found.
        found: String,
    },
    /// The directory was written by an older release, whose format this one does not read.
    #[error("the directory has format {found}; this release reads {supported} only")]
    OlderFormat {
        /// The format version found.
        found: u32,
        /// The one that this release reads.
        supported: u32,
    },
    /// The directory was written by a newer release.
    #[error("the directory has format {found}; this release reads up to {supported}")]
    NewerFormat {
        /// The format version found.
        found: u32,
        /// The highest one this release reads.
        supported: u32,
    },
    /// The directory is damaged. Restore it from a backup, or let this member join again.
    #[error("damaged {what}: {detail}")]
    Corrupt {
        /// Which part: `format`, `marker`, `log`, `state`, `database`, `vote`, `backup`.
        what: &'static str,
        /// What was found.
        detail: String,
    },
    /// A file that the caller named, such as a backup, cannot be read or written.
    #[error("{path:?}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        why: String,
    },
    /// The disk failed.
    #[error("storage: {0}")]
    Storage(String),
    /// The directory of a store that ran is not what it was. Nothing was made or changed there. Put it back, and the
    /// store goes on.
    #[error("the directory of the store is lost: {path:?} {what}")]
    Lost {
        /// What is there instead.
        what: Loss,
        /// The directory.
        path: PathBuf,
    },
}

/// What is in the place of a directory that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Missing,
    /// A directory that holds no store.
    Empty,
    /// Another store.
    OtherStore,
    /// A member of this store, of another cluster.
    OtherCluster,
    /// Another member of this store.
    OtherMember,
    /// This member, on another file system: a copy, and perhaps an old one.
    OtherFileSystem,
    /// This member, in another directory than the one that is open.
    Replaced,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "is gone",
            Self::Empty => "holds no store any more",
            Self::OtherStore => "holds another store",
            Self::OtherCluster => "holds a member of another cluster",
            Self::OtherMember => "holds another member",
            Self::OtherFileSystem => "is on another file system",
            Self::Replaced => "is another directory than the open one",
        })
    }
}

/// Who holds a locked directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockHolder {
    /// A store of this VM.
    ThisVm,
    /// Another operating system process, with its id, if that could be read.
    OtherProcess(Option<u32>),
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ThisVm => f.write_str("another store of this VM"),
            Self::OtherProcess(Some(pid)) => write!(f, "the operating system process {pid}"),
            Self::OtherProcess(None) => f.write_str("another operating system process"),
        }
    }
}

/// What is wrong with a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryTrouble {
    /// Something that is not a directory has its name.
    NotADirectory,
    /// It cannot be read or written.
    PermissionDenied,
    /// It holds files that no store wrote.
    NotAStore,
    /// It must be empty, and is not.
    NotEmpty,
    /// It is missing or empty, and must hold a store.
    NoStore,
    /// It cannot be created or read for another reason.
    Other,
}

impl EngineError {
    /// Whether the disk is in trouble: full, failing, lost, or not to be written. It may be well again later.
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::Storage(_) | Self::Lost { .. } => true,
            Self::Directory { kind, .. } => {
                matches!(kind, DirectoryTrouble::PermissionDenied | DirectoryTrouble::Other)
            }
            _ => false,
        }
    }

    /// Sorts an error of the file system about `path`, or one of ours that came as one.
    pub fn from_io(path: &std::path::Path, error: &io::Error) -> Self {
        if let Some(ours) = error.get_ref().and_then(|error| error.downcast_ref::<Self>()) {
            return ours.clone();
        }
        if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
            return Self::Storage(format!("{}: {error}", path.display()));
        }
        let path = path.to_path_buf();
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Self::DiskFull { path },
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => DirectoryTrouble::NotADirectory,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => DirectoryTrouble::PermissionDenied,
            _ => DirectoryTrouble::Other,
        };
        Self::Directory { path, kind, why: error.to_string() }
    }

    /// Sorts an error of the file system about the file `path`, which the caller named.
    pub fn from_file(path: &std::path::Path, error: &io::Error) -> Self {
        match Self::from_io(path, error) {
            Self::Directory { path, why, .. } => Self::File { path, why },
            full => full,
        }
    }

    /// Sorts an error of RocksDB that came of reading `what`: the bytes are damaged, or the disk did not give them.
    pub fn from_rocks_read(what: &'static str, error: &rocksdb::Error) -> Self {
        use rocksdb::ErrorKind;
        let detail = with_paths(error.as_ref(), open_file);
        let damaged = matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::InvalidArgument);
        // A file that is gone is damage, too.
        if damaged || detail.contains("No such file or directory") {
            Self::Corrupt { what, detail }
        } else {
            Self::Storage(detail)
        }
    }

    /// Sorts an error of RocksDB about the store in `path`.
    pub fn from_rocks(path: &std::path::Path, error: &rocksdb::Error) -> Self {
        use rocksdb::ErrorKind;
        let text = with_paths(error.as_ref(), |_file| path.to_path_buf());
        if text.contains("No space left on device") {
            return Self::DiskFull { path: path.to_path_buf() };
        }
        if text.contains("LOCK") && text.contains("lock") {
            let ours = text.contains("lock hold by current process");
            let by = if ours { LockHolder::ThisVm } else { LockHolder::OtherProcess(None) };
            return Self::Locked { path: path.to_path_buf(), by };
        }
        if text.contains("Permission denied") || text.contains("Read-only file system") {
            let kind = DirectoryTrouble::PermissionDenied;
            return Self::Directory { path: path.to_path_buf(), kind, why: text };
        }
        if text.contains("No such file or directory") {
            return Self::Corrupt { what: "database", detail: text };
        }
        match error.kind() {
            ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::InvalidArgument => {
                Self::Corrupt { what: "database", detail: text }
            }
            _ => Self::Storage(text),
        }
    }
}

/// A text of RocksDB, which knows the store's directory by the number of an open file ([`OPEN_FILES`]), with its path.
fn with_paths(text: &str, path_of: impl Fn(&str) -> PathBuf) -> String {
    let mut parts = text.split(OPEN_FILES);
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let file = part.strip_suffix(rest).unwrap_or_default();
        named.push_str(&path_of(file).to_string_lossy());
        named.push_str(rest);
    }
    named
}

/// Where an open file of this process is, by its number.
fn open_file(number: &str) -> PathBuf {
    let link = PathBuf::from(format!("{OPEN_FILES}{number}"));
    std::fs::read_link(&link).unwrap_or(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_does_not_give_is_no_damage() {
        let path = std::path::Path::new("store");
        let failing = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        let error = EngineError::from_io(path, &failing);
        assert!(
            matches!(&error, EngineError::Storage(why) if why.contains("store")) && error.is_of_the_disk(),
            "{error}"
        );
        let damaged = EngineError::Corrupt { what: "log", detail: "a checksum".to_owned() };
        assert_eq!(EngineError::from_io(path, &io::Error::other(damaged.clone())), damaged);

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("CURRENT")).unwrap();
        let unreadable =
            rocksdb::DB::open_for_read_only(&rocksdb::Options::default(), dir.path(), false).err().unwrap();
        let error = EngineError::from_rocks_read("state", &unreadable);
        assert!(matches!(error, EngineError::Storage(_)), "{error}");
        std::fs::remove_dir(dir.path().join("CURRENT")).unwrap();
        std::fs::write(dir.path().join("CURRENT"), "nonsense").unwrap();
        let damaged = rocksdb::DB::open_for_read_only(&rocksdb::Options::default(), dir.path(), false).err().unwrap();
        let error = EngineError::from_rocks_read("state", &damaged);
        assert!(matches!(error, EngineError::Corrupt { what: "state", .. }), "{error}");
    }

    #[test]
    fn a_text_of_rocksdb_names_the_directory() {
        let text = "IO error: While open a file: /proc/self/fd/37/db/000012.sst, /proc/self/fd/37: gone";
        let named = "IO error: While open a file: /data/db/000012.sst, /data: gone";
        assert_eq!(with_paths(text, |_file| PathBuf::from("/data")), named);
        assert_eq!(with_paths("no path", open_file), "no path");
    }

    #[test]
    fn what_rocksdb_does_not_read_is_named_by_its_path() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let through = format!("{OPEN_FILES}{}", open.as_raw_fd());
        let options = rocksdb::Options::default();
        let error = rocksdb::DB::open_for_read_only(&options, &through, false).err().unwrap();
        let text = EngineError::from_rocks_read("state", &error).to_string();
        assert!(text.contains(dir.path().to_str().unwrap()) && !text.contains(OPEN_FILES), "{text}");
    }
}
