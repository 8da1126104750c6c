//! The leader keeps the history within bounds: by a command, so that all members agree.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::oneshot;

use crate::command::Command;
use crate::environment::wall_ms;
use crate::error::EngineError;
use crate::runtime;

use super::calls::Reply;
use super::{Engine, Inner};

/// How often to look.
const EVERY: Duration = Duration::from_millis(500);

/// Revisions compacted at a time. Applying one removes up to 500 from the disk: it keeps up.
const STEP: u64 = 400;

impl Engine {
    /// Compacts, as long as the store is open and whenever this member leads.
    pub(super) fn start_compacting(&self) {
        let inner = Arc::downgrade(&self.0);
        self.0.runtime.spawn("compaction", &self.0.health, compact(inner));
    }

    /// Up to where the history is to go next; `None` when it is within its bounds.
    fn next_compaction(&self) -> Result<Option<u64>, EngineError> {
        let (revision, compacted) = {
            let view = self.0.published.load();
            (view.revision, view.compacted)
        };
        let leads = self.0.raft.server_metrics().borrow_watched().state == ServerState::Leader;
        if !leads {
            return Ok(None);
        }
        let options = &self.0.options;
        let by_count = revision.saturating_sub(options.history_revisions);
        // In steps that are worth a log entry.
        let step = (options.history_revisions / 10).clamp(1, STEP);
        if by_count >= compacted.saturating_add(step) {
            return Ok(Some(by_count.min(compacted + STEP)));
        }
        let Some(age_ms) = options.history_age_ms else { return Ok(None) };
        let old = self.0.replay.made_before(wall_ms().saturating_sub(age_ms), compacted, STEP)?;
        Ok((old > compacted).then_some(old))
    }
}

async fn compact(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(EVERY).await;
        loop {
            // No longer than for one step: a store that nobody refers to closes.
            let Some(engine) = inner.upgrade().map(Engine) else { return };
            let looked = runtime::offload({
                let engine = engine.clone();
                move || engine.next_compaction()
            });
            let revision = match looked.await {
                Ok(Ok(Some(revision))) => revision,
                Ok(Ok(None)) => break,
                Ok(Err(EngineError::Closed)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "looking at the age of the history");
                    break;
                }
                Err(_) => return,
            };
            let (sender, receiver) = oneshot::channel();
            let reply = Reply::new(move |result| drop(sender.send(result)));
            let handed_over = engine.write(Command::Compact { revision }, reply).is_ok();
            drop(engine);
            // Refused or unknown: the next look tells.
            if !handed_over || !matches!(receiver.await, Ok(Ok(_))) {
                break;
            }
        }
    }
}
