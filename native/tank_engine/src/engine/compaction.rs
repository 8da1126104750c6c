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

/// Until the next try after one that failed, and between two looks at the age of revisions at the least.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Between two looks at the age of revisions at the most.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Looks at the age of revisions within the age that they may have.
const LOOKS_PER_AGE: u64 = 20;

/// Revisions compacted at a time. Applying one removes up to 500 from the disk: it keeps up.
const STEP: u64 = 400;

impl Engine {
    /// Compacts, as long as the store is open and whenever this member leads.
    pub(super) fn start_compacting(&self) {
        let inner = Arc::downgrade(&self.0);
        self.0.runtime.spawn("compaction", &self.0.health, compact(inner));
    }

    /// Whether the history was compacted. Otherwise that was refused, or it is unknown: the next look tells.
    async fn compact_to(self, revision: u64) -> bool {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(move |result| drop(sender.send(result)));
        let handed_over = self.write(Command::Compact { revision }, reply).is_ok();
        drop(self);
        handed_over && matches!(receiver.await, Ok(Ok(_)))
    }

    /// What is to be done about the history. May read the disk when that has a bound of age.
    fn next_compaction(&self) -> Result<Next, EngineError> {
        let (revision, compacted, log_time) = {
            let view = self.0.published.load();
            (view.revision, view.compacted, view.log_time)
        };
        let leads = self.0.raft.server_metrics().borrow_watched().state == ServerState::Leader;
        if !leads {
            return Ok(Next::Wait { revision: None, pause: None });
        }
        let options = &self.0.options;
        let by_count = revision.saturating_sub(options.history_revisions);
        // In steps that are worth a log entry.
        let step = (options.history_revisions / 10).clamp(1, STEP);
        if by_count >= compacted.saturating_add(step) {
            return Ok(Next::Compact(by_count.min(compacted + STEP)));
        }
        let too_many = compacted.saturating_add(step).saturating_add(options.history_revisions);
        let Some(age_ms) = options.history_age_ms else {
            return Ok(Next::Wait { revision: Some(too_many), pause: None });
        };
        if revision <= compacted {
            return Ok(Next::Wait { revision: Some(compacted + 1), pause: None });
        }
        let stamp_ms = wall_ms();
        let old = self.0.replay.made_before(log_time.at(stamp_ms).saturating_sub(age_ms), compacted, STEP)?;
        // Without writes the time in the log stands still, and history would not age: an entry that
        // compacts nothing moves it on.
        if old > compacted || log_time.is_behind(stamp_ms) {
            return Ok(Next::Compact(old));
        }
        let pause = Duration::from_millis(age_ms / LOOKS_PER_AGE).clamp(PAUSE_MIN, PAUSE_MAX);
        Ok(Next::Wait { revision: Some(too_many), pause: Some(pause) })
    }
}

/// What is to be done about the history.
enum Next {
    /// Forget what was before this revision.
    Compact(u64),
    /// Nothing, until there is this revision, or so much time has passed; or until the leader changes.
    Wait { revision: Option<u64>, pause: Option<Duration> },
}

async fn compact(inner: Weak<Inner>) {
    loop {
        // No longer than for one step: a store that nobody refers to closes.
        let Some(engine) = inner.upgrade().map(Engine) else { return };
        let (published, mut server) = (Arc::clone(&engine.0.published), engine.0.raft.server_metrics());
        server.borrow_and_update();
        let next = if engine.0.options.history_age_ms.is_some() {
            let engine = engine.clone();
            runtime::offload(move || engine.next_compaction()).await.and_then(|next| next)
        } else {
            engine.next_compaction()
        };
        let (revision, pause) = match next {
            Ok(Next::Compact(revision)) => {
                if engine.compact_to(revision).await {
                    continue;
                }
                (None, Some(PAUSE_MIN))
            }
            Ok(Next::Wait { revision, pause }) => {
                drop(engine);
                (revision, pause)
            }
            Err(EngineError::Closed) => return,
            Err(error) => {
                drop(engine);
                tracing::warn!(%error, "looking at the age of the history");
                (None, Some(PAUSE_MIN))
            }
        };
        tokio::select! {
            changed = server.changed() => if changed.is_err() { return },
            () = published.reached(revision.unwrap_or(u64::MAX)), if revision.is_some() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}
