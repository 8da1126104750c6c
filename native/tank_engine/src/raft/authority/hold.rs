//! What has this member promised to leaders? That it votes for no other member for some time.
//!
//! ```text
//!            an append arrives                       the time is over
//!   free ───────────────────────> promised to a vote ────────────────> free
//!                                     │
//!                                     │ that leader hands over         an append of a higher vote
//!                                     └──────────────────────> released ──────────────────────────> promised
//! ```
//!
//! A member that has just started may have made a promise before. So it votes for no member for that time.
//!
//! A promise is noted before the append is given to the raft core. A vote is given to the core only while there is no
//! promise, and no append is noted until the core has handled the vote. So every append that the core acknowledges
//! after a vote is from the leader that was voted for, or from a later one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::time::Instant;

use crate::mutants;
use crate::raft::Vote;
use crate::sync::lock;

/// What this member has promised to leaders.
pub(crate) struct VoteHold {
    /// How long a promise holds.
    time: Duration,
    /// Shared to note a promise, alone to vote.
    turn: RwLock<()>,
    promise: Mutex<Promise>,
}

#[derive(Clone, Copy)]
struct Promise {
    /// To the leader with this vote; `None` when this member was started since.
    to: Option<Vote>,
    until: Instant,
    /// That leader hands over: nothing is promised to it any more.
    released: bool,
}

/// While it lives nothing is promised to anybody.
pub(crate) struct Turn<'a> {
    _alone: RwLockWriteGuard<'a, ()>,
}

impl VoteHold {
    /// Of a member that is started now. `time` is how long a promise holds.
    pub(crate) fn new(time: Duration) -> Self {
        let held = if mutants::is("vote_right_after_a_start") { Duration::ZERO } else { time };
        let promise = Promise { to: None, until: Instant::now() + held, released: false };
        Self { time, turn: RwLock::default(), promise: Mutex::new(promise) }
    }

    /// Notes that the leader with `vote` may count on this member from now on, unless a later leader does. Call
    /// it before an append of that leader is handed to the raft core.
    pub(crate) async fn promise(&self, vote: &Vote) {
        let _shared = self.turn.read().await;
        lock(&self.promise).renew(vote, Instant::now() + self.time);
    }

    /// The leader with `vote` hands over, and counts on nobody any more.
    pub(crate) fn release(&self, vote: &Vote) {
        lock(&self.promise).release(vote, Instant::now());
    }

    /// When the last promise ends, or has ended.
    pub(crate) fn until(&self) -> Instant {
        lock(&self.promise).until
    }

    /// The turn to vote, if nothing is promised to anybody.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        let turn = self.turn_for_leader().await;
        (self.until() <= Instant::now()).then_some(turn)
    }

    /// As [`VoteHold::turn`], whatever is promised: to vote as the leader itself has asked for.
    pub(crate) async fn turn_for_leader(&self) -> Turn<'_> {
        Turn { _alone: self.turn.write().await }
    }
}

impl Promise {
    fn renew(&mut self, vote: &Vote, until: Instant) {
        let later = self.to.is_none_or(|to| to < *vote);
        if later || (self.to == Some(*vote) && !self.released) {
            // What was promised before this member was started still counts.
            *self = Self { to: Some(*vote), until: until.max(self.until), released: false };
        }
    }

    fn release(&mut self, vote: &Vote, now: Instant) {
        if self.to == Some(*vote) {
            (self.until, self.released) = (now, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const TIME: Duration = Duration::from_millis(200);

    #[test]
    fn a_promise_counts_from_the_last_append_and_never_ends_earlier_than_the_one_before_the_start() {
        let now = Instant::now();
        let mut promise = Promise { to: None, until: now + TIME, released: false };
        promise.renew(&Vote::new_committed(1, 1), now + TIME / 2);
        assert_eq!(promise.until, now + TIME, "made before this member was started");
        promise.renew(&Vote::new_committed(1, 1), now + 2 * TIME);
        assert_eq!(promise.until, now + 2 * TIME);
    }

    #[test]
    fn a_leader_that_hands_over_is_promised_nothing_and_a_later_one_is() {
        let now = Instant::now();
        let (old, new) = (Vote::new_committed(1, 1), Vote::new_committed(2, 2));
        let mut promise = Promise { to: Some(old), until: now + TIME, released: false };
        promise.release(&new, now);
        assert_eq!(promise.until, now + TIME, "another leader hands over");
        promise.release(&old, now);
        promise.renew(&old, now + TIME);
        assert_eq!(promise.until, now, "what it sends until it is replaced does not count");
        promise.renew(&new, now + TIME);
        assert_eq!((promise.to, promise.until), (Some(new), now + TIME));
        promise.release(&old, now);
        promise.renew(&old, now + 2 * TIME);
        assert_eq!((promise.to, promise.until), (Some(new), now + TIME), "late frames of the old leader");
    }

    #[test]
    fn no_promise_is_made_while_a_vote_is_dealt_with() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let hold = VoteHold::new(Duration::ZERO);
            let turn = hold.turn().await.unwrap();
            let vote = Vote::new_committed(1, 1);
            let mut promise = std::pin::pin!(hold.promise(&vote));
            assert!(promise.as_mut().now_or_never().is_none());
            drop(turn);
            promise.await;
            assert_eq!(lock(&hold.promise).to, Some(vote));
        });
    }
}
