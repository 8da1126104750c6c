//! What happens when the leader is lost?
//!
//! openraft's own election timer is off. Its times are fixed for as long as it runs: where votes take longer
//! than they say, a candidate stands again before it has them, for ever. Here they follow the round trips that
//! are measured, and how regularly the leader is heard.
//!
//! ```text
//!            silence, or the connection is lost            a quorum would vote for it
//!   follows ───────────────────────────────────> asks all ─────────────────────────────> stands
//!    ^    ^                                      │  ^                                    │   │
//!    │    └─hears a leader, votes for another────┤  └──────────no leader after a while───┤   │
//!    │                                           └<──────────────────────────────────────┘   │ elected
//!    └────────no quorum answers for long, or another leads──────────── leads <───────────────┘
//! ```
//!
//! Asking (the pre-vote) changes nothing anywhere: a member that hears a leader refuses ([`super::authority`]), and
//! one that was cut off disturbs nobody when it is back. Answers count whenever they come. Standing costs a term, and
//! voids what is still on its way; so it waits for longer each time that it fails.
//!
//! A leader whose disk fails resigns: it tells all others, whose promises to it end with that, and names the one that is to
//! stand first. Should that one lack what another member has, or not hear of it, the others stand after it.
//!
//! Who leads tells all others so all the time, and waits for no answer: openraft's heartbeats wait for theirs, and
//! come only as often as the round trip allows. What is told keeps others from voting, and never counts for the
//! leader's own lease.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use openraft::vote::RaftLeaderId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::options::Timing;
use crate::peers::{Answer, Ballot, Call, Lane, Rpc, Wait};
use crate::storage::format::random_id;
use crate::sync::lock;

use super::authority::{Authority, VoteHold, age};
use super::ledger::Progress;
use super::roll_call::RollCall;
use super::witness::{self, Witness};
use super::{LogId, MemberId, Raft, StoredMembership, Types, Vote, VoteRequest, VoteResponse, quorum_lost_after};

/// When the connection to the leader is lost, members stand one after the other: those who stand at the same
/// moment split the votes. A round of votes takes a few milliseconds in one network; where it takes longer, so does
/// this.
const HEAD_START: Duration = Duration::from_millis(40);

/// How often a member that lost the connection to its leader asks quickly, and how soon after the first time; then
/// longer and longer.
const QUICK_ASKS: u32 = 8;
const QUICKLY: Duration = Duration::from_millis(15);

/// A promise ends by another clock reading than the one that is compared with it.
const GRACE: Duration = Duration::from_millis(2);

/// Other members stand after two to three times the unit of raft's waiting. One that could win has done so, a few
/// split votes included, when so many have passed: then a witness stands in.
const WITNESS_AFTER: u32 = 12;

/// How long the answer to a question counts, once it is there.
const ANSWER_COUNTS: Duration = Duration::from_secs(1);

/// The longest that an answer is waited for. Questions are asked again long before.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often the wait for votes is doubled.
const DOUBLINGS_MAX: u32 = 4;

/// A pause in what is heard of the leader makes members more patient for a while, up to so many times the unit of
/// raft's waiting and a round trip.
const STRETCH_MAX: u32 = 8;

/// TCP sends a lost segment again after about a round trip, and when it is lost again, after two or three more; nothing
/// behind it is delivered meanwhile. So a sign of life may be late by so many round trips, though the leader is well.
const LATE_ROUND_TRIPS: u32 = 4;

/// That patience is lost again by one part in so many of the time that passes.
const STRETCH_LOST: u32 = 20;

/// How long the raft core may take to hand on a vote of its own.
const STEP_DOWN_WITHIN: Duration = Duration::from_secs(1);

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

/// How a leader was heard.
#[derive(Default)]
struct Pulse {
    vote: Option<Vote>,
    last: Option<Instant>,
    /// How much longer than usual pauses have been of late.
    stretch: Duration,
}

/// What a member without a leader has done so far.
struct Campaign {
    /// The vote that it was last seen with, and since when.
    vote: Vote,
    since: Instant,
    /// When a leader was last heard.
    heard: Option<Instant>,
    /// It has neither heard a leader nor voted since it was started.
    fresh: bool,
    /// The connection to the leader is lost, or it has resigned.
    lost: bool,
    /// It has named another member, which comes first.
    named_another: bool,
    asked: Option<Asked>,
    /// How often it has asked, and stood, since a leader was heard.
    asks: u32,
    stands: u32,
    /// When it asks again; `None` while the leader may only be late.
    again: Option<Instant>,
    /// Drawn anew for each wait; from 0 to 1.
    luck: f64,
    answers: FuturesUnordered<BoxFuture<'static, Heard>>,
}

