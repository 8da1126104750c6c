//! Does this member still have what it had?
//!
//! A member whose disk went back in time has acknowledged log entries that it no longer has, and granted votes that it
//! does not know of. As a voter it could undo both. So one that was just started asks all others how far it had come, as
//! they know it ([`super::ledger`]), and answers no leader and no candidate before:
//!
//! ```text
//!           all have answered, or a majority has and the vote hold is over  
//!   asks ────────────────────────────────────────────────────────────────────> counts
//!     │                                                                          │
//!     │ somebody knows that it had more                                          │ the same; leaders and candidates
//!     └────────────────────────────────> refuses <───────────────────────────────┘ say what they know each time
//! ```
//!
//! A member that has lost its log ends its raft core: it votes for nobody, acknowledges nothing, and takes no writes. It
//! raises the alarm [`LOG_LOST`], upon which it is replaced by a new member. So does each member that it refuses to answer.
//!
//! The other way round, a follower may hold entries that were committed and that its leader does not have, when a majority
//! went back in time. It takes nothing from that leader, so that they are not lost, and both raise [`HISTORY_LOST`].
//!
//! Frames may be minutes late. What is said here stays true: how far a member had come, and that it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::health::Health;
use crate::mutants;
use crate::peers::refusal::{HISTORY_LOST, LOG_LOST, Refusal};
use crate::peers::{Answer, Call, Known, Lane, Question, Rpc, Wait};
use crate::runtime;
use crate::sync::lock;

use super::authority::Authority;
use super::ledger::Ledger;
use super::{LogId, Member, MemberId, Progress, Raft, Vote};

/// How long an answer is waited for, and the pauses between two questions: frames may get lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asks,
    Counts,
    Refuses(Refusal),
}

/// The roll call of one member.
pub(crate) struct RollCall {
    raft: Raft,
    rpc: Arc<Rpc>,
    authority: Arc<Authority>,
    ledger: Arc<Ledger>,
    health: Arc<Health>,
    me: MemberId,
    /// It was made when the store was opened: nobody can know of it.
    is_new: bool,
    /// Nobody votes before this, so that it costs nothing to wait for all.
    wait_until: Instant,
    stage: watch::Sender<Stage>,
    /// Leaders and candidates that have called, and may not be members as far as this member knows.
    callers: Mutex<BTreeMap<MemberId, Member>>,
    woken: Notify,
}

/// Who has answered.
#[derive(Default)]
struct Heard {
    members: BTreeSet<MemberId>,
    leader: bool,
}

type Asking = Pin<Box<dyn Future<Output = (MemberId, Member, Option<Known>)> + Send>>;

impl RollCall {
    /// Of a member that is started now. `votes_after`: for so long it votes for nobody anyway.
    pub(crate) fn new(
        (raft, authority): (Raft, Arc<Authority>),
        (rpc, ledger): (Arc<Rpc>, Arc<Ledger>),
        health: Arc<Health>,
        (me, is_new): (MemberId, bool),
        votes_after: Duration,
    ) -> Arc<Self> {
        let votes_after = if mutants::is("vote_right_after_a_start") { Duration::ZERO } else { votes_after };
        let roll_call = Self {
            raft,
            rpc,
            authority,
            ledger,
            health,
            me,
            is_new,
            wait_until: Instant::now() + votes_after,
            stage: watch::Sender::new(Stage::Asks),
            callers: Mutex::default(),
            woken: Notify::new(),
        };
        roll_call.settle_if_enough(&Heard::default());
        Arc::new(roll_call)
    }

    /// Whether this member's votes and acknowledgements count.
    pub(crate) fn counts(&self) -> bool {
        *self.stage.borrow() == Stage::Counts
    }

