//! Opening and closing a store. Both block, and are for a thread of their own.
//!
//! ```text
//! open:  directory, log, state --> raft core --> elected and caught up --> answers
//! close: refuse calls --> raft core ends --> log writer ends --> database synced and closed
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use tokio::time::Instant;

use crate::environment::Environment;
use crate::error::EngineError;
use crate::evict;
use crate::health::{Health, OnFailure};
use crate::label;
use crate::log::disk::LogDisk;
use crate::log::{AtOnce, LogCloser, LogStore, WriterStats, alone};
use crate::machine::{Checkpoints, Machine, Replay, StateStore};
use crate::options::{Formation, Options};
use crate::payload::Memory;
use crate::peers::{NoPeers, Rpc, Transport};
use crate::raft::authority::{self, Authority, Follow};
use crate::raft::comparison::Comparison;
use crate::raft::election::Elections;
use crate::raft::ledger::{self, Ledger};
use crate::raft::replication::Network;
use crate::raft::roll_call::RollCall;
use crate::raft::seeds::Seeds;
use crate::raft::server::Server;
use crate::raft::witness::Witness;
use crate::raft::{self, Raft};
use crate::runtime::{self, Runtime};
use crate::storage::members::MembersFile;
use crate::storage::rocks::Db;
use crate::storage::{Directory, Guard, Location};
use crate::sync::lock;
use crate::types::random_id;
use crate::types::{LogId, Member, Types, Vote};
use crate::view::Published;

use super::disk_usage::DiskUsage;
use super::ingress::Ingress;
use super::leader::LeaderClient;
use super::leases::Keeper;
use super::readers::Readers;
use super::{Engine, Inner, callers, idle};

/// How long the only member may take to elect itself and to replay its log.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long closing waits for others to let go of the database.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// What only closing needs.
pub(super) struct Parts {
    directory: Directory,
    log: LogCloser,
    checkpoints: Arc<Checkpoints>,
    /// Notices that the directory is lost.
    guard: Option<Guard>,
}

/// How a member comes out of opening.
struct Ready {
    runtime: Runtime,
    /// The vote that the only member leads with.
    vote: Option<Vote>,
    /// Marks this opening's requests.
    client: u64,
    /// Marks those of its keeper of leases.
    keeper: u64,
}

impl Engine {
    /// As [`Engine::open_with`], for a store that stays a single member.
    ///
    /// # Errors
    /// As there.
    pub fn open(options: Options, on_failure: OnFailure) -> Result<Self, EngineError> {
        Self::open_with(options, Arc::new(NoPeers), on_failure)
    }

    /// Opens the store that `options` describe; makes it when the directory is new. Returns when
    /// it answers reads and writes, or, if it has other members, when it can be elected or led.
    /// `on_failure` is called at most once, should it fail later.
    ///
    /// # Errors
    /// The directory is taken, foreign, damaged, full or unusable, or an option makes no sense.
    /// Nothing is left open then.
    pub fn open_with(
        options: Options,
        transport: Arc<dyn Transport>,
        on_failure: OnFailure,
    ) -> Result<Self, EngineError> {
        label::set(Some(options.store_id.as_str().into()));
        let runtime = Runtime::start()?;
        let config = checked(&options)?;
        let directory = open_directory(&options)?;
        let disk = directory.log().with_segment_bytes(options.timing.segment_bytes);
        let handle = runtime.handle().clone();
        handle.block_on(Box::pin(Self::start(runtime, directory, disk, options, config, transport, on_failure)))
    }

    /// Opens a store whose log is on `disk`, in a simulated environment: on the thread of its simulator, in
    /// a task of which this is called.
    ///
    /// # Errors
    /// As [`Engine::open_with`].
    pub async fn open_simulated(
        environment: Environment,
        disk: impl LogDisk,
        options: Options,
        transport: Arc<dyn Transport>,
        on_failure: OnFailure,
    ) -> Result<Self, EngineError> {
        let opening = environment.run(async {
            let runtime = Runtime::simulated(environment.clone());
            let config = checked(&options)?;
            let directory = open_directory(&options)?;
            Self::start(runtime, directory, disk, options, config, transport, on_failure).await
        });
        Box::pin(opening).await
    }

