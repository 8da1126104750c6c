//! Reading the past, and waiting for what is to come.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout_at};

use crate::error::EngineError;
use crate::key::Key;
use crate::machine;
use crate::outcome::Found;
use crate::runtime;
use crate::sync::lock;

use super::{Engine, Reply};

impl Engine {
    /// The entry at `key` as it was at `revision`. Reads the disk: may block.
    ///
    /// # Errors
    /// The revision is compacted or in the future, or the store is closed, has failed or is
    /// damaged.
    pub fn entry_at(&self, key: &Key, revision: u64) -> Result<Option<Found>, EngineError> {
        self.check()?;
        let db = lock(&self.0.parts).as_ref().ok_or(EngineError::Closed)?.db();
        machine::found_at(&db, key, revision)
    }

    /// Calls `reply` once the view is at `revision` or later. Gives up after `timeout`, with
    /// [`EngineError::Unknown`].
    pub fn await_revision(&self, revision: u64, timeout: Duration, reply: Reply<()>) {
        let engine = self.clone();
        let Ok(runtime) = runtime::handle() else { return reply.send(Err(EngineError::Closed)) };
        runtime.spawn(async move {
            let reached = engine.reach(revision, Instant::now() + timeout).await;
            reply.send(reached);
        });
    }

    async fn reach(&self, revision: u64, deadline: Instant) -> Result<(), EngineError> {
        let mut metrics = self.0.raft.metrics();
        loop {
            // Whatever is applied from here on changes them again.
            drop(metrics.borrow_and_update());
            if self.is_at(revision)? {
                return Ok(());
            }
            if !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                self.check()?;
                return if self.is_at(revision)? { Ok(()) } else { Err(EngineError::Unknown) };
            }
        }
    }

    fn is_at(&self, revision: u64) -> Result<bool, EngineError> {
        Ok(self.view()?.revision >= revision)
    }
}
