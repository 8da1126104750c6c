//! Follows the raft core: opens and shuts the read gate, and notices its end.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::alias::InstantOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use tokio::time::Instant;

use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::raft::{MemberId, Raft, Types, Vote};
use crate::read_gate::ReadGate;

/// What this member may rest its reads on, as the raft core sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leadership {
    None,
    /// Nobody else votes.
    Alone,
    /// A quorum acknowledged what was sent then.
    Lease(Option<Instant>),
}

/// Runs until the raft core ends. `lease` counts from when a heartbeat was sent.
///
/// `current` is the leadership under which all that was committed before is applied.
pub(super) async fn follow(
    raft: Raft,
    me: MemberId,
    mut current: Option<Vote>,
    lease: Duration,
    gate: Arc<ReadGate>,
    health: Arc<Health>,
) {
    let mut metrics = raft.metrics();
    let mut server = raft.server_metrics();
    loop {
        faults::point("raft_watch");
        let (vote, leadership) = {
            server.borrow_and_update();
            let metrics = metrics.borrow_and_update();
            (metrics.vote, leadership(&metrics, me))
        };
        if leadership == Leadership::None {
            current = None;
            gate.shut();
            gate.release();
        } else {
            if current != Some(vote) {
                // What the only voter was current with, it stays current with: nobody else could add to it.
                if leadership != Leadership::Alone {
                    gate.shut();
                }
                current = raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok().then_some(vote);
            }
            match leadership {
                _ if current.is_none() => gate.shut(),
                Leadership::Alone => gate.open_for_good(),
                Leadership::Lease(Some(acknowledged)) => gate.open_until(acknowledged + lease),
                Leadership::Lease(None) | Leadership::None => gate.shut(),
            }
        }
        // The only voter has no lease to follow, and need not wake with each write.
        let changed = match leadership {
            Leadership::Alone if current.is_some() => server.changed().await,
            _ => metrics.changed().await,
        };
        if changed.is_err() {
            break;
        }
    }
    gate.shut();
    let ended = raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(openraft::errors::Fatal::Stopped) => {}
        // The first reason given counts: a storage error was mostly reported where it happened.
        Err(fatal) => health.fail(EngineError::Failed(fatal.to_string())),
    }
}

/// How long ago openraft's instant was.
pub(super) fn age(instant: InstantOf<Types>) -> Duration {
    <InstantOf<Types> as openraft::Instant>::now() - instant
}

/// openraft's instant as one of tokio's; if anything, earlier.
fn to_tokio(instant: InstantOf<Types>) -> Option<Instant> {
    let now = Instant::now();
    now.checked_sub(age(instant))
}

fn leadership(metrics: &RaftMetrics<Types>, me: MemberId) -> Leadership {
    let membership = metrics.membership_config.membership();
    let mut voters = membership.voter_ids();
    if metrics.state != ServerState::Leader {
        return Leadership::None;
    }
    match (voters.next(), voters.next()) {
        (Some(id), None) if id == me => Leadership::Alone,
        _ => Leadership::Lease(metrics.last_quorum_acked.as_deref().and_then(|instant| to_tokio(*instant))),
    }
}
