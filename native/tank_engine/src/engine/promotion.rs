//! Goes on with a join that was interrupted before its last step.
//!
//! ```text
//! learner, in sync --> note "is to vote", discard the former member --> promoted by the leader --> the note goes
//!                                          |                               ^
//!                                          +-- killed, or no answer -------+ this task asks again
//! ```
//!
//! Without it, a member that was killed between these two steps would stay a learner, and its cluster would have a voter
//! less than its operator counts on. The note is in the member's own database: it is nobody else's, and goes with it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::peers::MembershipChange;
use crate::runtime;
use crate::storage::rocks;
use crate::sync::lock;

use super::lifecycle::Parts;
use super::{Engine, Inner};

/// Who joins asks for the promotion first, and knows the outcome sooner.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the leader is given.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// What this member is, as it knows.
enum Role {
    Voter,
    Learner,
    /// It has not heard yet of its cluster, or was removed.
    Unknown,
}

impl Engine {
    /// Goes on with a promotion that an earlier opening noted.
    pub(super) fn resume_promotion(&self) {
        let db = lock(&self.0.parts).as_ref().map(Parts::db);
        match db.map(|db| rocks::read_is_to_vote(&db)) {
            Some(Ok(true)) => self.start_promotion(),
            Some(Err(error)) => tracing::error!(%error, "reading whether this member is to vote"),
            _ => {}
        }
    }

    /// Sees to it that this member votes.
    pub(super) fn start_promotion(&self) {
        let inner = Arc::downgrade(&self.0);
        self.0.runtime.spawn("promotion", &self.0.health, promote(inner));
    }

    fn own_role(&self) -> Role {
        let me = self.0.leader.me;
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        // What is not committed may be taken back.
        let membership = metrics.committed_membership_config.membership();
        match membership.get_node(&me) {
            Some(_) if membership.voter_ids().any(|id| id == me) => Role::Voter,
            Some(_) => Role::Learner,
            None => Role::Unknown,
        }
    }

    /// A voter that is made a learner later is to stay one.
    async fn forget_promotion(&self) {
        let Some(db) = lock(&self.0.parts).as_ref().map(Parts::db) else { return };
        let dir = self.0.options.dir.clone();
        let forgotten = runtime::offload(move || rocks::write_is_to_vote(&db, &dir, false)).await;
        if let Ok(Err(error)) = forgotten {
            tracing::error!(%error, "noting that this member votes");
        }
    }
}

/// Ends with the promotion, or with the store.
async fn promote(inner: Weak<Inner>) {
    let mut pause_until = Instant::now() + PAUSE;
    loop {
        let Some(engine) = inner.upgrade().map(Engine) else { return };
        let mut server = engine.0.raft.server_metrics();
        server.borrow_and_update();
        match engine.own_role() {
            Role::Voter => return engine.forget_promotion().await,
            Role::Learner if pause_until <= Instant::now() => {
                let change = MembershipChange::Promote(engine.0.leader.me);
                if let Err(error) = engine.0.leader.change(&change, Instant::now() + ASK_WITHIN).await {
                    tracing::info!(%error, "this member is to vote, and does not yet: it asks again");
                }
                pause_until = Instant::now() + PAUSE;
            }
            Role::Learner | Role::Unknown => {}
        }
        drop(engine);
        let pause = tokio::time::sleep_until(pause_until.max(Instant::now() + PAUSE));
        tokio::select! {
            changed = server.changed() => if changed.is_err() { return },
            () = pause => {}
        }
    }
}
