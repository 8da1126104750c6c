//! Recovery when a quorum is lost for good: what a member holds becomes a cluster of its own.
//!
//! Everything in its log counts, also what no majority is known to have: it may have been
//! acknowledged. What only the lost members had is lost. They must never come back as they were;
//! the new cluster has an id of its own, so that they could not talk to it.

use std::collections::{BTreeMap, BTreeSet};

use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use openraft::{Membership, RaftTypeConfig};

use crate::error::EngineError;
use crate::log::disk::{LogDisk, LogWrite};
use crate::raft::{LogEntry, LogId, Member, MemberId, Types, Vote};

type LeaderId = <Types as RaftTypeConfig>::LeaderId;

/// Ends the log of a closed member with a membership of itself alone, as if it had led a later
/// term. May be done again, should it have been interrupted.
pub(super) fn end_log(disk: &impl LogDisk, me: MemberId, node: &str) -> Result<(), EngineError> {
    let recovered = disk.recover()?;
    let voted = recovered.vote.map_or(0, |vote| vote.leader_id().term());
    let logged = recovered.last.map_or(0, |last| last.committed_leader_id().term());
    let term = voted.max(logged) + 1;
    let index = recovered.last.map_or(0, |last| last.index() + 1);
    let nodes = BTreeMap::from([(me, Member { node: node.to_owned(), witness: false })]);
    let alone = Membership::new(vec![BTreeSet::from([me])], nodes);
    let alone = alone.map_err(|error| EngineError::Failed(error.to_string()))?;
    let entry = LogEntry::new_membership(LogId::new(LeaderId::new(term, me).to_committed(), index), alone);
    let writes = [LogWrite::Vote(Vote::new(term, me)), LogWrite::Append(vec![entry])];
    disk.write(&writes).map_err(|error| EngineError::Storage(error.to_string()))
}
