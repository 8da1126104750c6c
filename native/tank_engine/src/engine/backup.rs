//! Backups of a store that runs.

use std::path::Path;

use crate::backup::{self, About, Progress};
use crate::environment::wall_ms;
use crate::error::EngineError;
use crate::snapshot::PinnedSnapshot;
use crate::storage::rocks;
use crate::sync::lock;

use super::Engine;

/// Tries to pin the state while a snapshot takes its place.
const TRIES: usize = 3;

impl Engine {
    /// Writes the state as this member has applied it to the file `path`, while writes go on. It
    /// takes as long as writing all entries does.
    ///
    /// # Errors
    /// The file cannot be written, or the store is or gets closed, or has failed.
    pub fn backup(&self, path: &Path, progress: &Progress) -> Result<About, EngineError> {
        self.check_serves()?;
        let pinned = self.pin()?;
        let (header, identity) = (pinned.header(), self.identity());
        let about = About {
            store_id: identity.store_id.clone(),
            cluster_id: identity.cluster_id,
            revision: header.revision,
            entries: header.entries,
            digest: header.digest,
            time_ms: wall_ms(),
            history: self.history_id(header.history),
        };
        progress.expect(self.view()?.bytes);
        backup::write(path, &about, &pinned, progress, || self.check())?;
        Ok(about)
    }

    fn pin(&self) -> Result<PinnedSnapshot, EngineError> {
        let db = lock(&self.0.parts).as_ref().ok_or(EngineError::Closed)?.db();
        let pin = || PinnedSnapshot::new(db.clone(), rocks::state_name(rocks::generation(&db)?));
        let mut pinned = pin();
        for _ in 1..TRIES {
            if pinned.is_ok() {
                break;
            }
            pinned = pin();
        }
        pinned
    }
}
