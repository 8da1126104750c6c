//! May this member answer as the leader now?
//!
//! Answers leave a leader only after its view shows what they promise. So while this member leads and has applied what
//! earlier leaders committed, its view holds every acknowledged write. How long it surely leads depends on the others:
//!
//! - The only voter leads as long as it runs. A second one cannot be elected without the vote of the first.
//! - With others, a leader rests on its lease: who acknowledged an append votes for nobody else for a third longer
//!   than the lease ([`hold`]). It counts from when the append was sent. What the raft core knows of such promises is
//!   not asked: its time is fixed for as long as it runs, and must be long, so that a leader may write also where the
//!   round trip is long ([`crate::raft::config`]).
//!
//! ```text
//!            elected, and what was committed before is applied here
//!   shut ───────────────────────────────────────────────────────────> open until the lease ends, renewed by each
//!    ^ ^                                                               │ │      acknowledgement of a majority
//!    │ └──another leads, the lease ended, a witness, the store closes──┘ │
//!    │                                                                   │ hands over, is removed or no voter any more,
//!    │                                                                   │ votes for another one
//!    │   another vote                                                    v
//!    └──────────────────────────────────────────────────────────────── void: shut for as long as this vote leads
//! ```
//!
//! Void comes before the first word to anybody: a member that is asked to take over needs no promise to end. It counts
//! for all votes up to one, by their order: what this member last heard of its raft core may be older than the vote that
//! it leads with. It is taken back only when it is certain that nothing was said ([`Suspension`]). There is no other
//! way to lead no more than those above: a member that leaves, a witness, a member that somebody else removes and one
//! that no majority answers all use them.
//!
//! When a store fails at its disk, its authority is sealed: nothing more is applied here or acknowledged by this member,
//! so that what held at that moment goes on to hold. The only voter's view is authoritative for as long as it is kept,
//! another leader's until it has handed over, which it does at once, or until its lease ends. Void ends it also then.
//!
//! A member that asks the leader may rest on the lease as well: it reads once its own view has what the leader's view
//! had, at a moment after the question came in and before the lease was over. Clocks are compared with nobody's; only
//! their rates count. The leader's clock counts also the time for which the machine is suspended ([`clock`]).
//!
//! What is committed may be seen before it is acknowledged: by a member that applied it sooner than the leader, which
//! told it to. A read that follows such a read must not see less. So the leader notes what it tells others, and answers
//! from nothing older.

#[cfg(test)]
mod tests;

mod clock;
mod hold;

pub(super) use hold::VoteHold;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::Guard;
use openraft::ServerState;
use openraft::alias::InstantOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::mutants;
use crate::peers::Basis;
use crate::sync::lock;
use crate::view::{Published, View};

use super::witness::Witness;
use super::{MemberId, Raft, Types, Vote};

use clock::Clock;

/// Between two questions whether this member leads, when it was not sure.
const ASK_AGAIN: Duration = Duration::from_millis(5);

const SHUT: u64 = 0;
const FOR_GOOD: u64 = u64::MAX;

/// Whether this member may answer as the leader.
pub(crate) struct Authority {
    published: Arc<Published>,
    /// When the lease ends, by [`clock::now`].
    until: AtomicU64,
    /// Up to this log index, other members may have heard that the log is committed.
    told: AtomicU64,
    /// What the lease may be renewed for.
    grounds: Mutex<Grounds>,
    look_again: Notify,
}

#[derive(Debug, Default)]
struct Grounds {
    /// Nothing that was acknowledged to a vote up to this one counts.
    void: Option<Vote>,
    /// Nor to a vote up to each of these, as long as it is not known whether this member leads on.
    suspended: Vec<Vote>,
    closed: bool,
    /// The store failed at its disk: what the raft core does, which ends then, no longer counts.
    sealed: bool,
}

impl Grounds {
    fn void(&mut self, vote: Vote) {
        if self.void.is_none_or(|void| void < vote) {
            self.void = Some(vote);
        }
    }
}

/// What this member may rest its reads on, as the raft core sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leadership {
    None,
    /// Nobody else votes.
    Alone,
    /// A quorum acknowledged what was sent then.
    Lease(Option<Instant>),
}

impl Authority {
    /// Shut. `published` is what it answers from.
    pub(crate) fn new(published: Arc<Published>) -> Self {
        Self {
            published,
            until: AtomicU64::new(SHUT),
            told: AtomicU64::new(0),
            grounds: Mutex::default(),
            look_again: Notify::new(),
        }
    }

