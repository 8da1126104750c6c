//! What happens when the leader is lost?
//!
//! openraft's own election timer is off. Its times are fixed while it runs: if votes take longer, a candidate starts
//! again before it has them, for ever. Here, times follow the measured round trips and how regularly the leader is
//! heard.
//!
//! ```text
//!            silence, or the connection is lost            a quorum would vote for it
//!   follows ───────────────────────────────────> asks all ─────────────────────────────> candidate
//!    ^    ^                                      │  ^                                    │   │
//!    │    └─hears a leader, votes for another────┤  └──────────no leader after a while───┤   │
//!    │                                           └<──────────────────────────────────────┘   │ elected
//!    └────────no quorum answers for long, or another leads──────────── leads <───────────────┘
//! ```
//!
//! Asking (the pre-vote) changes nothing: a member that hears a leader refuses ([`super::authority`]), so a member that
//! was cut off disturbs no leader when it returns. Answers count whenever they arrive. A candidacy costs a term and
//! voids what is in flight, so a member waits longer after each one that fails.
//!
//! A leader whose disk fails resigns. It tells all others, which ends their promises to it, and names the member that
//! becomes a candidate first. The others follow a moment later, in case the named member lacks entries, or did not get
//! the message.
//!
//! A leader tells all others regularly that it leads, and waits for no answer. openraft's heartbeats wait for theirs,
//! and are only as frequent as the round trip allows. These messages keep others from voting. They never extend the
//! leader's own lease.

mod campaign;
mod leading;
mod pulse;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::StreamExt;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::options::Timing;
use crate::peers::Rpc;
use crate::sync::lock;

use super::authority::{Authority, VoteHold, age};
use super::roll_call::RollCall;
use super::witness::Witness;
use super::{LogId, MemberId, Raft, Types, Vote, VoteRequest, VoteResponse, quorum_lost_after};

use campaign::Campaign;
use leading::LeaderTerm;
use pulse::{Pulse, STRETCH_MAX};

/// Elections, as one member sees them.
pub(crate) struct Elections {
    raft: Raft,
    authority: Arc<Authority>,
    rpc: Arc<Rpc>,
    roll_call: Arc<RollCall>,
    me: MemberId,
    timing: Timing,
    hold: VoteHold,
    pulse: Mutex<Pulse>,
    witness: Arc<Witness>,
    /// Nodes whose connection was lost since it was last looked at.
    lost: Mutex<Vec<String>>,
    /// The last leader that resigned since its disk failed: its vote, and whom it named.
    resigned: Mutex<Option<(Vote, MemberId)>>,
    /// A member asked that cannot win, since this one has more of the log.
    ahead: AtomicBool,
    woken: Notify,
}

/// What is to be done.
enum Role {
    /// It does not vote.
    Bystander,
    /// Nobody else votes, and it does not lead yet.
    Alone,
    Follows,
    Leads,
}

impl Elections {
    /// Of a member that is started now.
    pub(crate) fn new(
        raft: Raft,
        authority: Arc<Authority>,
        (rpc, roll_call): (Arc<Rpc>, Arc<RollCall>),
        me: MemberId,
        timing: &Timing,
        witness: Arc<Witness>,
    ) -> Arc<Self> {
        Arc::new(Self {
            raft,
            authority,
            rpc,
            roll_call,
            me,
            timing: timing.clone(),
            hold: VoteHold::new(timing.vote_hold()),
            pulse: Mutex::default(),
            witness,
            lost: Mutex::default(),
            resigned: Mutex::default(),
            ahead: AtomicBool::new(false),
            woken: Notify::new(),
        })
    }

    /// An append or a sign of life of the leader with `vote` is here. It may count on this member before the raft
    /// core has it.
    pub(crate) async fn hear(&self, vote: &Vote) {
        // What it sent before it resigned may come later.
        let resigned = lock(&self.resigned).is_some_and(|(resigned, _)| resigned == *vote);
        // The core refuses those of an earlier leader.
        if !resigned && *vote >= self.raft.server_metrics().borrow_watched().vote {
            self.hold.promise(vote).await;
            let longest = (self.timing.leader_lease() + self.rpc.distance_max()) * STRETCH_MAX;
            lock(&self.pulse).beat(vote, Instant::now(), &self.timing, longest);
        }
    }

    /// When a leader was last heard, since this member was started.
    pub(crate) fn heard(&self) -> Option<Instant> {
        lock(&self.pulse).last
    }

    /// The leader with `vote` hands over.
    pub(crate) fn release(&self, vote: &Vote) {
        self.hold.release(vote);
    }

    /// The leader with `vote` has resigned since its disk failed, and names `to`. Any member that can win may stand.
    pub(crate) fn leader_resigned(&self, vote: &Vote, to: MemberId) {
        self.hold.release(vote);
        *lock(&self.resigned) = Some((*vote, to));
        self.woken.notify_one();
    }

