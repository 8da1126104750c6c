//! A witness: a member that votes and keeps the log, and serves neither reads nor writes.
//!
//! It lets two other members lose any one of the three. So it must have whatever it voted for, also
//! when the leader is gone and the other member lags: then only the witness has the newest log, and
//! the other one cannot be elected. Then, and only then, it leads for a moment: it brings the other
//! one up to date and hands over. For that it keeps the state too, which may be all that is left of
//! a log that was purged.
//!
//! ```text
//! follows --nobody leads for long, and it has the newest log--> leads --another has all of it--> follows
//! ```

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use tokio::time::Instant;

use crate::options::Timing;
use crate::peers::Server;
use crate::raft::{MemberId, Raft, Types};

/// Others stand for election after two to three times the unit of raft's waiting. One that could
/// win has done so, a few split votes included, when so many have passed.
const STAND_IN_AFTER: u32 = 12;

/// A voter that lacks no more than this has it by the time that it is asked to lead.
const LAG_MAX: u64 = 1_000;

/// Whether this member is one. The cluster decides that when it takes a member in.
#[derive(Debug)]
pub(super) struct Witness {
    is_one: AtomicBool,
    me: MemberId,
}

impl Witness {
    /// `joins_as_one` counts until the cluster has taken this member in.
    pub(super) fn new(raft: &Raft, me: MemberId, joins_as_one: bool) -> Self {
        let known = known(raft, me).unwrap_or(joins_as_one);
        Self { is_one: AtomicBool::new(known), me }
    }

    pub(super) fn is_one(&self) -> bool {
        self.is_one.load(Ordering::Relaxed)
    }
}

/// Keeps a witness from standing for election, stands in for the others, and hands over. Runs
/// until the raft core ends.
pub(super) fn follow(
    raft: Raft,
    witness: Arc<Witness>,
    peers: &Arc<Server>,
    timing: Timing,
) -> impl Future<Output = ()> + Send + 'static {
    let peers = Arc::downgrade(peers);
    async move {
        let tick = Duration::from_millis(timing.heartbeat_ms.max(10)) * 2;
        let started = Instant::now();
        let mut stood = None;
        let mut server = raft.server_metrics();
        loop {
            server.borrow_and_update();
            let is_one = known(&raft, witness.me).unwrap_or_else(|| witness.is_one());
            witness.is_one.store(is_one, Ordering::Relaxed);
            raft.runtime_config().elect(!is_one);
            if !is_one {
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(peers) = peers.upgrade() else { return };
            let heard = peers.heard_from_leader().unwrap_or(started);
            drop(peers);
            let silent = heard.elapsed() > timing.leader_lease() * STAND_IN_AFTER;
            // Standing changes the term, which ends the wait below: without a pause, the next
            // election would begin before the votes of this one are there, and so on.
            let waited = stood.is_none_or(|at: Instant| at.elapsed() > timing.vote_embargo());
            let next = next(&raft.metrics().borrow_watched());
            let ended = match next {
                Next::HandOver(to) => raft.trigger().transfer_leader(to).await.is_err(),
                Next::Follow if silent && waited => {
                    stood = Some(Instant::now());
                    // A pre-vote comes first: whoever hears a leader refuses.
                    raft.trigger().elect(true).await.is_err()
                }
                Next::Follow | Next::Lead => false,
            };
            if ended || matches!(tokio::time::timeout(tick, server.changed()).await, Ok(Err(_))) {
                return;
            }
        }
    }
}

enum Next {
    Follow,
    Lead,
    HandOver(MemberId),
}

/// What a witness does now. One that leads hands over to the voter that has most of the log, if that
/// is enough.
fn next(metrics: &RaftMetrics<Types>) -> Next {
    let (ServerState::Leader, Some(replication)) = (metrics.state, metrics.replication.as_ref()) else {
        return Next::Follow;
    };
    let membership = metrics.membership_config.membership();
    let serves = |id: &MemberId| membership.get_node(id).is_some_and(|member| !member.witness);
    let matched = |id: &MemberId| replication.get(id).and_then(Option::as_ref).map(|log_id| log_id.index());
    let best = membership.voter_ids().filter(serves).filter_map(|id| Some((matched(&id)?, id))).max();
    match best {
        Some((matched, id)) if matched + LAG_MAX >= metrics.last_log_index.unwrap_or(0) => Next::HandOver(id),
        _ => Next::Lead,
    }
}

/// What the cluster says; `None` while it has not taken this member in.
fn known(raft: &Raft, me: MemberId) -> Option<bool> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().get_node(&me).map(|member| member.witness)
}
