//! A log that goes on with one member, whatever was before: recovery when a quorum is lost for good, and restoring a backup.
//!
//! In recovery, everything in the member's log counts, also what no majority is known to have: it may have been
//! acknowledged. What only the lost members had is lost. They must never come back as they were;
//! the new cluster has an id of its own, so that they could not talk to it.
//!
//! A backup comes without a log. The log of a restored store begins as purged at the log id that the restored state has:
//! so members that join, which have nothing, are sent a snapshot, and never a log that does not contain the state.

use std::collections::{BTreeMap, BTreeSet};

use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use openraft::{Membership, RaftTypeConfig};

use crate::error::EngineError;
use crate::raft::{LogEntry, LogId, Member, MemberId, StoredMembership, Types, Vote};

use super::disk::{LogDisk, LogWrite};

type LeaderId = <Types as RaftTypeConfig>::LeaderId;

/// The log id of a restored state: that of a first entry, in a term of its own.
pub fn restored_id(me: MemberId) -> LogId {
    LogId::new(LeaderId::new(1, me).to_committed(), 0)
}

/// The members as of a restored state.
///
/// # Errors
/// None: one member is a membership.
pub fn restored_membership(me: MemberId, node: &str) -> Result<StoredMembership, EngineError> {
    Ok(StoredMembership::new(Some(restored_id(me)), membership(me, node)?))
}

/// Begins the log, which is empty, of a member whose state was restored with [`restored_id`].
///
/// # Errors
/// The disk's.
pub fn begin_log(disk: &impl LogDisk, me: MemberId, node: &str) -> Result<(), EngineError> {
    disk.recover()?;
    write(disk, &[LogWrite::Purge(restored_id(me))])?;
    end_log(disk, me, node)
}

/// Ends the log of a closed member with a membership of itself alone, as if it had led a later
/// term. May be done again, should it have been interrupted.
///
/// # Errors
/// The disk's, or what it finds wrong with the log.
pub fn end_log(disk: &impl LogDisk, me: MemberId, node: &str) -> Result<(), EngineError> {
    let recovered = disk.recover()?;
    let voted = recovered.vote.map_or(0, |vote| vote.leader_id().term());
    let logged = recovered.last.map_or(0, |last| last.committed_leader_id().term());
    let term = voted.max(logged) + 1;
    let index = recovered.last.map_or(0, |last| last.index() + 1);
    let id = LogId::new(LeaderId::new(term, me).to_committed(), index);
    let entry = LogEntry::new_membership(id, membership(me, node)?);
    write(disk, &[LogWrite::Vote(Vote::new(term, me)), LogWrite::Append(vec![entry])])
}

fn membership(me: MemberId, node: &str) -> Result<Membership<MemberId, Member>, EngineError> {
    let nodes = BTreeMap::from([(me, Member { node: node.to_owned(), witness: false })]);
    let alone = Membership::new(vec![BTreeSet::from([me])], nodes);
    alone.map_err(|error| EngineError::Failed(error.to_string()))
}

fn write(disk: &impl LogDisk, writes: &[LogWrite]) -> Result<(), EngineError> {
    disk.write(writes).map_err(|error| EngineError::Storage(error.to_string()))
}