    /// Votes, unless a leader may count on this member.
    ///
    /// # Errors
    /// The raft core's.
    pub(crate) async fn vote(&self, mut request: VoteRequest) -> Result<VoteResponse, openraft::errors::Fatal<Types>> {
        let turn =
            if request.leadership_transfer { Some(self.hold.turn_for_leader().await) } else { self.hold.turn().await };
        if turn.is_none() || (!request.leadership_transfer && self.surely_leads()) {
            return Ok(self.response(false));
        }
        // What was promised was looked at above. The core's own lease takes longer.
        request.leadership_transfer = true;
        // A leader that votes leads no more, and the one that it votes for may need no other vote. The core may lead by
        // now with a vote that the metrics do not show yet.
        let suspension = self.authority.suspend(&request.vote);
        let asked = request.vote;
        let voted = self.raft.vote(request).await;
        if voted.as_ref().is_ok_and(|response| response.vote < asked) {
            suspension.lift();
        }
        drop(turn);
        voted.map_err(|error| error.into_fatal().unwrap_or(openraft::errors::Fatal::Stopped))
    }

    /// Whether this member would vote.
    pub(crate) fn would_vote(&self, request: &VoteRequest) -> VoteResponse {
        let mut response = self.response(true);
        if request.last_log_id < response.last_log_id {
            self.ahead.store(true, Ordering::Relaxed);
            self.woken.notify_one();
            response.vote_granted = false;
        }
        let free = self.hold.until() <= Instant::now() && !self.surely_leads();
        response.vote_granted &= free && request.vote >= response.vote;
        response
    }

    /// The connection to `node` was lost. If the leader runs there, this member stands for election as soon as
    /// nobody can rest on that leader's lease any more, without the time that it would otherwise give a late sign
    /// of life.
    pub(crate) fn connection_lost(&self, node: &str) {
        lock(&self.lost).push(node.to_owned());
        self.woken.notify_one();
    }

    /// How recently a member must have answered to be counted on.
    pub(crate) fn in_touch_within(&self) -> Duration {
        self.timing.in_touch_within() + self.rpc.round_trip_max()
    }

    /// Runs until the raft core ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut server = self.raft.server_metrics();
        let mut campaign = Campaign::new(server.borrow_watched().vote);
        let mut next_sign = Instant::now();
        let mut leading: Option<LeaderTerm> = None;
        loop {
            let (role, vote) = {
                let metrics = server.borrow_and_update();
                self.witness.learn(&metrics.membership_config);
                (Role::of(&metrics, self.me), metrics.vote)
            };
            leading = match role {
                Role::Leads => leading.filter(|leading| leading.vote == vote).or_else(|| Some(LeaderTerm::new(vote))),
                _ => None,
            };
            let counts = self.roll_call.counts();
            let asks = !counts && self.roll_call.refusal().is_none();
            let look_again = match (role, &mut leading) {
                (Role::Leads, Some(leading)) => {
                    if next_sign <= Instant::now() {
                        next_sign = Instant::now() + Duration::from_millis(self.timing.heartbeat_interval_ms);
                        self.lead(leading).await;
                    }
                    lock(&self.lost).clear();
                    self.has_others().then_some(next_sign)
                }
                // It may have voted, and not know.
                (Role::Follows, _) if !counts => None,
                (Role::Follows, _) => Some(self.follow(&mut campaign).await),
                (Role::Alone, _) => {
                    let _ = self.raft.trigger().elect(false).await;
                    Some(Instant::now() + quorum_lost_after(&self.timing, Duration::ZERO))
                }
                _ => None,
            };
            let look_again = async {
                match look_again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                Some(answer) = campaign.answers.next() => self.take(&mut campaign, answer).await,
                () = self.woken.notified() => {}
                () = self.roll_call.settled(), if asks => {}
                () = look_again => {}
            }
        }
    }

    fn has_others(&self) -> bool {
        let metrics = self.raft.server_metrics();
        metrics.borrow_watched().membership_config.nodes().any(|(id, _)| *id != self.me)
    }

    /// Whether this member leads, and a majority has said so a moment ago.
    pub(crate) fn surely_leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.last_quorum_acked.as_deref().map(|at| age(*at));
        metrics.state == ServerState::Leader && acked.is_some_and(|age| age < self.in_touch_within())
    }

    fn last_log(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow_watched().last_log
    }

    fn response(&self, granted: bool) -> VoteResponse {
        let vote = self.raft.server_metrics().borrow_watched().vote;
        VoteResponse::new(vote, self.last_log(), granted)
    }
}

impl Role {
    fn of(metrics: &RaftServerMetrics<Types>, me: MemberId) -> Self {
        let (now, before) = (&metrics.membership_config, &metrics.committed_membership_config);
        if metrics.state == ServerState::Leader {
            Self::Leads
        } else if now.voter_ids().eq([me]) {
            Self::Alone
        } else if now.voter_ids().chain(before.voter_ids()).any(|id| id == me) {
            Self::Follows
        } else {
            Self::Bystander
        }
    }
}
