//! A log that goes on with one member, whatever was before: recovery when a quorum is lost for good, and restoring a backup.
//! Either leads away from what clients have seen, and so begins another history ([`crate::state::History`]): before
//! anybody can read or write.
//!
//! In recovery, everything in the member's log counts, also what no majority is known to have: it may have been
//! acknowledged. What only the lost members had is lost. They must never come back as they were;
//! the new cluster has an id of its own, so that they could not talk to it.
//!
//! A backup comes without a log. The log of a restored store begins as purged at the log id that the restored state has:
//! so members that join, which have nothing, are sent a snapshot, and never a log that does not contain the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use openraft::{Membership, RaftTypeConfig};

use crate::command::{Command, Request, RequestId};
use crate::error::EngineError;
use crate::types::random_id;
use crate::types::{LogEntry, LogId, Member, MemberId, StoredMembership, Types, Vote};

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

/// Ends the log of a closed member with a membership of itself alone, and with the beginning of a history, as if it had
/// led a later term. May be done again, should it have been interrupted.
///
/// # Errors
/// The disk's, or what it finds wrong with the log.
pub fn end_log(disk: &impl LogDisk, me: MemberId, node: &str) -> Result<(), EngineError> {
    let recovered = disk.recover()?;
    let voted = recovered.vote.map_or(0, |vote| vote.leader_id().term());
    let logged = recovered.last.map_or(0, |last| last.committed_leader_id().term());
    let term = voted.max(logged) + 1;
    let index = recovered.last.map_or(0, |last| last.index() + 1);
    let at = |index| LogId::new(LeaderId::new(term, me).to_committed(), index);
    let history = new_history(random_id()?, random_id()?);
    let entries =
        vec![LogEntry::new_membership(at(index), membership(me, node)?), LogEntry::new_normal(at(index + 1), history)];
    write(disk, &[LogWrite::Vote(Vote::new(term, me)), LogWrite::Append(entries)])
}

/// The only request of a client of its own.
fn new_history(id: u64, client: u64) -> Arc<Request> {
    let command = Command::NewHistory { id };
    // Made after whatever the log has: it is no late one of a client that was forgotten.
    Arc::new(Request {
        id: RequestId { client, sequence: 0, resolved_below: 0 },
        time_ms: 0,
        command,
        seen_ms: u64::MAX,
    })
}

fn membership(me: MemberId, node: &str) -> Result<Membership<MemberId, Member>, EngineError> {
    let nodes = BTreeMap::from([(me, Member { node: node.to_owned(), witness: false })]);
    let alone = Membership::new(vec![BTreeSet::from([me])], nodes);
    alone.map_err(|error| EngineError::Failed(error.to_string()))
}

fn write(disk: &impl LogDisk, writes: &[LogWrite]) -> Result<(), EngineError> {
    disk.write(writes).map_err(|error| EngineError::Storage(error.to_string()))
}
