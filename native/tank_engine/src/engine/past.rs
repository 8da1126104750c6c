//! Reading the past, and waiting for what is to come.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout_at};

use crate::error::EngineError;
use crate::key::Key;
use crate::outcome::Found;

use super::{Engine, Place, Position, Reply};

impl Engine {
    /// The entry at `key` as it was at `position`. Reads the disk: may block.
    ///
    /// # Errors
    /// The revision is compacted, of another history or in the future, or the store is closed, has failed or is
    /// damaged.
    pub fn entry_at(&self, key: &Key, position: Position) -> Result<Option<Found>, EngineError> {
        self.check_same()?;
        let view = self.0.published.load_full();
        if let Place::Compacted(min) = self.place(&view, position, false) {
            return Err(EngineError::Compacted { min });
        }
        self.0.replay.found_at(key, position.revision)
    }

    /// Calls `reply` once the view is at `position` or later. Gives up after `timeout`, with
    /// [`EngineError::Unknown`]; and when the store is in another history, with [`EngineError::Compacted`].
    pub fn await_revision(&self, position: Position, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        self.0.runtime.spawn("reach", &self.0.health, async move {
            let reached = engine.reach(position, Instant::now() + timeout).await;
            reply.send(reached);
        });
    }

    async fn reach(&self, position: Position, deadline: Instant) -> Result<(), EngineError> {
        let mut metrics = self.0.raft.metrics();
        loop {
            // Whatever is applied from here on changes them again.
            drop(metrics.borrow_and_update());
            if self.has_reached(position)? {
                return Ok(());
            }
            if !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                self.check()?;
                return if self.has_reached(position)? { Ok(()) } else { Err(EngineError::Unknown) };
            }
        }
    }

    fn has_reached(&self, position: Position) -> Result<bool, EngineError> {
        let view = self.view()?;
        match self.place(&view, position, false) {
            Place::Compacted(min) if position.history.is_some() => Err(EngineError::Compacted { min }),
            _ => Ok(view.revision >= position.revision),
        }
    }
}
