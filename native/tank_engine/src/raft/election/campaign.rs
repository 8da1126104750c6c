//! What does a member do that hears no leader? It asks the others whether they would vote for it, and becomes a candidate
//! once a majority would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::vote::RaftLeaderId;
use tokio::time::Instant;

use crate::peers::{Answer, Ballot, Call, Lane, Wait};
use crate::sync::lock;
use crate::types::random_id;

use super::super::{LogId, MemberId, StoredMembership, Vote, VoteRequest, VoteResponse};
use super::Elections;

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

/// TCP sends a lost segment again after about a round trip, and when it is lost again, after two or three more; nothing
/// behind it is delivered meanwhile. So a sign of life may be late by so many round trips, though the leader is well.
const LATE_ROUND_TRIPS: u32 = 4;

/// What a member without a leader has done so far.
pub(super) struct Campaign {
    /// The vote that it was last seen with, and since when.
    pub(super) vote: Vote,
    pub(super) since: Instant,
    /// When a leader was last heard.
    pub(super) heard: Option<Instant>,
    /// It has neither heard a leader nor voted since it was started.
    pub(super) fresh: bool,
    /// The connection to the leader is lost, or it has resigned.
    pub(super) lost: bool,
    /// It has named another member, which comes first.
    pub(super) named_another: bool,
    pub(super) asked: Option<Asked>,
    /// How often it has asked, and stood, since a leader was heard.
    pub(super) asks: u32,
    pub(super) stands: u32,
    /// When it asks again; `None` while the leader may only be late.
    pub(super) again: Option<Instant>,
    /// Drawn anew for each wait; from 0 to 1.
    pub(super) luck: f64,
    pub(super) answers: FuturesUnordered<BoxFuture<'static, Heard>>,
}

/// The question that is asked.
#[derive(PartialEq)]
pub(super) struct Asked {
    pub(super) vote: Vote,
    pub(super) last_log: Option<LogId>,
    /// Who would vote, and since when.
    pub(super) would: BTreeMap<MemberId, Instant>,
}

/// An answer: to which question, from whom.
pub(super) type Heard = (Vote, MemberId, Option<VoteResponse>);

impl Elections {
    /// Does what a member that follows has to do now; returns when to look again.
    pub(super) async fn follow(&self, campaign: &mut Campaign) -> Instant {
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
        silent_since + self.timing.vote_hold() + unit.mul_f64(1.0 + campaign.luck / 3.0) + self.patience()
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
    pub(super) async fn take(&self, campaign: &mut Campaign, (question, from, response): Heard) {
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
}

impl Campaign {
    pub(super) fn new(vote: Vote) -> Self {
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

/// Random, from 0 to 1.
fn luck() -> f64 {
    let bits = random_id().map_or(1 << 31, |random| u32::try_from(random & u64::from(u32::MAX)).unwrap_or_default());
    f64::from(bits) / f64::from(u32::MAX)
}