    async fn start(
        runtime: Runtime,
        directory: Directory,
        disk: impl LogDisk,
        options: Options,
        config: Arc<openraft::Config>,
        transport: Arc<dyn Transport>,
        on_failure: OnFailure,
    ) -> Result<Self, EngineError> {
        // Weak: what it publishes to refers to the health, for those that watch.
        let sealed: Arc<OnceLock<Weak<Authority>>> = Arc::default();
        let hands_over: Arc<OnceLock<Weak<Elections>>> = Arc::default();
        let at_failure = (Arc::clone(&sealed), Arc::clone(&hands_over));
        let on_failure: OnFailure = Box::new(move |error| {
            if error.is_of_the_disk() {
                let (authority, elections) = &at_failure;
                // Before anything else notices: reads go on from the last view.
                authority.get().and_then(Weak::upgrade).into_iter().for_each(|authority| authority.seal());
                let elections = elections.get().and_then(Weak::upgrade);
                elections.into_iter().for_each(|elections| elections.disk_failed());
            }
            on_failure(error);
        });
        let location = Arc::clone(&directory.location);
        // Whatever went wrong in a directory that is lost went wrong for that.
        let find_cause = Box::new(move || location.check().err());
        let health = Arc::new(Health::with_cause(find_cause, on_failure));
        let db = Arc::clone(&directory.db);
        if let Formation::ForceNew { .. } = options.formation {
            alone::end_log(&disk, directory.identity.member_id, &options.node)?;
        }
        let (log, closer) = LogStore::open(disk, &directory.path, &health)?;
        let (log_stats, at_once, purged) = (log.stats(), log.at_once(), log.purged());
        let rpc = Arc::new(Rpc::new(directory.identity.clone(), transport, Arc::clone(&health))?);
        let members = Arc::new(directory.members()?);
        let ledger = Arc::new(Ledger::open(&members));
        let published = publishing(&options, &health)?;
        let authority = Arc::new(Authority::new(Arc::clone(&published)));
        // Nobody waits for a failure before this: the store is not open yet.
        let _first = sealed.set(Arc::downgrade(&authority));
        published.hub().set_bytes_max(options.watch_buffer_bytes_max);
        let machine = StateStore::open(db, &directory.path)
            .and_then(|store| {
                let (published, checkpoint_bytes) = (Arc::clone(&published), options.timing.checkpoint_bytes);
                Machine::open_with(store, published, Arc::clone(&health), checkpoint_bytes)
            })
            .and_then(|machine| check_reach(purged, published.load().applied).map(|()| machine));
        let member_id = directory.identity.member_id;
        let seeds = Arc::new(Seeds::new(Arc::clone(&rpc), member_id, log.staging()));
        let machine = match machine {
            Ok(machine) => machine,
            Err(error) => {
                drop(log);
                closer.ended().await;
                let _ = directory.close();
                return Err(error);
            }
        };
        let mut parts = Parts { directory, log: closer, checkpoints: machine.checkpoints(), guard: None };
        let network = Network {
            rpc: Arc::clone(&rpc),
            gate: Arc::clone(&authority),
            seeds: Arc::clone(&seeds),
            ledger: Arc::clone(&ledger),
        };
        let raft = match Raft::new(member_id, config, network, log, machine).await {
            Ok(raft) => raft,
            Err(fatal) => {
                let error = health.check().err().unwrap_or(EngineError::Failed(fatal.to_string()));
                let _ = parts.close().await;
                return Err(error);
            }
        };
        let ready = get_ready(&raft, &parts.directory, &options, &health).await;
        let ready =
            ready.and_then(|vote| Ok((vote, random_id()?, random_id()?, guard(&parts.directory.location, &health)?)));
        let ready = match ready {
            Ok((vote, client, keeper, guard)) => {
                parts.guard = Some(guard);
                Ready { runtime, vote, client, keeper }
            }
            Err(error) => {
                let _ = raft.shutdown().await;
                drop(raft);
                let _ = parts.close().await;
                return Err(error);
            }
        };
        let me = member_id;
        let (callers, in_touch_within) = (Arc::default(), options.timing.in_touch_within());
        let health_of_client = Arc::clone(&health);
        let leader =
            LeaderClient { raft, authority, rpc, seeds, me, callers, health: health_of_client, in_touch_within };
        let parts_of_members = (ledger, members);
        let engine = Self::assemble(options, parts, leader, health, (log_stats, at_once), parts_of_members, ready);
        let _first = hands_over.set(Arc::downgrade(&engine.0.elections));
        Ok(engine)
    }

