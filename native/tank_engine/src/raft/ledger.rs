//! How far is each member known to have come?
//!
//! A member that has acknowledged log entries or votes never falls behind them again, unless its disk went back in
//! time: a virtual machine's snapshot, an old copy of its directory, a disk that lied about a sync. Other members
//! remember what it has acknowledged, so that this is noticed ([`super::roll_call`]):
//!
//! - A leader remembers what members acknowledge to it, itself included. It sends this to all members with its
//!   heartbeats.
//! - A candidate remembers who voted for it.
//!
//! The ledger is in memory, and is written to disk from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::vote::RaftLeaderId;
use tokio::sync::Notify;

use crate::runtime;
use crate::storage::members::MembersFile;
use crate::sync::lock;

use super::{MemberId, Progress, Raft};

/// How often what has changed is written to the disk.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Members that are gone of which it is remembered how far they came: they may come back, as old copies.
const GONE_MAX: usize = 32;

/// What one member knows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    members: Mutex<BTreeMap<MemberId, Progress>>,
    is_written: AtomicBool,
    changed: Notify,
}

impl Ledger {
    /// What `file` has.
    pub(crate) fn open(file: &MembersFile) -> Self {
        Self { members: Mutex::new(file.read()), is_written: AtomicBool::new(true), changed: Notify::new() }
    }

    /// A member has come as far as `progress`.
    pub(crate) fn note(&self, member: MemberId, progress: Progress) {
        let mut members = lock(&self.members);
        if members.get(&member).is_none_or(|known| known.is_behind(&progress)) {
            members.insert(member, progress);
            self.is_written.store(false, Ordering::Release);
            self.changed.notify_one();
        }
    }

    /// How far a member has come.
    pub(crate) fn of(&self, member: MemberId) -> Option<Progress> {
        lock(&self.members).get(&member).copied()
    }

    /// How far those that `are_members` have come.
    pub(crate) fn all(&self, are_members: impl Fn(MemberId) -> bool) -> Vec<(MemberId, Progress)> {
        let members = lock(&self.members);
        members.iter().filter(|(id, _)| are_members(**id)).map(|(id, progress)| (*id, *progress)).collect()
    }

    /// Forgets most of those that are members no more.
    pub(crate) fn forget(&self, are_members: &BTreeSet<MemberId>) {
        let mut members = lock(&self.members);
        while members.keys().filter(|id| !are_members.contains(id)).count() > GONE_MAX {
            let gone = members.iter().filter(|(id, _)| !are_members.contains(id));
            let oldest = gone.min_by_key(|(_, progress)| progress.vote.leader_id().term()).map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            members.remove(&oldest);
        }
    }

    /// Writes what has changed.
    pub(crate) fn write(&self, file: &MembersFile) {
        if !self.is_written.swap(true, Ordering::AcqRel) {
            let members = lock(&self.members).clone();
            // Without it, less is noticed after the next start.
            if let Err(error) = file.write(&members) {
                tracing::warn!(%error, "how far members have come could not be written");
            }
        }
    }
}

/// Writes to `file` what changes, until the raft core ends.
pub(crate) async fn keep(ledger: Arc<Ledger>, file: Arc<MembersFile>, raft: Raft) {
    let writes = async {
        loop {
            ledger.changed.notified().await;
            let (changed, file) = (Arc::clone(&ledger), Arc::clone(&file));
            let _ = runtime::offload(move || changed.write(&file)).await;
            tokio::time::sleep(WRITE_EVERY).await;
        }
    };
    let mut server = raft.server_metrics();
    let ended = async { while server.changed().await.is_ok() {} };
    tokio::select! {
        () = writes => {}
        () = ended => {}
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderIdExt;

    use super::super::{LogId, Vote};
    use super::*;

    fn log_id(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(openraft::impls::leader_id_adv::LeaderId::<u64, u64>::new_committed(term, 1), index))
    }

    fn progress(term: u64, last: Option<LogId>) -> Progress {
        Progress { vote: Vote::new_committed(term, 1), last }
    }

    #[test]
    fn a_shorter_log_counts_under_the_same_vote_only() {
        let known = progress(3, log_id(3, 10));
        assert!(progress(3, log_id(3, 9)).is_behind(&known));
        assert!(progress(3, None).is_behind(&known));
        assert!(progress(2, log_id(2, 20)).is_behind(&known), "the vote is older");
        assert!(!progress(3, log_id(3, 10)).is_behind(&known));
        assert!(!progress(4, log_id(2, 5)).is_behind(&known), "a later leader may have replaced entries");
        let granted = Progress { vote: Vote::new(3, 1), ..known };
        assert!(!granted.is_behind(&known) && !known.is_behind(&granted));
    }

    #[test]
    fn what_is_known_only_grows() {
        let ledger = Ledger::default();
        for noted in [progress(2, log_id(2, 7)), progress(2, log_id(1, 5)), progress(1, log_id(1, 9))] {
            ledger.note(7, noted);
            assert_eq!(ledger.of(7), Some(progress(2, log_id(2, 7))));
        }
        ledger.note(7, progress(3, None));
        assert_eq!(ledger.of(7), Some(progress(3, None)));
    }

    #[test]
    fn of_members_that_are_gone_the_last_ones_are_remembered() {
        let ledger = Ledger::default();
        for id in 1..=100 {
            ledger.note(id, progress(id, None));
        }
        ledger.forget(&BTreeSet::from([1, 2]));
        assert_eq!(ledger.all(|_| true).len(), GONE_MAX + 2);
        assert!(ledger.of(1).is_some() && ledger.of(3).is_none() && ledger.of(100).is_some());
    }
}
