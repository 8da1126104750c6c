//! Why does a member take part in nothing any more?
//!
//! What [`crate::raft::roll_call`] finds, as it is told to other members, to callers and to operators.

use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::alarms::Alarm;
use crate::error::EngineError;

use crate::types::{LogId, Progress};

/// The alarm of a member whose disk went back in time.
pub(crate) const LOG_LOST: &str = "log_lost";
/// The alarm of a leader that lacks what was committed.
pub(crate) const HISTORY_LOST: &str = "history_lost";

/// Why a member takes part in nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Its disk went back in time: what it has, and what it had.
    LogLost { has: Progress, had: Progress },
    /// What was committed here, and what its leader or another member has instead.
    HistoryLost { committed: LogId, instead: LogId },
}

impl Refusal {
    /// What is told of it: by the member that refuses, or by others.
    pub(crate) fn alarm(&self, mine: bool) -> Alarm {
        let whose = if mine { "this member" } else { "a member" };
        match self {
            Self::LogLost { has, had } => {
                let index = |progress: &Progress| progress.last.map_or(0, |id| id.index());
                let message = format!(
                    "the disk of {whose} went back in time: it lacks log entries that it acknowledged, or votes that it \
                     granted. It votes and acknowledges nothing any more, until it is replaced by a new member"
                );
                Alarm::new(LOG_LOST, message)
                    .with("has_index", index(has))
                    .with("had_index", index(had))
                    .with("has_term", has.vote.leader_id().term())
                    .with("had_term", had.vote.leader_id().term())
            }
            Self::HistoryLost { committed, instead } => {
                let message = format!(
                    "{whose} holds committed log entries that the cluster does not have any more: a majority of the \
                     members went back in time. It takes part in nothing, so that they stay. Decide which history is to \
                     stay: see the guide on operations"
                );
                Alarm::new(HISTORY_LOST, message)
                    .with("committed", committed.to_string())
                    .with("instead", instead.to_string())
            }
        }
    }

    /// As the error of calls to the member that refuses.
    pub(crate) fn error(&self) -> EngineError {
        match self {
            Self::LogLost { .. } => EngineError::LogLost,
            Self::HistoryLost { .. } => EngineError::HistoryLost,
        }
    }
}