    fn assemble(
        options: Options,
        parts: Parts,
        leader: LeaderClient,
        health: Arc<Health>,
        (log_stats, at_once): (Arc<WriterStats>, AtOnce),
        (ledger, members): (Arc<Ledger>, Arc<MembersFile>),
        ready: Ready,
    ) -> Self {
        let Ready { runtime, vote, client, keeper } = ready;
        let (raft, lease) = (leader.raft.clone(), options.timing.leader_lease());
        let authority = Arc::clone(&leader.authority);
        let published = Arc::clone(authority.published());
        if let Some(vote) = &vote {
            authority.lead_alone(vote);
        }
        let witness = Arc::new(Witness::new(&raft, leader.me, options.witness));
        let follow = Follow {
            authority: Arc::clone(&authority),
            raft: raft.clone(),
            me: leader.me,
            witness: Arc::clone(&witness),
            lease,
            health: Arc::clone(&health),
        };
        runtime.spawn("raft-watch", &health, authority::follow(follow, vote));
        let roll_call = RollCall::new(
            (raft.clone(), Arc::clone(&authority)),
            (Arc::clone(&leader.rpc), Arc::clone(&ledger)),
            Arc::clone(&health),
            (leader.me, parts.directory.is_new),
            options.timing.vote_hold(),
        );
        let elections = Elections::new(
            raft.clone(),
            Arc::clone(&authority),
            (Arc::clone(&leader.rpc), Arc::clone(&roll_call)),
            leader.me,
            &options.timing,
            Arc::clone(&witness),
        );
        let keeper = Keeper {
            raft: raft.clone(),
            me: leader.me,
            published: Arc::clone(&published),
            elections: Arc::clone(&elections),
            client: keeper,
        };
        runtime.spawn("leases", &health, keeper.keep());
        let comparison = Arc::new(Comparison {
            raft: raft.clone(),
            rpc: Arc::clone(&leader.rpc),
            authority: Arc::clone(&authority),
            witness: Arc::clone(&witness),
            health: Arc::clone(&health),
            me: leader.me,
        });
        runtime.spawn("comparison", &health, Arc::clone(&comparison).run());
        let (peers, dir) = ((Arc::clone(&leader.rpc), Arc::clone(&leader.seeds)), parts.directory.path.clone());
        let served = (raft.clone(), Arc::clone(&authority));
        let judged = (Arc::clone(&elections), Arc::clone(&roll_call), comparison);
        let peers = Server::start(&runtime, peers, served, judged, dir, Arc::clone(&health), options.limits());
        runtime.spawn("roll-call", &health, Arc::clone(&roll_call).run());
        runtime.spawn("members", &health, Arc::clone(&roll_call).follow_members());
        runtime.spawn("ledger", &health, ledger::keep(ledger, Arc::clone(&members), raft.clone()));
        runtime.spawn("callers", &health, callers::probe(leader.clone()));
        runtime.spawn("elections", &health, Arc::clone(&elections).run());
        runtime.spawn("idle", &health, idle::follow(raft.clone(), leader.me));
        published.hub().start(&health);
        let engine = Self(Arc::new(Inner {
            replay: Replay::new(&parts.checkpoints),
            ingress: Ingress::start(&runtime, leader.clone(), at_once, client, &options, &health),
            readers: Readers::start(&runtime, leader.clone(), options.timing.in_touch_within(), &health),
            disk_usage: DiskUsage::start(&runtime, &parts.directory.path, &health),
            peers,
            elections,
            roll_call,
            members,
            witness,
            runtime,
            leader,
            identity: parts.directory.identity.clone(),
            expected: parts.directory.location.expected(),
            options,
            raft,
            published,
            authority,
            health,
            log_stats,
            closed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            parts: Mutex::new(Some(parts)),
        }));
        engine.start_compacting();
        engine.resume_promotion();
        engine
    }

