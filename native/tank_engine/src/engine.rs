//! One open store: the parts tied together, from open to close.
//!
//! ```text
//! write --> ingress (bounded) --> raft core --> log --> apply --> view, then the answer
//! read  --> view, while this member has authority; otherwise after a round through the raft core
//! watch --> the newest revisions in memory, or the history on the disk
//! ```

mod backup;
mod callers;
mod calls;
mod changes;
mod cluster_watch;
mod compaction;
mod disk_usage;
mod forward;
mod idle;
mod ingress;
mod leader;
mod leases;
mod lifecycle;
pub(crate) mod members;
mod past;
mod promotion;
mod read_index;
mod readers;

pub use calls::{Reply, Status};
pub use changes::{Changed, From, Place, Position, Since};
pub use cluster_watch::ClusterWatch;
pub use members::{ClusterStatus, MemberStatus};
pub use read_index::Leader;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::Guard;

use crate::alarms::Alarms;
use crate::error::EngineError;
use crate::health::Health;
use crate::last_changed::LastChanged;
use crate::log::WriterStats;
use crate::machine::Replay;
use crate::options::Options;
use crate::probe::Probe;
use crate::raft::Raft;
use crate::raft::authority::Authority;
use crate::raft::election::Elections;
use crate::raft::roll_call::RollCall;
use crate::raft::server::Server;
use crate::raft::witness::Witness;
use crate::runtime::Runtime;
use crate::state::History;
use crate::storage::Expected;
use crate::storage::format::Identity;
use crate::storage::members::MembersFile;
use crate::sync::lock;
use crate::view::{Published, View};

use disk_usage::DiskUsage;
use ingress::Ingress;
use leader::LeaderClient;
use lifecycle::Parts;
use readers::Readers;

/// An open store. Clones are handles on the same one; [`Engine::close`] ends it for all.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    options: Options,
    identity: Identity,
    expected: Expected,
    raft: Raft,
    published: Arc<Published>,
    replay: Replay,
    authority: Arc<Authority>,
    health: Arc<Health>,
    log_stats: Arc<WriterStats>,
    disk_usage: DiskUsage,
    ingress: Ingress,
    readers: Readers,
    leader: LeaderClient,
    peers: Arc<Server>,
    elections: Arc<Elections>,
    roll_call: Arc<RollCall>,
    members: Arc<MembersFile>,
    witness: Arc<Witness>,
    closed: AtomicBool,
    /// It is closed, and serves its last view.
    retired: AtomicBool,
    /// What closing takes apart; gone afterwards.
    parts: Mutex<Option<Parts>>,
}

impl Engine {
    /// The current view. It may lag behind what other members have acknowledged, never behind
    /// what was acknowledged here.
    ///
    /// # Errors
    /// The store is closed or has failed, other than at its disk, or is a witness.
    pub fn view(&self) -> Result<Guard<Arc<View>>, EngineError> {
        self.check_reads()?;
        Ok(self.0.published.load())
    }

    /// The current view, if it holds every write that any member acknowledged before this call.
    /// `None` when that takes asking: see [`Engine::await_readable`].
    ///
    /// # Errors
    /// The store is closed or has failed, other than at its disk, or is a witness.
    pub fn authoritative_view(&self) -> Result<Option<Guard<Arc<View>>>, EngineError> {
        self.check_reads()?;
        Ok(self.0.authority.view())
    }

    /// Whether the entries of a slot ([`LastChanged`]) are still what they were in the view of
    /// `revision`. `None` when they are for this member, but whether they are for all takes asking.
    pub fn is_current(&self, slot: u32, revision: u64) -> Option<bool> {
        // In this order: what is looked at after the lease is no older than what the lease says.
        let Ok(view) = self.authoritative_view() else { return Some(false) };
        let unchanged = self.last_changed().is_unchanged(slot, revision);
        if unchanged && view.is_none() { None } else { Some(unchanged) }
    }

