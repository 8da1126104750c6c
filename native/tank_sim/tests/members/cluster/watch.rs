//! Watches of everything that members do.

use std::sync::Arc;

use tank_engine::engine::From;
use tank_engine::environment::World;
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::watch::{Budget, Filter, Next};
use tokio::sync::Notify;

use super::{Cluster, Running};
use crate::links::name;

impl Cluster {
    /// Watches everything at a member, from where its last life ended.
    pub(super) fn watch(&self, node: usize, running: &Running) {
        let Running { engine, environment, life, .. } = running.clone();
        let (oracle, stream) = (self.0.oracle.clone(), name(node));
        let watching = environment.run(async move {
            let woken = Arc::new(Notify::new());
            let wake = {
                let woken = Arc::clone(&woken);
                Box::new(move || woken.notify_one())
            };
            let from = From::After(oracle.told_upto(&stream));
            let Ok((cursor, _)) = engine.watch(Filter::prefix(Key::default()), from, wake) else { return };
            drop(engine);
            loop {
                let budget = Budget { revisions: 16, changes: 1_000, bytes: 1 << 20, look: 1_000, patient: true };
                match cursor.next(budget) {
                    Ok(Next::Changes(revisions, _)) => {
                        revisions.iter().for_each(|revised| oracle.told(&stream, revised));
                        tokio::task::yield_now().await;
                    }
                    Ok(Next::Idle(_)) => woken.notified().await,
                    Ok(Next::Large) => {}
                    Ok(Next::Compacted(min)) => {
                        return oracle.finds(format!("{stream}: revisions before {min} are gone"));
                    }
                    Err(EngineError::Closed) => return,
                    Err(error) => return oracle.finds(format!("{stream}: {error}")),
                }
            }
        });
        let task = tokio::spawn(watching);
        World::spawned(&*life, task.abort_handle());
    }
}
