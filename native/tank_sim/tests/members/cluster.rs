//! Members that start, stop, and are killed, each with its disk, its clock and its place in the network.

mod lineage;
mod mount;
mod watch;

pub use mount::MountPoint;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tank_engine::engine::{Engine, Reply};
use tank_engine::environment::Environment;
use tank_engine::error::EngineError;
use tank_engine::key::{Component, Key};
use tank_engine::options::{First, Formation, Opening, Options, Timing};
use tank_engine::peers::MembershipChange;
use tank_engine::raft::Member;
use tank_engine::storage::Expected;
use tank_sim::Rng;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::disk::{Behaviour, MemberDisk};
use crate::links::{Links, name};
use crate::oracle::Oracle;
use crate::trace::Trace;
use crate::world::{Life, Skew};

/// How long opening and closing may take.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// How much longer than its timeout a call may take: a leader without the others answers when it knows that.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Whether a call that has no answer then is a finding.
const ANSWERS_END: bool = true;

/// The members. Clones are the same.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    links: Links,
    oracle: Oracle,
    trace: Trace,
    start: Instant,
    dir: PathBuf,
    timing: Timing,
    rng: Mutex<Rng>,
    slots: Vec<Slot>,
    witness: Option<usize>,
    /// Whether all that members do is watched.
    watches: AtomicBool,
}

struct Slot {
    skew: Skew,
    behaviour: Behaviour,
    /// Held by who starts or ends the member.
    turn: tokio::sync::Mutex<()>,
    /// Whether it is a member, and should run.
    joined: AtomicBool,
    /// Whether its disk went back in time, and it was not replaced since.
    back: AtomicBool,
    /// Whether it could not be opened, as its disk was full.
    again: AtomicBool,
    state: Mutex<State>,
}

struct State {
    running: Option<Running>,
    /// What the next life begins with.
    disk: MemberDisk,
    dir: PathBuf,
    /// Where the directory is while it is not mounted.
    away: Option<PathBuf>,
    /// What must be there when the member is started again.
    expected: Option<Expected>,
    dirs: u64,
}

#[derive(Clone)]
struct Running {
    engine: Engine,
    environment: Environment,
    life: Arc<Life>,
    failed: Arc<AtomicBool>,
}

/// How a member ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Kill,
    PowerCut,
}

impl Cluster {
    /// `count` places for members, none of which runs.
    pub fn new(
        count: usize,
        timing: Timing,
        links: Links,
        oracle: Oracle,
        trace: Trace,
        dir: &Path,
        seed: u64,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let witness = (rng.below(4) == 0).then_some(count - 1);
        let slots = (0..count).map(|node| {
            let behaviour = Behaviour::new(rng.next_u64());
            let disk = MemberDisk::new(behaviour.clone());
            let dir = dir.join(format!("{}.0", name(node)));
            let state = State { running: None, disk, dir, away: None, expected: None, dirs: 0 };
            Slot {
                skew: Skew::default(),
                behaviour,
                turn: tokio::sync::Mutex::default(),
                joined: AtomicBool::new(false),
                back: AtomicBool::new(false),
                again: AtomicBool::new(false),
                state: Mutex::new(state),
            }
        });
        let slots = slots.collect();
        let dir = dir.to_path_buf();
        let (start, rng) = (Instant::now(), Mutex::new(rng));
        let watches = AtomicBool::new(true);
        Self(Arc::new(Shared { links, oracle, trace, start, dir, timing, rng, slots, witness, watches }))
    }

    pub fn count(&self) -> usize {
        self.0.slots.len()
    }

    pub fn skew(&self, node: usize) -> &Skew {
        &self.0.slots[node].skew
    }

    pub fn behaviour(&self, node: usize) -> &Behaviour {
        &self.0.slots[node].behaviour
    }

    pub fn timing(&self) -> &Timing {
        &self.0.timing
    }

    pub fn links(&self) -> &Links {
        &self.0.links
    }