    /// Why it takes part in nothing, if it does not.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match *self.stage.borrow() {
            Stage::Refuses(refusal) => Some(refusal),
            Stage::Asks | Stage::Counts => None,
        }
    }

    /// Returns when it is known whether they count.
    pub(crate) async fn settled(&self) {
        // This keeps the sender.
        let _ = self.stage.subscribe().wait_for(|stage| *stage != Stage::Asks).await;
    }

    /// How far the members are known to have come.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The leader or candidate `id` on `node` has called, and can be asked.
    pub(crate) fn note_caller(&self, id: MemberId, node: &str) {
        if *self.stage.borrow() != Stage::Asks {
            return;
        }
        let member = Member { node: node.to_owned(), witness: false };
        if lock(&self.callers).insert(id, member).is_none() {
            self.woken.notify_one();
        }
    }

    /// Another member, on `node`, knows that this one had come as far as `known`.
    pub(crate) async fn hear(&self, known: &Progress, node: &str) {
        if self.refusal().is_some() || !self.progress().is_behind(known) {
            return;
        }
        // What is published may be a moment old.
        let Ok(progress) = self.raft.with_raft_state(progress_of).await else { return };
        if progress.is_behind(known) {
            self.refuse(Refusal::LogLost { has: progress, had: *known }, node);
        }
    }

    /// Answers a member that was just started.
    pub(crate) async fn answer(&self, from: MemberId, question: &Question, leads: bool) -> Known {
        let known = self.ledger.of(from);
        let conflict = match question.committed {
            Some(committed) => self.conflict(committed).await,
            None => None,
        };
        if let (Some(instead), Some(committed)) = (conflict, question.committed) {
            let refusal = Refusal::HistoryLost { committed, instead };
            self.health.alarms().raise(refusal.alarm(false).about(from));
        }
        Known { progress: known, leads, conflict }
    }

    /// Refuses a leader with `vote` on `node` that sends entries which cannot follow on what this member knows to be
    /// committed.
    pub(crate) async fn check(
        &self,
        (vote, node): (Vote, &str),
        previous: Option<LogId>,
        entries: impl Iterator<Item = LogId>,
    ) {
        let Some(committed) = self.raft.data_metrics().borrow_watched().local_committed else { return };
        // Usually they follow on all that is committed: then the first one decides for all.
        let follow = previous.is_some_and(|previous| previous.index() >= committed.index());
        let entries: Vec<LogId> = previous.into_iter().chain(entries.take_while(|_| !follow)).collect();
        if contradiction(committed, &entries).is_none() {
            return;
        }
        // A leader of before is refused for its vote.
        let checked = self.raft.with_raft_state(move |state| {
            let committed = *state.local_committed()?;
            let is_leader = *state.vote_ref() <= vote;
            if is_leader { contradiction(committed, &entries).map(|theirs| (committed, theirs)) } else { None }
        });
        if let Ok(Some((committed, instead))) = checked.await {
            self.refuse(Refusal::HistoryLost { committed, instead }, node);
        }
    }

    /// Asks all others, until each has answered once. Ends with the raft core.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut asking = FuturesUnordered::<Asking>::new();
        let (mut asked, mut heard) = (BTreeSet::new(), Heard::default());
        let mut server = self.raft.server_metrics();
        while self.refusal().is_none() {
            for (id, member) in self.to_ask() {
                if asked.insert(id) {
                    asking.push(Box::pin(Arc::clone(&self).ask(id, member)));
                }
            }
            self.settle_if_enough(&heard);
            if self.counts() && asking.is_empty() {
                return;
            }
            let waits = !self.counts() && Instant::now() < self.wait_until;
            tokio::select! {
                Some((id, member, known)) = asking.next() => if let Some(known) = known {
                    heard.members.insert(id);
                    heard.leader |= known.leads;
                    self.take(&known, &member.node).await;
                },
                () = self.woken.notified() => {}
                () = sleep_until(self.wait_until), if waits => {}
                changed = server.changed(), if !self.counts() => if changed.is_err() { return },
            }
        }
    }

    async fn take(&self, known: &Known, node: &str) {
        if let Some(progress) = &known.progress {
            self.hear(progress, node).await;
        }
        let Some(instead) = known.conflict else { return };
        let ours = self.raft.with_raft_state(move |state| state.log_ids.get(instead.index())).await;
        if let Ok(Some(committed)) = ours {
            self.refuse(Refusal::HistoryLost { committed, instead }, node);
        }
    }

    /// All that may know of this member.
    fn to_ask(&self) -> BTreeMap<MemberId, Member> {
        let mut all = if self.counts() { BTreeMap::new() } else { lock(&self.callers).clone() };
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        all.extend(metrics.membership_config.nodes().map(|(id, member)| (*id, member.clone())));
        all.remove(&self.me);
        all
    }

    /// Asks one member until it answers, or is none any more.
    async fn ask(self: Arc<Self>, id: MemberId, member: Member) -> (MemberId, Member, Option<Known>) {
        let mut pause = PAUSE_MIN;
        while self.refusal().is_none() && self.to_ask().contains_key(&id) {
            let Ok(question) = self.raft.with_raft_state(question_of).await else { break };
            let call = Call::Recall(question);
            let answer = self.rpc.call(id, &member, Lane::Control, &call, Wait::For(ANSWER_WITHIN)).await;
            if let Ok(Answer::Recall(known)) = answer {
                return (id, member, Some(known));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        (id, member, None)
    }

    /// Counts from now on, if enough have answered.
    fn settle_if_enough(&self, heard: &Heard) {
        if *self.stage.borrow() != Stage::Asks {
            return;
        }
        let voters: BTreeSet<MemberId> =
            self.raft.server_metrics().borrow_watched().membership_config.voter_ids().collect();
        if self.is_enough(&voters, heard) {
            self.stage.send_if_modified(|stage| {
                let asks = *stage == Stage::Asks;
                if asks {
                    *stage = Stage::Counts;
                }
                asks
            });
        }
    }

    fn is_enough(&self, voters: &BTreeSet<MemberId>, heard: &Heard) -> bool {
        if voters.is_empty() {
            // It is no member yet, or has forgotten that it is: then the leader knows.
            return self.is_new || heard.leader;
        }
        let all = voters.iter().all(|id| *id == self.me || heard.members.contains(id));
        // Those that have called count too: voters may have been replaced while this member was away.
        let count = usize::from(voters.contains(&self.me)) + heard.members.len();
        all || (Instant::now() >= self.wait_until && (count * 2 > voters.len() || heard.leader))
    }

    /// How far this member has come, as was published last.
    fn progress(&self) -> Progress {
        let vote = self.raft.server_metrics().borrow_watched().vote;
        Progress { vote, last: self.raft.data_metrics().borrow_watched().last_log }
    }

    /// What is committed here in the place of `committed`, if it is another entry and the log still has it.
    async fn conflict(&self, committed: LogId) -> Option<LogId> {
        let ours = self.raft.with_raft_state(move |state| {
            let is_committed = state.local_committed().is_some_and(|id| id.index() >= committed.index());
            if is_committed { state.log_ids.get(committed.index()) } else { None }
        });
        ours.await.ok().flatten().filter(|ours| *ours != committed)
    }

    /// Takes part in nothing any more, by what the member on `node` knows.
    fn refuse(&self, refusal: Refusal, node: &str) {
        self.authority.close();
        self.stage.send_replace(Stage::Refuses(refusal));
        self.health.alarms().raise(refusal.alarm(true).about(self.me).with("told_by", node.to_owned()));
        self.woken.notify_one();
        let raft = self.raft.clone();
        runtime::spawn_here("refusing", Arc::clone(&self.health), async move {
            let _ = raft.shutdown().await;
        });
    }

    /// Clears alarms about members that are gone, for as long as the raft core runs.
    pub(crate) async fn follow_members(self: Arc<Self>) {
        let mut server = self.raft.server_metrics();
        let mut before = None;
        loop {
            let members: BTreeSet<MemberId> =
                server.borrow_and_update().membership_config.nodes().map(|(id, _)| *id).collect();
            if before.as_ref() != Some(&members) {
                for name in [LOG_LOST, HISTORY_LOST] {
                    self.health.alarms().retain(name, |id| id == self.me || members.contains(&id));
                }
                self.ledger.forget(&members);
                before = Some(members);
            }
            if server.changed().await.is_err() {
                return;
            }
        }
    }
}

fn progress_of(state: &openraft::RaftState<super::Types>) -> Progress {
    Progress { vote: *state.vote_ref(), last: state.log_ids.last().copied() }
}

fn question_of(state: &openraft::RaftState<super::Types>) -> Question {
    Question { committed: state.local_committed().copied() }
}

/// The first of `entries`, which come from one log, that no log has which has `committed`.
fn contradiction(committed: LogId, entries: &[LogId]) -> Option<LogId> {
    let leader = |id: &LogId| *id.committed_leader_id();
    entries.iter().copied().find(|id| match id.index().cmp(&committed.index()) {
        std::cmp::Ordering::Less => leader(id) > leader(&committed),
        std::cmp::Ordering::Equal => *id != committed,
        std::cmp::Ordering::Greater => leader(id) < leader(&committed),
    })
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderIdExt;

    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(openraft::impls::leader_id_adv::LeaderId::<u64, u64>::new_committed(term, 1), index)
    }

    #[test]
    fn a_log_contradicts_a_committed_entry_when_no_log_can_have_both() {
        let committed = log_id(5, 100);
        let found = |ids: &[(u64, u64)]| {
            let entries: Vec<_> = ids.iter().map(|(term, index)| log_id(*term, *index)).collect();
            contradiction(committed, &entries)
        };
        assert_eq!(found(&[(3, 90), (5, 99), (5, 100), (5, 101), (6, 102)]), None);
        assert_eq!(found(&[(4, 98), (6, 99)]), Some(log_id(6, 99)), "another leader wrote there");
        assert_eq!(found(&[(4, 99), (4, 100)]), Some(log_id(4, 100)), "another entry is there");
        assert_eq!(found(&[(4, 101)]), Some(log_id(4, 101)), "an older leader's entry follows");
        assert_eq!(found(&[]), None);
    }
}