/// The question that is asked.
#[derive(PartialEq)]
struct Asked {
    vote: Vote,
    last_log: Option<LogId>,
    /// Who would vote, and since when.
    would: BTreeMap<MemberId, Instant>,
}

/// An answer: to which question, from whom.
type Heard = (Vote, MemberId, Option<VoteResponse>);

/// One time of leading.
struct Reign {
    vote: Vote,
    since: Instant,
    /// Since when this member leads though it is not to.
    ill_placed_since: Option<Instant>,
    hand_over_at: Instant,
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
            hold: VoteHold::new(timing.vote_embargo()),
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
        let mut reign: Option<Reign> = None;
        loop {
            let (role, vote) = {
                let metrics = server.borrow_and_update();
                self.witness.learn(&metrics.membership_config);
                (Role::of(&metrics, self.me), metrics.vote)
            };
            reign = match role {
                Role::Leads => reign.filter(|reign| reign.vote == vote).or_else(|| Some(Reign::new(vote))),
                _ => None,
            };
            let counts = self.roll_call.counts();
            let asks = !counts && self.roll_call.refusal().is_none();
            let look_again = match (role, &mut reign) {
                (Role::Leads, Some(reign)) => {
                    if next_sign <= Instant::now() {
                        next_sign = Instant::now() + Duration::from_millis(self.timing.heartbeat_ms);
                        self.lead(reign).await;
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

    /// Tells all others that this member leads. One that is not to lead hands over; one that no majority answers, or
    /// that cannot hand over, leads no longer than it takes to be sure.
    async fn lead(&self, reign: &mut Reign) {
        if self.authority.is_sealed() {
            // Its disk failed: it has resigned, and the others are not to wait for it.
            return;
        }
        let now = Instant::now();
        let (others, own, acked, ill_placed, successor) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.nodes().filter(|(id, _)| **id != self.me);
            let others: Vec<_> = members.map(|(id, member)| (*id, member.clone())).collect();
            let known = metrics.replication.as_ref().filter(|_| metrics.vote == reign.vote);
            let own = known.and_then(|known| *known.get(&self.me)?);
            let alone = metrics.membership_config.voter_ids().eq([self.me]);
            let acked = metrics.last_quorum_acked.as_deref().map(|at| age(*at));
            let removed = metrics.membership_config == metrics.committed_membership_config
                && metrics.membership_config.voter_ids().all(|id| id != self.me);
            let ill_placed = removed || self.witness.is_one();
            let acked = if alone { Some(Duration::ZERO) } else { acked };
            (others, own, acked, ill_placed, if ill_placed { witness::successor(&metrics) } else { None })
        };
        let lost_after = quorum_lost_after(&self.timing, self.rpc.distance_max());
        if acked.unwrap_or(Duration::MAX).min(reign.since.elapsed()) > lost_after {
            tracing::warn!("no majority has answered for long: this member leads no more");
            // And says nothing: the others would go on to wait for it.
            return self.step_down(&reign.vote).await;
        }
        if let Some(last) = own {
            self.roll_call.ledger().note(self.me, Progress { vote: reign.vote, last: Some(last) });
        }
        let is_member = |id| id == self.me || others.iter().any(|(other, _)| *other == id);
        let leads = Call::Leads { vote: reign.vote, progress: self.roll_call.ledger().all(is_member) };
        for (id, member) in &others {
            self.rpc.tell(*id, member, &leads);
        }
        if !ill_placed {
            reign.ill_placed_since = None;
            return;
        }
        let since = *reign.ill_placed_since.get_or_insert(now);
        if let Some(to) = successor {
            // The others are to hear first that it was removed.
            let told_at = if self.witness.is_one() { since } else { since + self.timing.leader_lease() };
            if now >= reign.hand_over_at.max(told_at) {
                reign.hand_over_at = now + self.hands_over_within();
                let _ = self.authority.hand_over(&self.raft, to).await;
            }
        } else if since.elapsed() > lost_after && !self.witness.is_one() {
            self.step_down(&reign.vote).await;
        }
    }

    /// How long it takes to hand over; then it is tried again.
    pub(crate) fn hands_over_within(&self) -> Duration {
        self.timing.leader_lease() + self.rpc.round_trip_max() * 3
    }

    /// The disk of this member failed, and its raft core is about to end. If this member leads, it tells all others, so that
    /// they need not wait until its lease is over, and names the voter that has most of the log. Waits for nothing: when
    /// what is told does not arrive soon, they do wait.
    pub(crate) fn disk_failed(&self) {
        let (request, others) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            // The only voter goes on to answer from its last view.
            if metrics.state != ServerState::Leader || metrics.membership_config.voter_ids().eq([self.me]) {
                return;
            }
            let (to, matched) = witness::most_advanced(&metrics).map_or((self.me, None), |(id, last)| (id, Some(last)));
            let members = metrics.membership_config.nodes().filter(|(id, _)| **id != self.me);
            let others: Vec<_> = members.map(|(id, member)| (*id, member.clone())).collect();
            (TransferLeaderRequest::new(metrics.vote, to, matched), others)
        };
        // The others vote at once then, whatever they promised.
        self.authority.void(request.from_leader());
        let call = Call::Resign(request);
        // Behind the entries that they were sent, or one that has more than the new leader would not vote for it.
        others.iter().for_each(|(id, member)| self.rpc.tell_after_entries(*id, member, &call));
    }

    /// Ends this member's leading with `vote`, as if another one stood.
    pub(crate) async fn step_down(&self, vote: &Vote) {
        self.authority.void(vote);
        let (other, last_log) = {
            let metrics = self.raft.server_metrics();
            let other = metrics.borrow_watched().membership_config.voter_ids().find(|id| *id != self.me);
            (other, self.last_log())
        };
        let Some(other) = other else { return };
        let mut request = VoteRequest::new(Vote::new(vote.leader_id().term() + 1, other), last_log);
        request.leadership_transfer = true;
        let _ = tokio::time::timeout(STEP_DOWN_WITHIN, self.vote(request)).await;
    }

    /// Does what a member that follows has to do now; returns when to look again.
    async fn follow(&self, campaign: &mut Campaign) -> Instant {
        self.note(campaign);
        let due = self.due(campaign);
        if due > Instant::now() {
            return due;
        }
        self.ask(campaign).await;
        campaign.again.unwrap_or(due)
    }

    /// Takes in what has changed.
    fn note(&self, campaign: &mut Campaign) {
        let (vote, leader_node) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader.filter(|id| *id != self.me);
            let node = leader.and_then(|id| metrics.membership_config.membership().get_node(&id).cloned());
            (metrics.vote, node.map(|member| member.node))
        };
        let heard = self.heard();
        if heard != campaign.heard {
            self.ahead.store(false, Ordering::Relaxed);
            campaign.hear(heard);
        }
        campaign.see(vote, self.me);
        let lost = std::mem::take(&mut *lock(&self.lost));
        campaign.lost |= leader_node.is_some_and(|node| lost.contains(&node));
        let resigned = lock(&self.resigned).filter(|(resigned, _)| *resigned == vote);
        if let Some((_, named)) = resigned {
            (campaign.lost, campaign.named_another) = (true, named != self.me);
        }
    }

    /// When to ask next.
    fn due(&self, campaign: &Campaign) -> Instant {
        if let Some(again) = campaign.again {
            return again;
        }
        let unit = self.timing.leader_lease();
        let free = self.hold.until() + GRACE;
        let silent_since = campaign.heard.unwrap_or(campaign.since).max(campaign.since);
        if self.witness.is_one() {
            return silent_since + unit * WITNESS_AFTER + unit.mul_f64(campaign.luck) + self.patience();
        }
        if self.ahead.load(Ordering::Relaxed) {
            // Another one has found the leader silent, and cannot win.
            return free;
        }
        if campaign.lost {
            let named_first = if campaign.named_another { self.stands_within() } else { Duration::ZERO };
            return free + named_first + self.head_start();
        }
        if campaign.fresh {
            return free + unit.mul_f64(campaign.luck);
        }
        silent_since + self.timing.vote_embargo() + unit.mul_f64(1.0 + campaign.luck / 3.0) + self.patience()
    }

    /// How much longer than usual to wait for a sign of life.
    fn patience(&self) -> Duration {
        lock(&self.pulse).stretch + self.rpc.distance_max() * LATE_ROUND_TRIPS
    }

    /// How long those that come before this member have to be elected, when the connection to the leader is lost.
    fn head_start(&self) -> Duration {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let (membership, leader) = (&metrics.membership_config, metrics.current_leader);
        let serves = |id: &MemberId| membership.get_node(id).is_some_and(|member| !member.witness);
        let before = membership.voter_ids().filter(|id| Some(*id) != leader && *id < self.me && serves(id)).count();
        self.stands_within() * u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// How long a member needs to stand and to win.
    fn stands_within(&self) -> Duration {
        HEAD_START + self.rpc.round_trip_max() * 3
    }

    /// Asks all others whether they would vote for this member.
    async fn ask(&self, campaign: &mut Campaign) {
        let (vote, membership) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, Arc::clone(&metrics.membership_config))
        };
        let now = Instant::now();
        if self.hold.until() > now {
            campaign.again = None;
            campaign.since = now;
            return;
        }
        self.ahead.store(false, Ordering::Relaxed);
        let question = Vote::new(vote.leader_id().term() + 1, self.me);
        let mut asked = Asked { vote: question, last_log: self.last_log(), would: BTreeMap::from([(self.me, now)]) };
        if let Some(before) = campaign.asked.take().filter(|before| before.is_same(&asked)) {
            asked.would.extend(before.would.into_iter().filter(|(_, since)| now < *since + ANSWER_COUNTS));
        }
        let voters: Vec<MemberId> = membership.voter_ids().filter(|id| *id != self.me).collect();
        for (id, member) in voters.iter().filter_map(|id| Some((*id, membership.get_node(id)?.clone()))) {
            let (request, known) = (VoteRequest::new(question, asked.last_log), self.roll_call.ledger().of(id));
            let call = Call::PreVote(Ballot { request, known });
            let rpc = Arc::clone(&self.rpc);
            campaign.answers.push(Box::pin(async move {
                match rpc.call(id, &member, Lane::Control, &call, Wait::For(ANSWER_WITHIN)).await {
                    Ok(Answer::Vote(response)) => (question, id, Some(response)),
                    _ => (question, id, None),
                }
            }));
        }
        campaign.asked = Some(asked);
        campaign.asks += 1;
        campaign.luck = luck();
        campaign.again = Some(now + self.until_asking_again(campaign));
        self.stand_if_it_can_win(campaign, &membership).await;
    }

