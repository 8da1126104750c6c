//! The read index for readers that bring their question to the leader without the engine.
//!
//! [`Engine::await_readable`] does all of it, but each question passes through the tasks of both
//! members. A process of the BEAM can ask quicker, since other nodes reach it directly. What the two
//! ways promise is the same.

use std::time::Duration;

use crate::types::MemberId;

use super::Engine;
use super::calls::Reply;

/// A member that leads.
#[derive(Debug)]
pub struct Leader {
    /// The node that it runs on.
    pub node: String,
    /// The cluster it leads.
    pub cluster_id: u64,
    /// Its id there.
    pub member_id: MemberId,
}

impl Engine {
    /// The leader, if that is another member, and this one knows it.
    pub fn leader_elsewhere(&self) -> Option<Leader> {
        self.check_serves().ok()?;
        let (member_id, member) = self.0.leader.elsewhere()?;
        Some(Leader { node: member.node, cluster_id: self.0.identity.cluster_id, member_id })
    }

    /// The log index from which on a member's view holds every write that was acknowledged before this
    /// call, if this is the member that is asked, and it surely leads.
    pub fn read_index(&self, cluster_id: u64, member_id: MemberId) -> Option<u64> {
        self.check().ok()?;
        let identity = &self.0.identity;
        let meant = identity.cluster_id == cluster_id && identity.member_id == member_id;
        if meant { self.0.authority.leased_index() } else { None }
    }

    /// Whether this member's view has the log up to `index`.
    pub fn has_applied(&self, index: u64) -> bool {
        self.0.leader.has_applied(index)
    }

    /// Calls `reply` once it has, or when `timeout` has passed.
    pub fn await_applied(&self, index: u64, timeout: Duration, reply: Reply<()>) {
        if let Err(error) = self.check_takes_part() {
            return self.refuse(reply, error);
        }
        let engine = self.clone();
        self.0.runtime.spawn("reader-behind", &self.0.health, async move {
            let applied = engine.0.leader.await_applied(index, tokio::time::Instant::now() + timeout).await;
            reply.send(engine.check_takes_part().and(applied));
        });
    }
}
