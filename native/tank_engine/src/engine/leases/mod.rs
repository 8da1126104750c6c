//! Ends leases whose time is over, while this member leads.
//!
//! ```text
//! follows ──is elected──> leads, every lease has its whole time again ──proposes Expire──> log
//!    ^                      |  the clock stops while nothing can be committed,
//!    └──────deposed─────────┘  or while this process was stopped
//! ```
//!
//! No lease ends too early, for three reasons. The time of a lease starts when its grant or renewal is applied here,
//! which is after its holder sent it. A new leader gives each lease its whole time again. And an `Expire` names the
//! number of renewals that it has seen, so a renewal before it in the log makes it void.

mod deadlines;

use std::sync::Arc;
use std::time::Duration;

use imbl::ordmap::DiffItem;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::command::{Command, LeaseCommand, Request, RequestId};
use crate::environment::wall_ms;
use crate::raft::Raft;
use crate::raft::authority::age;
use crate::raft::election::Elections;
use crate::runtime;
use crate::state::Leases;
use crate::types::{MemberId, Vote};
use crate::view::Published;

use deadlines::{Clock, Deadlines, Due, TICK};

/// Leases ended at a time: when thousands end at once, other writes come in between.
const BATCH: usize = 256;

/// Leases that take longer to look at than other tasks should wait.
const MANY: usize = 2_000;

/// Between two such batches.
const BATCH_PAUSE: Duration = Duration::from_millis(5);

/// How long a log entry may take to be applied until the leader counts as stalled.
const PATIENCE: Duration = Duration::from_millis(250);

/// What the keeper works with.
pub(super) struct Keeper {
    pub(super) raft: Raft,
    pub(super) me: MemberId,
    pub(super) published: Arc<Published>,
    /// Know how old the last word of a quorum may be, until the leader counts as cut off.
    pub(super) elections: Arc<Elections>,
    /// Marks the keeper's own requests. Nobody else may use it.
    pub(super) client: u64,
}

/// One time of leading.
struct Reign {
    vote: Vote,
    known: Leases,
    deadlines: Deadlines,
    clock: Clock,
    /// A log entry that was not applied when it was looked for, and since when.
    waiting: Option<(u64, Instant)>,
    commits: bool,
}

impl Keeper {
    /// Runs until the raft core ends.
    pub(super) async fn keep(self) {
        let mut server = self.raft.server_metrics();
        let mut reign: Option<Reign> = None;
        let mut sequence = 0;
        loop {
            let vote = {
                let metrics = server.borrow_and_update();
                (metrics.state == ServerState::Leader).then_some(metrics.vote)
            };
            if vote != reign.as_ref().map(|reign| reign.vote) {
                reign = vote.map(Reign::new);
            }
            let pause = match &mut reign {
                Some(reign) => {
                    let many = self.published.load().leases.len() > MANY;
                    // A new leader looks at all of them.
                    let due = if many { runtime::blocking(|| reign.look(&self)) } else { reign.look(&self) };
                    let pause = if due.len() == BATCH { Some(BATCH_PAUSE) } else { reign.pause() };
                    if !self.propose(due, &mut sequence).await {
                        return;
                    }
                    pause
                }
                None => None,
            };
            let pause = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                () = self.published.leases_changed(), if reign.is_some() => {}
                () = pause => {}
            }
        }
    }

    /// Hands the ends of leases to the raft core, and to no other member: by the time they got
    /// there, another leader would have given the leases their whole time again. Returns whether
    /// there still is a core.
    async fn propose(&self, due: Vec<Due>, sequence: &mut u64) -> bool {
        let (time_ms, seen_ms) = (wall_ms(), self.published.load().log_time.now_ms());
        for Due { name, epoch, renewals } in due {
            // Never asked again under the same id: the state need not remember them.
            let id = RequestId { client: self.client, sequence: *sequence, resolved_below: *sequence };
            *sequence += 1;
            let command = Command::Lease(LeaseCommand::Expire { name, epoch, renewals });
            if self.raft.client_write_ff(Arc::new(Request { id, time_ms, command, seen_ms }), None).await.is_err() {
                return false;
            }
        }
        true
    }
}

impl Reign {
    fn new(vote: Vote) -> Self {
        Self {
            vote,
            known: Leases::default(),
            deadlines: Deadlines::default(),
            clock: Clock::new(Instant::now()),
            waiting: None,
            commits: false,
        }
    }

    /// Takes in what became of leases, and returns those to end.
    fn look(&mut self, keeper: &Keeper) -> Vec<Due> {
        // In this order: what is in the view was granted before now, so that its time, which
        // begins now, does not begin too early.
        let leases = keeper.published.load().leases.clone();
        let now = Instant::now();
        let commits = self.commits(keeper, now);
        if self.deadlines.is_empty() {
            self.clock.resume(now);
        } else if let Some(still) = self.clock.advance(now, commits) {
            self.deadlines.grant_again(still, self.clock.worked());
        }
        let worked = self.clock.worked();
        for item in self.known.diff(&leases) {
            match item {
                DiffItem::Add(_, lease) | DiffItem::Update { new: (_, lease), .. } => {
                    self.deadlines.restart(lease, worked);
                }
                DiffItem::Remove(name, _) => self.deadlines.remove(name),
            }
        }
        self.known = leases;
        self.commits = commits;
        if !commits {
            return Vec::new();
        }
        // After the leases that were granted before are known: the time passes for them, too.
        self.clock.skip(keeper.published.take_skipped_lease_time());
        self.deadlines.take_due(self.clock.worked(), BATCH)
    }

    /// Until the next look; `None`: until something changes.
    fn pause(&self) -> Option<Duration> {
        let next = self.deadlines.next()?;
        let left = if self.commits { next.saturating_sub(self.clock.worked()) } else { TICK };
        Some(left.clamp(Duration::from_millis(1), TICK))
    }

    /// Whether what is written now is committed soon, as far as this leader knows: a quorum
    /// answered a moment ago, and no log entry has been waiting for long.
    fn commits(&mut self, keeper: &Keeper, now: Instant) -> bool {
        let metrics = keeper.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.membership().voter_ids();
        let alone = matches!((voters.next(), voters.next()), (Some(id), None) if id == keeper.me);
        let acked = metrics.last_quorum_acked.as_deref();
        let in_touch = alone || acked.is_some_and(|at| age(*at) < keeper.elections.in_touch_within());
        let applied = metrics.last_applied.as_ref().map_or(0, |id| id.index());
        match self.waiting {
            Some((index, since)) if applied < index => in_touch && now.saturating_duration_since(since) < PATIENCE,
            _ => {
                let last = metrics.last_log_index.unwrap_or(0);
                self.waiting = (applied < last).then_some((last, now));
                in_touch
            }
        }
    }
}