    /// As [`Engine::is_current`], for [`Engine::view`].
    pub fn is_current_here(&self, slot: u32, revision: u64) -> bool {
        self.check_reads().is_ok() && self.last_changed().is_unchanged(slot, revision)
    }

    fn last_changed(&self) -> &LastChanged {
        self.0.published.last_changed()
    }

    /// Whether values in memory have a bound.
    pub fn has_bounded_memory(&self) -> bool {
        self.0.published.memory().is_bounded()
    }

    /// The id of a history of this store. The first one of a cluster has the cluster's.
    pub fn history_id(&self, history: History) -> u64 {
        if history.id == 0 { self.0.identity.cluster_id } else { history.id }
    }

    /// What its directory must hold when it is opened again.
    pub fn expected(&self) -> Expected {
        self.0.expected
    }

    /// This member's id.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Discards what was set aside when this member joined; see
    /// [`crate::storage::Directory::open_as`]. A member that is to vote sees to that itself from now on, also after a
    /// restart, should its promotion not come about now.
    ///
    /// # Errors
    /// The store is closed, or what the file system says.
    pub fn discard_aside(&self, is_to_vote: bool) -> Result<(), EngineError> {
        lock(&self.0.parts).as_ref().ok_or(EngineError::Closed)?.discard_aside(is_to_vote)?;
        if is_to_vote {
            self.start_promotion();
        }
        Ok(())
    }

    /// What is wrong with this store while it goes on.
    pub fn alarms(&self) -> &Alarms {
        self.0.health.alarms()
    }

    /// Takes a frame that the transport brought from `node`; returns the id of its cluster if that is another one: it
    /// was dropped then. Never blocks.
    pub fn deliver(&self, node: &str, frame: &[u8]) -> Option<u64> {
        self.check().ok()?;
        self.0.peers.deliver(&self.0.runtime, node, frame)
    }

    /// Measures from now on how late this store's tasks are woken.
    ///
    /// # Errors
    /// There is no thread.
    pub fn probe(&self) -> Result<Probe, EngineError> {
        let probe = Probe::new().map_err(|error| EngineError::Storage(format!("no thread: {error}")));
        let (probe, measure) = probe?;
        self.0.runtime.spawn("probe", &self.0.health, measure);
        Ok(probe)
    }

    fn check_serves(&self) -> Result<(), EngineError> {
        self.check_takes_part()?;
        self.check_no_witness()
    }

    /// Whether this member takes part in its cluster, or its disk has gone back in time.
    fn check_takes_part(&self) -> Result<(), EngineError> {
        self.check()?;
        self.0.roll_call.refusal().map_or(Ok(()), |refusal| Err(refusal.error()))
    }

    /// Whether reads are answered. They also are, from the last view, when the disk has failed.
    fn check_reads(&self) -> Result<(), EngineError> {
        self.check_shows()?;
        self.check_no_witness()
    }

    fn check_no_witness(&self) -> Result<(), EngineError> {
        self.check_no_difference()?;
        if self.0.witness.is_one() { Err(EngineError::Witness) } else { Ok(()) }
    }

    /// Whether changes are told: also by a witness.
    fn check_same(&self) -> Result<(), EngineError> {
        self.check()?;
        self.check_no_difference()
    }

    fn check_no_difference(&self) -> Result<(), EngineError> {
        if self.0.witness.differs() { Err(EngineError::Differs) } else { Ok(()) }
    }

    /// Whether there is anything to be seen: also of a store whose disk has failed.
    fn check_shows(&self) -> Result<(), EngineError> {
        match self.0.health.check() {
            Err(error) if !error.is_of_the_disk() => return Err(error),
            _ => {}
        }
        let closed = self.0.closed.load(Ordering::Acquire) && !self.0.retired.load(Ordering::Acquire);
        if closed { Err(EngineError::Closed) } else { Ok(()) }
    }

    fn check(&self) -> Result<(), EngineError> {
        self.0.health.check()?;
        if self.0.closed.load(Ordering::Acquire) { Err(EngineError::Closed) } else { Ok(()) }
    }
}
