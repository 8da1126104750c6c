//! Do all members have the same state?
//!
//! The leader asks each member for its marks ([`crate::marks`]) when the members change, when it starts to lead, and
//! every few seconds. It compares them with its own. The state of a majority of voters counts as correct; without a
//! majority, the leader's.
//!
//! ```text
//! leader --marks?--> member            equal: nothing happens
//! leader <--marks--- member            different: the leader raises an alarm, and tells the member
//! leader --differs-> member            the member raises an alarm, answers no calls, and votes like a witness
//! ```
//!
//! A member whose state differs still has the same log as the others: what it acknowledges is durable there, and it may
//! vote. But it answers no read, takes no write, ends its watches, and hands leadership over. Its state is not repaired
//! in place. The member is replaced: by itself if a majority has the other state, otherwise by the operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::alarms::Alarm;
use crate::health::Health;
use crate::marks::{Difference, Mark, compare};
use crate::peers::{Answer, Call, Differs, Lane, Rpc, Wait};
use crate::view::Published;

use super::authority::{Authority, leading_vote};
use super::witness::Witness;
use super::{Member, MemberId, Raft};

/// How often members are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// The same, while one was not compared yet or differs.
const COMPARE_SOON: Duration = Duration::from_secs(1);

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Between two tries to compare a member that is to be promoted.
const PROMOTION_RETRY: Duration = Duration::from_millis(20);

/// The alarm at the leader, about the member.
const MEMBER_DIFFERS: &str = "member_differs";

/// The alarm at the member that differs.
const STATE_DIFFERS: &str = "state_differs";

/// Compares members, and makes the one that differs serve nobody.
pub(crate) struct Comparison {
    pub(crate) raft: Raft,
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) health: Arc<Health>,
    pub(crate) me: MemberId,
}

/// Another member, as the leader knows it.
struct Other {
    id: MemberId,
    member: Member,
    votes: bool,
}

type Compared = Option<Result<(), Difference>>;