    /// Closes the store: all that was acknowledged is on the disk, and the directory is free when
    /// this returns. Calls that are on their way are answered with an error. Closing twice is fine.
    ///
    /// # Errors
    /// The last sync failed; the store is closed all the same.
    pub fn close(&self) -> Result<(), EngineError> {
        self.0.retired.store(false, Ordering::Release);
        self.0.runtime.block_on(self.end())
    }

    /// As [`Engine::close`]; reads of what this member knows go on from its last view until [`Engine::close`] is called,
    /// while the store is opened again in another engine. If it failed at its disk ([`EngineError::is_of_the_disk`]),
    /// those that its last view is authoritative for go on too.
    ///
    /// # Errors
    /// As there.
    pub fn retire(&self) -> Result<(), EngineError> {
        self.0.retired.store(true, Ordering::Release);
        self.0.runtime.block_on(self.end())
    }

    /// As [`Engine::retire`], unless it was closed before: the process that it belongs to has ended, and another one will
    /// open the store again.
    ///
    /// # Errors
    /// As there.
    pub fn owner_ended(&self) -> Result<(), EngineError> {
        if self.0.closed.load(Ordering::Acquire) { Ok(()) } else { self.retire() }
    }

    /// As [`Engine::close`], of a store in a simulated environment.
    ///
    /// # Errors
    /// As there.
    pub async fn close_simulated(&self, environment: &Environment) -> Result<(), EngineError> {
        environment.run(self.end()).await
    }

    async fn end(&self) -> Result<(), EngineError> {
        self.0.closed.store(true, Ordering::Release);
        let Some(parts) = lock(&self.0.parts).take() else { return Ok(()) };
        self.0.authority.close();
        self.0.published.hub().close();
        let _ = self.0.raft.shutdown().await;
        self.0.roll_call.ledger().write(&self.0.members);
        parts.close().await
    }
}

impl Parts {
    pub(super) fn db(&self) -> Arc<Db> {
        Arc::clone(&self.directory.db)
    }

    pub(super) fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.checkpoints)
    }

    pub(super) fn discard_aside(&self, is_to_vote: bool) -> Result<(), EngineError> {
        self.directory.discard_aside(is_to_vote)
    }

    async fn close(self) -> Result<(), EngineError> {
        drop(self.guard);
        self.log.ended().await;
        // Without this, the next start would have to apply more of the log.
        let checkpoints = self.checkpoints;
        let written = runtime::offload(move || checkpoints.finish()).await.and_then(|written| written);
        // Files that are being merged are merged another time.
        self.directory.db.cancel_all_background_work(false);
        // Tasks of the raft core let go of their handles a moment after it has ended.
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while Arc::strong_count(&self.directory.db) > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if Arc::strong_count(&self.directory.db) > 1 {
            tracing::error!("the database is still in use; it is closed when that ends");
        }
        self.directory.close().and(written)
    }
}