    pub fn oracle(&self) -> &Oracle {
        &self.0.oracle
    }

    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    fn state(&self, node: usize) -> std::sync::MutexGuard<'_, State> {
        self.0.slots[node].state.lock().unwrap()
    }

    fn random(&self) -> u64 {
        self.0.rng.lock().unwrap().next_u64()
    }

    fn new_dir(&self, node: usize, state: &mut State) -> PathBuf {
        state.dirs += 1;
        self.0.dir.join(format!("{}.{}", name(node), state.dirs))
    }

    /// Gives a member an empty disk.
    fn renew_disk(&self, node: usize, state: &mut State) {
        self.behaviour(node).unmounted(false);
        state.disk = MemberDisk::new(self.behaviour(node).clone());
        state.dir = self.new_dir(node, state);
        (state.away, state.expected) = (None, None);
    }

    /// The engine of a member that runs. One that is suspended is of no use to anybody.
    pub fn engine(&self, node: usize) -> Option<(Engine, Environment)> {
        let state = self.state(node);
        let running = state.running.as_ref().filter(|running| !running.life.is_suspended());
        running.map(|running| (running.engine.clone(), running.environment.clone()))
    }

    /// The members that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.count()).filter(|node| self.engine(*node).is_some()).collect()
    }

    /// Suspends a member's process, for a while.
    pub async fn suspend(&self, node: usize, lasts: Duration) {
        self.suspend_during(node, sleep(lasts)).await;
    }

    /// Suspends a member's process until something is done.
    pub async fn suspend_during(&self, node: usize, done: impl Future<Output = ()>) {
        let Some(life) = self.state(node).running.as_ref().map(|running| Arc::clone(&running.life)) else { return };
        self.0.trace.note(format_args!("suspend {node}"));
        life.suspend();
        done.await;
        self.0.trace.note(format_args!("resume {node}"));
        life.resume();
    }

    /// Whether a member is a witness, which holds nothing to be read.
    pub fn is_witness(&self, node: usize) -> bool {
        self.0.witness == Some(node)
    }

    pub fn member_id(&self, node: usize) -> Option<u64> {
        self.engine(node).map(|(engine, _)| engine.identity().member_id)
    }

    /// Makes the first member a cluster, and has the others join it.
    pub async fn form(&self) -> Result<(), String> {
        self.start(0, Formation::NewCluster).await?;
        self.0.slots[0].joined.store(true, Ordering::Relaxed);
        for node in 1..self.count() {
            self.join(node).await?;
        }
        Ok(())
    }

    /// Starts a member that should run, and does not.
    pub async fn start_if_wanted(&self, node: usize) -> Result<(), String> {
        let _turn = self.0.slots[node].turn.lock().await;
        let runs = self.state(node).running.is_some();
        if runs || !self.0.slots[node].joined.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.start(node, Formation::NewCluster).await.map(drop)
    }

    /// Ends a member that was removed, for good.
    pub async fn retire(&self, node: usize) {
        self.0.slots[node].joined.store(false, Ordering::Relaxed);
        self.end(node, End::Kill).await;
    }

    /// Starts a member. It finds what its last life left. Whether it runs: its disk may be full.
    async fn start(&self, node: usize, formation: Formation) -> Result<bool, String> {
        let (disk, dir, opening, seed) = {
            let state = self.state(node);
            let expected = state.expected.map(|expected| Opening::Again(vec![expected]));
            let opening = expected.unwrap_or(Opening::First(First::MayCreate));
            (state.disk.clone(), state.dir.clone(), opening, self.random())
        };
        self.0.trace.note(format_args!("start {node} {formation:?}"));
        let life = Life::new(self.0.start, self.skew(node).clone(), seed);
        let environment = life.environment();
        let mut options = Options::new(dir.clone(), "tank");
        options.node = name(node);
        options.formation = formation;
        options.opening = opening;
        options.witness = self.is_witness(node);
        options.timing = self.0.timing.clone();
        let failed = Arc::new(AtomicBool::new(false));
        let on_failure = {
            let (failed, oracle, behaviour) =
                (Arc::clone(&failed), self.0.oracle.clone(), self.behaviour(node).clone());
            Box::new(move |error: &EngineError| {
                failed.store(true, Ordering::Relaxed);
                if !behaviour.excuses(error) {
                    oracle.finds(format!("member {node} failed: {error}"));
                }
            })
        };
        let transport = self.0.links.transport(node);
        let opening = Engine::open_simulated(environment.clone(), disk.clone(), options, transport, on_failure);
        let opening = tokio::spawn(opening);
        let abort = opening.abort_handle();
        let engine = match timeout(OPEN_MAX, opening).await {
            Ok(Ok(Ok(engine))) => engine,
            other => {
                abort.abort();
                life.end();
                self.state(node).disk = disk.after_kill();
                if let Ok(Ok(Err(error))) = &other
                    && self.behaviour(node).excuses(error)
                {
                    self.0.trace.note(format_args!("does not run {node}"));
                    self.0.slots[node].again.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                return Err(format!("member {node} did not open: {:?}", other.map(|done| done.map(|r| r.map(drop)))));
            }
        };
        // Only its reserved space; the simulated disk holds the log.
        let _removed = std::fs::remove_dir_all(dir.join("log"));
        // Whoever had a connection to its last life has none any more.
        for (other, environment) in self.0.links.others(node) {
            environment.enter(|| other.peer_absent(&name(node)));
        }
        self.0.links.attach(node, engine.clone(), environment.clone());
        let running = Running { engine, environment, life, failed };
        if self.0.watches.load(Ordering::Relaxed) {
            self.watch(node, &running);
        }
        let mut state = self.state(node);
        if state.away.is_some() {
            self.0.oracle.finds(format!("member {node} was opened in the place of its directory"));
        }
        state.expected = Some(running.engine.expected());
        (state.running, state.disk) = (Some(running), disk);
        self.0.trace.note(format_args!("runs {node}"));
        Ok(true)
    }

    /// Makes an empty place a member of the cluster, however often it takes. A member that ends before it has
    /// caught up is given up for another one, as what was set aside for it would come back.
    pub async fn join(&self, node: usize) -> Result<(), String> {
        loop {
            let Some(cluster_id) = self.cluster_id() else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let member_id = self.random() | 1;
            {
                let mut state = self.state(node);
                self.0.slots[node].back.store(false, Ordering::Relaxed);
                self.renew_disk(node, &mut state);
            }
            self.0.oracle.stream_ends(&name(node));
            let runs = {
                let _turn = self.0.slots[node].turn.lock().await;
                self.start(node, Formation::Joining { cluster_id, member_id }).await?
            };
            if !runs {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            let member = Member { node: name(node), witness: self.is_witness(node) };
            let runs = || self.member_id(node) == Some(member_id);
            let add = MembershipChange::AddLearner(member_id, member);
            // The new one knows of no cluster yet.
            let added = self.change_while(add, |through| through != node, runs).await?;
            // As `Tank.Store.Server` does: otherwise what was there before comes back at the next start.
            if added && self.engine(node).is_some_and(|(engine, _)| engine.discard_aside(true).is_ok()) {
                self.0.slots[node].joined.store(true, Ordering::Relaxed);
                return self.change_surely(MembershipChange::Promote(member_id)).await;
            }
            self.0.trace.note(format_args!("{node} ended before it was a member"));
            self.end(node, End::Kill).await;
            self.change_surely(MembershipChange::Remove(member_id)).await?;
        }
    }

    fn cluster_id(&self) -> Option<u64> {
        let other = self.running().into_iter().find_map(|other| self.engine(other));
        other.map(|(engine, _)| engine.identity().cluster_id)
    }

    /// Changes the members, however often it takes.
    pub async fn change_surely(&self, change: MembershipChange) -> Result<(), String> {
        self.change_while(change, |_| true, || true).await.map(drop)
    }

    /// As `change_surely`, by asking members that `knows` says, as long as `go_on`. Whether it came about.
    async fn change_while(
        &self,
        change: MembershipChange,
        knows: impl Fn(usize) -> bool,
        go_on: impl Fn() -> bool,
    ) -> Result<bool, String> {
        let deadline = Instant::now() + Duration::from_secs(300);
        let mut last = None;
        while Instant::now() < deadline {
            if !go_on() {
                return Ok(false);
            }
            let running: Vec<_> = self.running().into_iter().filter(|node| knows(*node)).collect();
            if running.is_empty() {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            let through = running[usize::try_from(self.random() % running.len() as u64).unwrap()];
            let changed = self.change(through, change.clone(), Duration::from_secs(10)).await;
            // What a member says of itself that is to go may come too late to be heard.
            if changed == Some(Ok(())) {
                return Ok(true);
            }
            last = changed;
            sleep(Duration::from_millis(200)).await;
        }
        Err(format!("{change:?} did not come about: {last:?}"))
    }

    /// Changes the members, by asking one.
    pub async fn change(
        &self,
        through: usize,
        change: MembershipChange,
        within: Duration,
    ) -> Option<Result<(), EngineError>> {
        let (engine, environment) = self.engine(through)?;
        self.0.trace.note(format_args!("change {change:?} by {through}"));
        let call = move |reply| environment.enter(|| engine.change_members(change, within, reply));
        Some(self.answer("a change of members", within, call).await)
    }

    /// Gives leadership away.
    pub async fn transfer(&self, from: usize, to: usize, within: Duration) -> Option<Result<(), EngineError>> {
        let id = self.member_id(to)?;
        let (engine, environment) = self.engine(from)?;
        self.0.trace.note(format_args!("transfer {from} to {to}"));
        let call = move |reply| environment.enter(|| engine.transfer_leader(id, within, reply));
        Some(self.answer("a transfer", within, call).await)
    }

    /// Waits for an answer, which must come in time.
    pub async fn answer<T: Send + 'static>(
        &self,
        what: &str,
        within: Duration,
        call: impl FnOnce(Reply<T>),
    ) -> Result<T, EngineError> {
        let (sender, receiver) = oneshot::channel();
        call(Reply::new(move |result| drop(sender.send(result))));
        match timeout(within + ANSWER_MAX, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(EngineError::Unknown),
            Err(_) => {
                if ANSWERS_END {
                    self.0.oracle.finds(format!("no answer to {what} within {within:?}"));
                }
                self.0.oracle.count("unanswered");
                Err(EngineError::Unknown)
            }
        }
    }

    /// Ends a member as it is.
    pub async fn end(&self, node: usize, how: End) {
        let _turn = self.0.slots[node].turn.lock().await;
        self.end_now(node, how).await;
    }

    async fn end_now(&self, node: usize, how: End) {
        let Some(running) = self.state(node).running.take() else { return };
        self.0.trace.note(format_args!("{how:?} {node}"));
        self.leave(node);
        {
            let mut state = self.state(node);
            let next = self.new_dir(node, &mut state);
            copy_store(state.away.as_ref().unwrap_or(&state.dir), &next);
            if state.away.is_some() {
                state.away = Some(next);
                state.dir = self.new_dir(node, &mut state);
            } else {
                state.dir = next;
            }
            state.disk = match how {
                End::Kill => state.disk.after_kill(),
                End::PowerCut => state.disk.after_power_cut(),
            };
        }
        running.life.end();
        drop(running);
        // For the tasks to go.
        sleep(Duration::from_millis(1)).await;
    }

    /// Closes a member in an orderly way.
    pub async fn stop(&self, node: usize) {
        let _turn = self.0.slots[node].turn.lock().await;
        let Some(running) = self.state(node).running.take() else { return };
        self.0.trace.note(format_args!("stop {node}"));
        self.leave(node);
        let closed = timeout(OPEN_MAX, running.engine.close_simulated(&running.environment)).await;
        // It says so when its directory was lost a moment ago, which it had not noticed yet.
        let lost = self.state(node).away.is_some() && matches!(closed, Ok(Err(EngineError::Lost { .. })));
        let excused = lost || running.failed.load(Ordering::Relaxed);
        if closed != Ok(Ok(())) && !excused {
            self.0.oracle.finds(format!("member {node} did not close: {closed:?}"));
        }
        running.life.end();
        {
            let mut state = self.state(node);
            state.disk = state.disk.after_kill();
        }
        sleep(Duration::from_millis(1)).await;
    }

    /// Whether a member's store failed.
    pub fn has_failed(&self, node: usize) -> bool {
        self.state(node).running.as_ref().is_some_and(|running| running.failed.load(Ordering::Relaxed))
    }

    /// Whether a member is to be opened again, which failed for its disk.
    pub fn opens_again(&self, node: usize) -> bool {
        self.0.slots[node].again.swap(false, Ordering::Relaxed)
    }

    /// Takes a member out of the network; the others hear of it a while later.
    fn leave(&self, node: usize) {
        let known = Instant::now() + Duration::from_millis(self.random() % 2_000);
        self.0.links.detach(node, known);
        let links = self.0.links.clone();
        let cluster = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(known).await;
            if cluster.state(node).running.is_some() {
                return;
            }
            for (engine, environment) in links.others(node) {
                environment.enter(|| engine.peer_lost(&name(node)));
            }
        });
    }
}

/// The key of a name.
pub fn key(name: &str) -> Key {
    Key::of(&[Component::String(name.as_bytes().to_vec())])
}

/// Copies a store's directory as a killed process leaves it. The database's own threads may be at work.
fn copy_store(from: &Path, to: &Path) {
    loop {
        let _removed = std::fs::remove_dir_all(to);
        let before = files(from);
        if copy_dir(from, to).is_ok() && files(from) == before {
            return;
        }
    }
}

fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => all.extend(files(&entry.path())),
            Ok(metadata) => all.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    all.sort();
    all
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.metadata()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
