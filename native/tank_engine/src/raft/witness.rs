//! A witness: a member that votes and keeps the log, and serves neither reads nor writes.
//!
//! With a witness, a cluster of three survives the loss of any one member. Suppose the leader is lost and the other
//! member lags. Then only the witness has the newest log, and the other member cannot be elected. The witness leads
//! until the other member has caught up, and hands over. It leads in no other case. It also keeps the state, because
//! the other member may need log entries that are already purged, and then needs a snapshot.
//!
//! ```text
//! follows --no leader for long, and it has the newest log--> leads --another member has all of it--> follows
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;

use crate::raft::{LogId, MemberId, Raft, StoredMembership, Types};

/// A voter that lacks no more than this has it by the time that it is asked to lead.
const LAG_MAX: u64 = 1_000;

/// Whether this member is one. The cluster decides that when it takes a member in.
#[derive(Debug)]
pub(crate) struct Witness {
    is_one: AtomicBool,
    /// Its state is not that of the other members ([`super::comparison`]): it goes on as a witness does.
    differs: AtomicBool,
    me: MemberId,
}

impl Witness {
    /// `joins_as_one` counts until the cluster has taken this member in.
    pub(crate) fn new(raft: &Raft, me: MemberId, joins_as_one: bool) -> Self {
        let witness = Self { is_one: AtomicBool::new(joins_as_one), differs: AtomicBool::new(false), me };
        witness.learn(&raft.server_metrics().borrow_watched().membership_config);
        witness
    }

    /// Whether it serves nobody, and leads only when nobody else can.
    pub(crate) fn is_one(&self) -> bool {
        self.is_one.load(Ordering::Relaxed) || self.differs()
    }

    /// Whether the state of this member was found to differ from that of the others.
    pub(crate) fn differs(&self) -> bool {
        self.differs.load(Ordering::Relaxed)
    }

    /// Notes that it does, for as long as this engine runs. Returns whether that was noted before.
    pub(super) fn note_difference(&self) -> bool {
        self.differs.swap(true, Ordering::Relaxed)
    }

    /// Takes in what the cluster says, once it has taken this member in.
    pub(super) fn learn(&self, membership: &StoredMembership) {
        if let Some(member) = membership.membership().get_node(&self.me) {
            self.is_one.store(member.witness, Ordering::Relaxed);
        }
    }
}

/// Who a leader hands over to that is not to lead: the voter that has most of the log, if that is enough.
pub(super) fn successor(metrics: &RaftMetrics<Types>) -> Option<MemberId> {
    let (id, matched) = most_advanced(metrics)?;
    (matched.index() + LAG_MAX >= metrics.last_log_index.unwrap_or(0)).then_some(id)
}

/// The voter that has most of the log and serves, with the last log entry that it is known to have. Only a leader knows.
pub(super) fn most_advanced(metrics: &RaftMetrics<Types>) -> Option<(MemberId, LogId)> {
    let (ServerState::Leader, Some(replication)) = (metrics.state, metrics.replication.as_ref()) else {
        return None;
    };
    let membership = metrics.membership_config.membership();
    let serves = |id: &MemberId| *id != metrics.id && membership.get_node(id).is_some_and(|member| !member.witness);
    let matched = |id: &MemberId| replication.get(id).and_then(Option::as_ref).copied();
    let (matched, best) = membership.voter_ids().filter(serves).filter_map(|id| Some((matched(&id)?, id))).max()?;
    Some((best, matched))
}