fn open_directory(options: &Options) -> Result<Directory, EngineError> {
    Directory::open_as(&options.dir, &options.store_id, options.formation, &options.opening)
}

/// Notices when the directory is lost.
fn guard(location: &Arc<Location>, health: &Arc<Health>) -> Result<Guard, EngineError> {
    let guard = Guard::start(Arc::clone(location), Arc::clone(health));
    guard.map_err(|error| EngineError::Storage(format!("no thread: {error}")))
}

fn checked(options: &Options) -> Result<Arc<openraft::Config>, EngineError> {
    options.check()?;
    let config = raft::config(&options.timing);
    config.map_err(|error| EngineError::InvalidOption { option: "timing", why: error.to_string() })
}

/// Where views are published, with a thread that keeps their payloads within the bound, if there
/// is one.
fn publishing(options: &Options, health: &Arc<Health>) -> Result<Arc<Published>, EngineError> {
    let Some(bytes_max) = options.memory_bytes_max else { return Ok(Arc::default()) };
    let (scarce, woken) = crossbeam_channel::bounded(1);
    let published = Arc::new(Published::new(Arc::new(Memory::bounded(bytes_max, scarce))));
    let started = evict::start(woken, &published, health);
    started.map_err(|error| EngineError::Storage(format!("no thread: {error}")))?;
    Ok(published)
}

/// Refuses a state that ends before the log begins: what is between them cannot be applied.
fn check_reach(purged: Option<LogId>, applied: Option<LogId>) -> Result<(), EngineError> {
    let index = |id: Option<LogId>| id.map(|id| id.index());
    if index(applied) < index(purged) {
        let detail = format!("it contains log entries up to {applied:?}, and the log begins behind {purged:?}");
        return Err(EngineError::Corrupt { what: "state", detail });
    }
    Ok(())
}

/// Makes the only member of a cluster its leader, and waits until its state is current: returns
/// the vote that it leads with. A member that has others, or joins them, has to wait for those.
async fn get_ready(
    raft: &Raft,
    directory: &Directory,
    options: &Options,
    health: &Health,
) -> Result<Option<Vote>, EngineError> {
    let me = directory.identity.member_id;
    let failed = |what: &str| health.check().err().unwrap_or_else(|| EngineError::Failed(what.to_owned()));
    let fatal = |error: openraft::errors::Fatal<Types>| failed(&error.to_string());
    if raft.is_initialized().await.map_err(fatal)? {
        if !raft.voter_ids().eq([me]) {
            return Ok(None);
        }
        // Nobody else can lead: waiting for the election timeout would be for nothing.
        raft.trigger().elect(false).await.map_err(fatal)?;
    } else if !directory.joins {
        let members = BTreeMap::from([(me, Member { node: options.node.clone(), witness: false })]);
        raft.initialize(members).await.map_err(|error| failed(&error.to_string()))?;
    } else {
        return Ok(None);
    }
    let led = raft
        .wait(Some(READY_TIMEOUT))
        .metrics(|metrics| metrics.current_leader == Some(me), "the only member leads")
        .await
        .map_err(|error| failed(&error.to_string()))?;
    // Commits all that the log held, a change of the members too: another one would be refused until then.
    let current = raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
    current.map_err(|error| failed(&error.to_string()))?;
    let known = |metrics: &RaftMetrics<Types>| metrics.membership_config.membership().get_node(&me).cloned();
    let recorded = known(&raft.metrics().borrow_watched());
    if recorded.is_some_and(|member| member.node != options.node) {
        // A single member may move to a node of another name; with others, they could not find it.
        let renamed = BTreeMap::from([(me, Member { node: options.node.clone(), witness: false })]);
        let changed = raft.change_membership(ChangeMembers::SetNodes(renamed), true).await;
        changed.map_err(|error| failed(&error.to_string()))?;
    }
    Ok(Some(led.vote))
}