    /// The view that it answers from, authoritative or not.
    pub(crate) fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The published view, if it is authoritative.
    pub(crate) fn view(&self) -> Option<Guard<Arc<View>>> {
        // In this order: what is looked at after the lease is no older than what the lease says.
        if !self.is_open() {
            return None;
        }
        let told = self.told.load(Ordering::Acquire);
        let view = self.published.load();
        (view.applied_index() >= told).then_some(view)
    }

    /// The log index from which on any member's view is authoritative for a reader that asks now, by the lease.
    pub(crate) fn leased_index(&self) -> Option<u64> {
        // The order, as above.
        self.is_open().then(|| self.told.load(Ordering::Acquire).max(self.published.load().applied_index()))
    }

    /// As [`Authority::leased_index`]; without a lease, or when that must not count, by asking a quorum. `None` when
    /// this member does not surely lead.
    pub(crate) async fn read_index(&self, raft: &Raft, basis: Basis) -> Option<u64> {
        let by_lease = if basis == Basis::Lease { self.leased_index() } else { None };
        if by_lease.is_some() {
            return by_lease;
        }
        let read = raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        read.ok().map(|read| read.read_log_id().index())
    }

    /// Other members are about to hear that the log is committed up to `index`.
    pub(crate) fn tell(&self, index: u64) {
        self.told.fetch_max(index, Ordering::AcqRel);
    }

    /// Whether reads are answered from memory.
    pub(crate) fn is_open(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOR_GOOD || (until != SHUT && (clock::now() < until || mutants::is("stale_lease_read")))
    }

    /// Whether this is the only voter, and leads.
    pub(crate) fn is_alone(&self) -> bool {
        self.until.load(Ordering::Acquire) == FOR_GOOD
    }

    /// Answers nothing by the lease any more, for as long as this member leads with `vote` or an earlier one.
    pub(crate) fn void(&self, vote: &Vote) {
        let mut grounds = lock(&self.grounds);
        grounds.void(*vote);
        self.until.store(SHUT, Ordering::Release);
    }

    /// As [`Authority::void`], unless it is lifted.
    pub(crate) fn suspend(&self, vote: &Vote) -> Suspension<'_> {
        let mut grounds = lock(&self.grounds);
        grounds.suspended.push(*vote);
        self.until.store(SHUT, Ordering::Release);
        Suspension { authority: self, vote: *vote, lifted: false }
    }

    /// Answers nothing any more: the store is being closed. When it is sealed, the engine decides whether anybody reads.
    pub(crate) fn close(&self) {
        let mut grounds = lock(&self.grounds);
        grounds.closed = true;
        if !grounds.sealed {
            self.until.store(SHUT, Ordering::Release);
        }
    }

    /// The store failed at its disk: what holds now stays.
    pub(crate) fn seal(&self) {
        lock(&self.grounds).sealed = true;
    }

    /// Whether it did.
    pub(crate) fn is_sealed(&self) -> bool {
        lock(&self.grounds).sealed
    }

    /// This member is the only voter, leads with `vote`, and its view is current.
    pub(crate) fn lead_alone(&self, vote: &Vote) {
        self.open(vote, FOR_GOOD);
    }

    fn open(&self, vote: &Vote, until: u64) {
        let grounds = lock(&self.grounds);
        if grounds.sealed {
            return;
        }
        let holds = !grounds.closed && grounds.void.iter().chain(&grounds.suspended).all(|void| void < vote);
        self.until.store(if holds { until } else { SHUT }, Ordering::Release);
    }

    fn shut(&self) {
        let grounds = lock(&self.grounds);
        if !grounds.sealed {
            self.until.store(SHUT, Ordering::Release);
        }
    }

    /// Has this member, if it leads, make `to` the leader. To be called again when that does not happen.
    ///
    /// # Errors
    /// The raft core has ended.
    pub(crate) async fn hand_over(&self, raft: &Raft, to: MemberId) -> Result<(), openraft::errors::Fatal<Types>> {
        let Some(vote) = leading_vote(raft) else { return Ok(()) };
        // The others vote at once then, whatever they promised.
        if !mutants::is("lease_while_handing_over") {
            self.void(&vote);
        }
        raft.trigger().transfer_leader(to).await
    }
}

/// The lease is void until this ends: lifted, when nobody was told that this member leads no more, or otherwise for good.
#[must_use]
pub(crate) struct Suspension<'a> {
    authority: &'a Authority,
    vote: Vote,
    lifted: bool,
}