impl Comparison {
    /// Runs until the raft core ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut server = self.raft.server_metrics();
        loop {
            let others = {
                let metrics = server.borrow_and_update();
                let voters: Vec<MemberId> = metrics.membership_config.voter_ids().collect();
                let other = |(id, member): (&MemberId, &Member)| Other {
                    id: *id,
                    member: member.clone(),
                    votes: voters.contains(id),
                };
                let leads = metrics.state == ServerState::Leader && !self.witness.differs();
                let members = metrics.membership_config.nodes().filter(|(id, _)| leads && **id != self.me);
                members.map(other).collect::<Vec<_>>()
            };
            self.health.alarms().retain(MEMBER_DIFFERS, |id| others.iter().any(|other| other.id == id));
            let again = if others.is_empty() { None } else { Some(Instant::now() + self.round(&others).await) };
            let again = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// What this member noted, for the leader; which says whether this member differs.
    pub(crate) fn answer(&self, differs: Option<&Differs>) -> Vec<Mark> {
        if let Some(Differs { vote, difference, by_majority }) = differs
            && *vote == self.raft.server_metrics().borrow_watched().vote
            && self.published().marks(|marks| marks.has(&difference.found))
        {
            let leader = self.node(vote.leader_id().node_id);
            self.withdraw(difference, *by_majority, leader);
        }
        self.published().marks(|marks| marks.sample())
    }

    /// Compares all members once. Returns when to do so again.
    async fn round(&self, others: &[Other]) -> Duration {
        let Some(vote) = leading_vote(&self.raft) else { return COMPARE_SOON };
        let asked = others.iter().map(|other| ask(&self.rpc, other.id, &other.member, None));
        let samples: BTreeMap<MemberId, Vec<Mark>> =
            others.iter().zip(join_all(asked).await).filter_map(|(other, marks)| Some((other.id, marks?))).collect();
        let compared: BTreeMap<MemberId, Compared> =
            self.published().marks(|marks| samples.iter().map(|(id, sample)| (*id, marks.compare(sample))).collect());
        let equal = |id: &MemberId| matches!(compared.get(id), Some(Some(Ok(()))));
        let voters = others.iter().filter(|other| other.votes).count() + 1;
        let equal_voters = others.iter().filter(|other| other.votes && equal(&other.id)).count() + 1;
        if let Some(difference) = self.own_difference(others, &samples, &compared, voters) {
            let other = others.iter().find(|other| other.votes && !equal(&other.id));
            self.withdraw(&difference, true, other.map(|other| other.member.node.clone()));
            return COMPARE_SOON;
        }
        let by_majority = equal_voters * 2 > voters;
        let mut pause = COMPARE_EVERY;
        for other in others {
            match compared.get(&other.id) {
                Some(Some(Ok(()))) => self.health.alarms().clear(MEMBER_DIFFERS, Some(other.id)),
                Some(Some(Err(difference))) => {
                    pause = COMPARE_SOON;
                    self.health.alarms().raise(of_member(other, difference));
                    let differs = Differs { vote, difference: *difference, by_majority };
                    ask(&self.rpc, other.id, &other.member, Some(differs)).await;
                }
                _ => pause = COMPARE_SOON,
            }
        }
        pause
    }

    /// How this member, which leads, differs from a majority of the voters, if it does.
    fn own_difference(
        &self,
        others: &[Other],
        samples: &BTreeMap<MemberId, Vec<Mark>>,
        compared: &BTreeMap<MemberId, Compared>,
        voters: usize,
    ) -> Option<Difference> {
        let differing = others.iter().filter(|other| other.votes).filter_map(|other| match compared.get(&other.id) {
            Some(Some(Err(difference))) => Some((samples.get(&other.id)?, difference)),
            _ => None,
        });
        let differing: Vec<_> = differing.collect();
        differing.iter().find_map(|(sample, difference)| {
            let same = |other: &&(&Vec<Mark>, &Difference)| compare(sample, other.0) == Some(Ok(()));
            let (expected, found) = (difference.found, difference.expected);
            (differing.iter().filter(same).count() * 2 > voters).then_some(Difference { expected, found })
        })
    }

    fn node(&self, id: MemberId) -> Option<String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&id).map(|member| member.node.clone())
    }

    /// Serves nobody any more. `told_by`: the node of a member that holds what the cluster holds.
    fn withdraw(&self, difference: &Difference, by_majority: bool, told_by: Option<String>) {
        if self.witness.note_difference() {
            return;
        }
        if let Some(vote) = leading_vote(&self.raft) {
            self.authority.void(&vote);
        }
        self.published().hub().close();
        let todo = if by_majority {
            "A majority of the members has another state: this member replaces itself, as `join` would. Nothing is to be \
             done, unless this alarm stays"
        } else {
            "No majority says which state is right: compare them, then run `Tank.Store.Cluster.join/2` on the node that \
             is to get the other's state. What a client was told, it was told by the leader"
        };
        let message = format!(
            "the state of this member differs from that of the others after log entry {}. It serves nobody. {todo}",
            difference.found.id.index()
        );
        let alarm = Alarm::new(STATE_DIFFERS, message).about(self.me).with("replace", u64::from(by_majority));
        let alarm = alarm.with("told_by", told_by.unwrap_or_default());
        self.health.alarms().raise(with_figures(alarm, difference));
    }

    fn published(&self) -> &Arc<Published> {
        self.authority.published()
    }
}

/// Returns once the member `id` has come to where this one, which leads, is now, and was compared with it: whether they
/// hold the same.
pub(crate) async fn holds_the_same(rpc: &Rpc, published: &Published, id: MemberId, member: &Member) -> bool {
    let reached = published.marks(|marks| marks.newest());
    loop {
        if let Some(sample) = ask(rpc, id, member, None).await
            && sample.first().map(|mark| mark.id.index()) >= reached
            && let Some(compared) = published.marks(|marks| marks.compare(&sample))
        {
            return compared.is_ok();
        }
        tokio::time::sleep(PROMOTION_RETRY).await;
    }
}

/// The marks of a member; `None` when it does not answer.
async fn ask(rpc: &Rpc, id: MemberId, member: &Member, differs: Option<Differs>) -> Option<Vec<Mark>> {
    match rpc.call(id, member, Lane::Bulk, &Call::Marks(differs), Wait::For(ANSWER_WITHIN)).await {
        Ok(Answer::Marks(marks)) => Some(marks),
        _ => None,
    }
}

fn of_member(other: &Other, difference: &Difference) -> Alarm {
    let message = format!(
        "the state of the member on {} differs from that of the others after log entry {}. It serves nobody until it has \
         been replaced: its own alarms say what to do",
        other.member.node,
        difference.found.id.index()
    );
    with_figures(
        Alarm::new(MEMBER_DIFFERS, message).about(other.id).with("node", other.member.node.clone()),
        difference,
    )
}

fn with_figures(alarm: Alarm, Difference { expected, found }: &Difference) -> Alarm {
    let alarm = alarm.with("log_index", found.id.index());
    let alarm = alarm.with("expected_revision", expected.revision).with("found_revision", found.revision);
    alarm.with("expected_digest", expected.digest).with("found_digest", found.digest)
}
