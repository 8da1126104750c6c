//! Writing a backup.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::EngineError;
use crate::files::sync_dir;
use crate::snapshot::PinnedSnapshot;
use crate::storage::rocks;

use super::{About, FORMAT_VERSION, MAGIC, Progress};

/// A buffer's bytes: frames are a little larger than 64 KiB.
const BUFFER_BYTES: usize = 1 << 20;

/// Backups that are written into one file at once.
const AT_ONCE_MAX: u32 = 1_000;

/// Writes `snapshot` to `path`: after a crash there is what was there before, or the whole backup.
/// Asks `check` now and then whether to go on.
pub(crate) fn write(
    path: &Path,
    about: &About,
    snapshot: &PinnedSnapshot,
    progress: &Progress,
    check: impl Fn() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let (temporary, file) = Temporary::beside(path)?;
    write_to(file, path, about, snapshot, progress, check)?;
    // It may have been cancelled during the last sync.
    progress.add(0)?;
    temporary.rename(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(|error| EngineError::from_file(parent, &error))
}

fn write_to(
    file: File,
    path: &Path,
    about: &About,
    snapshot: &PinnedSnapshot,
    progress: &Progress,
    check: impl Fn() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::from_file(path, &error);
    let mut out = Summed { out: BufWriter::with_capacity(BUFFER_BYTES, file), crc: 0 };
    out.write(MAGIC).and_then(|()| out.write(&FORMAT_VERSION.to_be_bytes())).map_err(failed)?;
    out.record(&rocks::encode(about)?).map_err(failed)?;
    for frame in snapshot.frames()? {
        let frame = frame?;
        check()?;
        progress.add(frame.body.len())?;
        out.record(&frame.encode()).map_err(failed)?;
    }
    out.write(&0u32.to_be_bytes()).map_err(failed)?;
    let crc = out.crc;
    out.write(&crc.to_be_bytes()).map_err(failed)?;
    let file = out.out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Sums up what it writes.
struct Summed {
    out: BufWriter<File>,
    crc: u32,
}

impl Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.out.write_all(bytes)
    }

    fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write(&length.to_be_bytes())?;
        self.write(bytes)
    }
}

/// A file next to the one that it will replace; removed unless that happens. Its name is its own, also when several write
/// the same backup at once: the last one that is whole stays. One that a crash left is written again.
struct Temporary {
    path: PathBuf,
    /// Nobody else writes the file while this is locked.
    _lock: File,
    is_renamed: bool,
}

impl Temporary {
    /// Opens an empty one for the file `path`.
    fn beside(path: &Path) -> Result<(Self, File), EngineError> {
        let failed = |error: io::Error| EngineError::from_file(path, &error);
        for number in 0..AT_ONCE_MAX {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(if number == 0 { ".tmp".to_owned() } else { format!(".{number}.tmp") });
            let temporary = path.with_file_name(name);
            let file = File::options().create(true).truncate(false).write(true).open(&temporary).map_err(failed)?;
            match file.try_lock() {
                // The one that had it may have renamed or removed it since.
                Ok(()) if is_at(&file, &temporary).map_err(failed)? => {
                    file.set_len(0).map_err(failed)?;
                    let lock = file.try_clone().map_err(failed)?;
                    return Ok((Self { path: temporary, _lock: lock, is_renamed: false }, file));
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::other("too many backups into this file at once")))
    }

    fn rename(mut self, to: &Path) -> Result<(), EngineError> {
        fs::rename(&self.path, to).map_err(|error| EngineError::from_file(to, &error))?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `file` is what `path` names.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