    fn until_asking_again(&self, campaign: &Campaign) -> Duration {
        let round_trips = self.rpc.round_trip_max() * 2;
        if campaign.lost && campaign.asks <= QUICK_ASKS {
            return QUICKLY * campaign.asks + round_trips;
        }
        self.timing.leader_lease().mul_f64((1.0 + campaign.luck) * f64::from(campaign.asks.clamp(2, 3)) / 2.0)
            + round_trips
    }

    /// Takes in an answer.
    async fn take(&self, campaign: &mut Campaign, (question, from, response): Heard) {
        self.note(campaign);
        let Some(response) = response else { return };
        let (vote, membership) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, Arc::clone(&metrics.membership_config))
        };
        let Some(asked) = campaign.asked.as_mut().filter(|asked| asked.vote == question) else { return };
        if response.vote_granted {
            asked.would.insert(from, Instant::now());
            self.stand_if_it_can_win(campaign, &membership).await;
        } else if response.vote > vote {
            // A later term: what this member asks for is too little.
            let theirs = response.vote.leader_id();
            let mut request = VoteRequest::new(Vote::new(theirs.term(), *theirs.node_id()), self.last_log());
            request.leadership_transfer = false;
            let _ = self.vote(request).await;
        }
    }

    async fn stand_if_it_can_win(&self, campaign: &mut Campaign, membership: &StoredMembership) {
        let Some(asked) = &campaign.asked else { return };
        let majority = |voters: &std::collections::BTreeSet<MemberId>| {
            voters.iter().filter(|id| asked.would.contains_key(id)).count() * 2 > voters.len()
        };
        if !membership.membership().get_joint_config().iter().all(majority) {
            return;
        }
        let Some(turn) = self.hold.turn().await else { return };
        let term = self.raft.server_metrics().borrow_watched().vote.leader_id().term();
        if asked.vote.leader_id().term() != term + 1 {
            return;
        }
        let _ = self.raft.trigger().elect(false).await;
        drop(turn);
        let doublings = campaign.stands.min(DOUBLINGS_MAX);
        let votes_within = self.timing.leader_lease() + self.rpc.round_trip_max() * 2;
        campaign.luck = luck();
        campaign.again = Some(Instant::now() + (votes_within * (1 << doublings)).mul_f64(1.0 + campaign.luck / 2.0));
        campaign.stands += 1;
        campaign.asked = None;
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

impl Reign {
    fn new(vote: Vote) -> Self {
        let now = Instant::now();
        Self { vote, since: now, ill_placed_since: None, hand_over_at: now }
    }
}

impl Campaign {
    fn new(vote: Vote) -> Self {
        Self {
            vote,
            since: Instant::now(),
            heard: None,
            fresh: true,
            lost: false,
            named_another: false,
            asked: None,
            asks: 0,
            stands: 0,
            again: None,
            luck: luck(),
            answers: FuturesUnordered::new(),
        }
    }

    /// A leader was heard.
    fn hear(&mut self, heard: Option<Instant>) {
        self.heard = heard;
        self.wait_for_another();
        (self.asks, self.stands) = (0, 0);
    }

    /// This member's vote is `vote`, and it is `me`.
    fn see(&mut self, vote: Vote, me: MemberId) {
        if vote == self.vote {
            return;
        }
        self.vote = vote;
        if *vote.leader_id().node_id() != me {
            // The one that it voted for needs the time to win.
            self.since = Instant::now();
            self.wait_for_another();
        }
    }

    fn wait_for_another(&mut self) {
        (self.again, self.asked) = (None, None);
        (self.lost, self.named_another, self.fresh) = (false, false, false);
        self.luck = luck();
        self.answers.clear();
    }
}

impl Asked {
    fn is_same(&self, other: &Self) -> bool {
        self.vote == other.vote && self.last_log == other.last_log
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

impl Pulse {
    /// A sign of life of the leader with `vote`. Patience grows up to `longest`.
    fn beat(&mut self, vote: &Vote, now: Instant, timing: &Timing, longest: Duration) {
        let pause = self.last.filter(|_| self.vote == Some(*vote)).map_or(Duration::ZERO, |last| now - last);
        let usual = Duration::from_millis(timing.heartbeat_ms);
        let longer = pause.saturating_sub(usual).min(longest);
        self.stretch = longer.max(self.stretch.saturating_sub(pause / STRETCH_LOST));
        (self.vote, self.last) = (Some(*vote), Some(now));
    }
}

/// Random, from 0 to 1.
fn luck() -> f64 {
    let bits = random_id().map_or(1 << 31, |random| u32::try_from(random & u64::from(u32::MAX)).unwrap_or_default());
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irregular_signs_of_life_make_a_member_patient_for_a_while() {
        let timing = Timing::default();
        let (vote, mut now, mut pulse) = (Vote::new_committed(1, 1), Instant::now(), Pulse::default());
        let mut beat_after = |pulse: &mut Pulse, vote: &Vote, ms: u64| {
            now += Duration::from_millis(ms);
            pulse.beat(vote, now, &timing, timing.leader_lease() * STRETCH_MAX);
            pulse.stretch
        };
        assert_eq!(beat_after(&mut pulse, &vote, 0), Duration::ZERO);
        assert_eq!(beat_after(&mut pulse, &vote, timing.heartbeat_ms), Duration::ZERO);
        assert_eq!(beat_after(&mut pulse, &vote, timing.heartbeat_ms + 700), Duration::from_millis(700));
        for _ in 0..100 {
            beat_after(&mut pulse, &vote, timing.heartbeat_ms);
        }
        assert_eq!(pulse.stretch, Duration::from_millis(450), "5 seconds later");
        for _ in 0..200 {
            beat_after(&mut pulse, &vote, timing.heartbeat_ms);
        }
        assert_eq!(pulse.stretch, Duration::ZERO);
        beat_after(&mut pulse, &Vote::new_committed(2, 2), 5_000);
        assert_eq!(pulse.stretch, Duration::ZERO, "there was no leader to be heard");
        beat_after(&mut pulse, &Vote::new_committed(2, 2), 60_000);
        assert_eq!(pulse.stretch, timing.leader_lease() * STRETCH_MAX);
    }
}
