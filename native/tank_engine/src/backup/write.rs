//! Writing a backup.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::EngineError;
use crate::snapshot::PinnedSnapshot;
use crate::storage::{rocks, sync_dir};

use super::{About, FORMAT_VERSION, MAGIC, Progress};

/// A buffer's bytes: frames are a little larger than 64 KiB.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes `snapshot` to `path`: after a crash there is what was there before, or the whole backup.
/// Asks `check` now and then whether to go on.
pub(crate) fn write(
    path: &Path,
    about: &About,
    snapshot: &PinnedSnapshot,
    progress: &Progress,
    check: impl Fn() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let temporary = temporary(path);
    let written = write_to(&temporary, about, snapshot, progress, check)
        // It may have been cancelled during the last sync.
        .and_then(|()| progress.add(0))
        .and_then(|()| fs::rename(&temporary, path).map_err(|error| EngineError::from_file(path, &error)));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(|error| EngineError::from_file(parent, &error))
}

fn write_to(
    path: &Path,
    about: &About,
    snapshot: &PinnedSnapshot,
    progress: &Progress,
    check: impl Fn() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::from_file(path, &error);
    let file = File::create(path).map_err(failed)?;
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

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}
