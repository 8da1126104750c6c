//! The thread that looks for what watches wait for, of all stores of this process: a part of each in turn.
//!
//! It is none of a store's own: looking at a hundred thousand changes takes a while, in which the raft core must
//! send heartbeats; and a store that does nothing needs no thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use once_cell::sync::Lazy;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::environment;
use crate::runtime;

use super::hub::Hub;

/// Looks at whether something passes a filter, until it is another store's turn: some milliseconds.
const BUDGET: usize = 20_000;

static QUEUE: Lazy<UnboundedSender<Arc<Hub>>> = Lazy::new(start);

/// Has the thread look at a hub; that of a simulated member is looked at by a task. Returns at once.
pub(super) fn look_at(hub: Arc<Hub>) {
    if environment::is_simulated() {
        runtime::spawn_simulated(async move { look(&hub) });
        return;
    }
    // The thread never ends.
    let _ = QUEUE.send(hub);
}

fn start() -> UnboundedSender<Arc<Hub>> {
    let (sender, hubs) = unbounded_channel();
    if let Err(error) = std::thread::Builder::new().name("tank-watch-hub".to_owned()).spawn(|| run(hubs)) {
        tracing::error!(%error, "no thread for watches: they are told nothing");
    }
    sender
}

fn run(mut hubs: UnboundedReceiver<Arc<Hub>>) {
    while let Some(hub) = hubs.blocking_recv() {
        look(&hub);
    }
}

fn look(hub: &Arc<Hub>) {
    match catch_unwind(AssertUnwindSafe(|| hub.look(BUDGET))) {
        Ok(true) => hub.again(),
        Ok(false) => {}
        Err(panic) => hub.panicked(panic.as_ref()),
    }
}