impl Suspension<'_> {
    /// Nobody was told: the lease may be renewed.
    pub(crate) fn lift(mut self) {
        self.lifted = true;
    }
}

impl Drop for Suspension<'_> {
    fn drop(&mut self) {
        let mut grounds = lock(&self.authority.grounds);
        if let Some(at) = grounds.suspended.iter().position(|vote| *vote == self.vote) {
            grounds.suspended.swap_remove(at);
        }
        if !self.lifted {
            grounds.void(self.vote);
        }
        // It may lead with a later vote than was asked for.
        self.authority.look_again.notify_one();
    }
}

/// The vote that this member leads with, if it does.
pub(crate) fn leading_vote(raft: &Raft) -> Option<Vote> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    (metrics.state == ServerState::Leader).then_some(metrics.vote)
}

/// What [`follow`] needs.
pub(crate) struct Follow {
    pub(crate) authority: Arc<Authority>,
    pub(crate) raft: Raft,
    pub(crate) me: MemberId,
    pub(crate) witness: Arc<Witness>,
    /// How long the lease is.
    pub(crate) lease: Duration,
    pub(crate) health: Arc<Health>,
}

/// Follows the raft core: renews the lease and ends it, and notices the core's end. Runs until then.
///
/// `current` is the vote under which all that was committed before is applied.
pub(crate) async fn follow(of: Follow, mut current: Option<Vote>) {
    let Follow { authority, raft, me, witness, lease, health } = of;
    let mut metrics = raft.metrics();
    let mut server = raft.server_metrics();
    let mut clock = Clock::start();
    loop {
        faults::point("raft_watch");
        let (vote, leadership) = {
            server.borrow_and_update();
            let metrics = metrics.borrow_and_update();
            (metrics.vote, if witness.is_one() { Leadership::None } else { leadership(&metrics, me) })
        };
        if leadership == Leadership::None {
            current = None;
            authority.shut();
        } else {
            if current != Some(vote) {
                // What the only voter was current with, it stays current with: nobody else could add to it.
                if leadership != Leadership::Alone {
                    authority.shut();
                }
                current = raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok().then_some(vote);
            }
            match leadership {
                _ if current.is_none() => authority.shut(),
                Leadership::Alone => authority.open(&vote, FOR_GOOD),
                Leadership::Lease(Some(acknowledged)) => {
                    authority.open(&vote, clock.convert(acknowledged + lease, acknowledged).unwrap_or(SHUT));
                }
                Leadership::Lease(None) | Leadership::None => authority.shut(),
            }
        }
        let changed = async {
            // The only voter has no lease to follow, and need not wake with each write.
            match leadership {
                Leadership::Alone if current.is_some() => server.changed().await.is_ok(),
                // A leader that hands over refuses at once, and whatever it is asked changes the metrics.
                Leadership::Alone | Leadership::Lease(_) if current.is_none() => {
                    tokio::time::sleep(ASK_AGAIN).await;
                    metrics.changed().await.is_ok()
                }
                _ => metrics.changed().await.is_ok(),
            }
        };
        let goes_on = tokio::select! {
            changed = changed => changed,
            () = authority.look_again.notified() => true,
        };
        if !goes_on {
            break;
        }
    }
    authority.shut();
    let ended = raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(openraft::errors::Fatal::Stopped) => {}
        // The first reason given counts: a storage error was usually reported where it happened.
        Err(fatal) => health.fail(EngineError::Failed(fatal.to_string())),
    }
}

/// How long ago openraft's instant was.
pub(crate) fn age(instant: InstantOf<Types>) -> Duration {
    <InstantOf<Types> as openraft::Instant>::now() - instant
}

/// openraft's instant as one of tokio's; if anything, earlier.
fn to_tokio(instant: InstantOf<Types>) -> Option<Instant> {
    let now = Instant::now();
    now.checked_sub(age(instant))
}

fn leadership(metrics: &RaftMetrics<Types>, me: MemberId) -> Leadership {
    let membership = metrics.membership_config.membership();
    let votes = membership.voter_ids().any(|id| id == me);
    if metrics.state != ServerState::Leader || !votes {
        Leadership::None
    } else if membership.voter_ids().eq([me]) {
        Leadership::Alone
    } else {
        Leadership::Lease(metrics.last_quorum_acked.as_deref().and_then(|instant| to_tokio(*instant)))
    }
}
