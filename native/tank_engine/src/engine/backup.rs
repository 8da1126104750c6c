//! Backups of a store that runs.

use std::path::Path;
use std::sync::Arc;

use crate::backup::{self, About, Progress};
use crate::environment::wall_ms;
use crate::error::EngineError;
use crate::snapshot::PinnedSnapshot;
use crate::sync::lock;

use super::Engine;

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

    /// The state as this member has applied it.
    fn pin(&self) -> Result<Arc<PinnedSnapshot>, EngineError> {
        let checkpoints = lock(&self.0.parts).as_ref().ok_or(EngineError::Closed)?.checkpoints();
        checkpoints.pin()
    }
}
