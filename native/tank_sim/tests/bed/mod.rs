//! Engines in one process, on a network that a test cuts.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tank_engine::command::{Command, Write};
use tank_engine::engine::{Engine, Reply};
use tank_engine::error::EngineError;
use tank_engine::key::{Component, Key};
use tank_engine::options::{Formation, Options};
use tank_engine::outcome::Outcome;
use tank_engine::peers::MembershipChange;
use tank_engine::raft::Member;
use tank_engine::types::random_id;
use tank_engine::view::View;
use tank_sim::net::SimNet;

pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster whose members' directories outlive them.
pub struct Cluster {
    pub net: Arc<SimNet>,
    dir: tempfile::TempDir,
    pub nodes: Vec<Option<Engine>>,
    snapshot_interval_entries: u64,
}

impl Cluster {
    pub fn of(count: usize) -> Self {
        Self::with_snapshots_after(count, 20_000)
    }

    pub fn with_snapshots_after(count: usize, snapshot_interval_entries: u64) -> Self {
        let mut cluster = Self::unstarted(count, snapshot_interval_entries);
        cluster.start(0, Formation::NewCluster);
        for node in 1..count {
            cluster.join(node);
        }
        cluster
    }

    pub fn unstarted(count: usize, snapshot_interval_entries: u64) -> Self {
        Self {
            net: SimNet::new(),
            dir: tempfile::tempdir().unwrap(),
            nodes: vec![None; count],
            snapshot_interval_entries,
        }
    }

    pub fn name(node: usize) -> String {
        format!("n{node}")
    }

    pub fn path(&self, node: usize) -> PathBuf {
        self.dir.path().join(Self::name(node))
    }

    pub fn start(&mut self, node: usize, formation: Formation) {
        self.start_with(node, formation, |_options| {});
    }

    pub fn start_with(&mut self, node: usize, formation: Formation, change: impl FnOnce(&mut Options)) {
        let name = Self::name(node);
        let mut options = Options::new(self.path(node), "tank");
        options.node = name.clone();
        options.formation = formation;
        options.timing.snapshot_interval_entries = self.snapshot_interval_entries;
        options.timing.log_retention_entries = self.snapshot_interval_entries / 10;
        options.timing.purge_batch = 10;
        change(&mut options);
        let engine =
            Engine::open_with(options, self.net.transport(&name), Box::new(|error| eprintln!("failed: {error}")));
        let engine = engine.unwrap();
        self.net.attach(&name, engine.clone());
        self.nodes[node] = Some(engine);
    }

    pub fn stop(&mut self, node: usize) {
        self.net.detach(&Self::name(node));
        self.nodes[node].take().unwrap().close().unwrap();
    }

    pub fn join(&mut self, node: usize) {
        self.join_as(node, false);
    }

    pub fn join_as(&mut self, node: usize, witness: bool) {
        let cluster_id = self.engine(0).identity().cluster_id;
        let member_id = random_id().unwrap();
        self.start(node, Formation::Joining { cluster_id, member_id });
        let member = Member { node: Self::name(node), witness };
        change(self.engine(0), MembershipChange::AddLearner(member_id, member)).unwrap();
        // Otherwise what was there before comes back at the next start.
        self.engine(node).discard_aside(true).unwrap();
        change(self.engine(0), MembershipChange::Promote(member_id)).unwrap();
    }

    pub fn engine(&self, node: usize) -> &Engine {
        self.nodes[node].as_ref().unwrap()
    }

    pub fn running(&self) -> impl Iterator<Item = &Engine> {
        self.nodes.iter().flatten()
    }

    pub fn leader(&self) -> usize {
        eventually("a leader that all running members know", || {
            let leaders: BTreeSet<_> = self.running().map(|engine| engine.cluster().unwrap().leader).collect();
            let leader = (*leaders.first()?)?;
            let at = |node: &Option<Engine>| node.as_ref().is_some_and(|engine| engine.identity().member_id == leader);
            (leaders.len() == 1).then(|| self.nodes.iter().position(at)).flatten()
        })
    }

    pub fn leader_among_running(&self) -> usize {
        eventually("a leader among the running", || {
            let known = self.running().next()?.cluster().ok()?.leader?;
            let at = |node: &Option<Engine>| node.as_ref().is_some_and(|engine| engine.identity().member_id == known);
            self.nodes.iter().position(at)
        })
    }

    pub fn agree(&self) {
        eventually("all members to have the same state", || {
            let states: BTreeSet<_> = self
                .running()
                .map(|engine| engine.status().unwrap())
                .map(|status| (status.revision, status.digest, status.entries))
                .collect();
            (states.len() == 1).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            self.net.detach(&Self::name(node));
            if let Some(engine) = self.nodes[node].take() {
                let _ = engine.close();
            }
        }
    }
}

pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn wait<T: Send + 'static>(hand_over: impl FnOnce(Reply<T>)) -> Result<T, EngineError> {
    let (sender, receiver) = mpsc::channel();
    hand_over(Reply::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(TIMEOUT + Duration::from_secs(5)).expect("an answer within the timeout")
}

pub fn change(engine: &Engine, change: MembershipChange) -> Result<(), EngineError> {
    wait(|reply| engine.change_members(change, TIMEOUT, reply))
}

pub fn key(name: &str) -> Key {
    Key::of(&[Component::String(name.as_bytes().to_vec())])
}

pub fn put_within(engine: &Engine, name: &str, payload: &[u8], timeout: Duration) -> Result<Outcome, EngineError> {
    let write = Write::new(key(name), Bytes::copy_from_slice(payload));
    wait(|reply| {
        if let Err((error, reply)) = engine.write_within(Command::Put(write), timeout, reply) {
            reply.send(Err(error));
        }
    })
}

pub fn put(engine: &Engine, name: &str, payload: &[u8]) -> Result<Outcome, EngineError> {
    put_within(engine, name, payload, TIMEOUT)
}

pub fn get_within(engine: &Engine, name: &str, timeout: Duration) -> Result<Option<Bytes>, EngineError> {
    let entry = |view: &View| view.get(&key(name)).and_then(|entry| entry.payload.in_memory());
    if let Some(view) = engine.authoritative_view()? {
        return Ok(entry(&view));
    }
    wait(|reply| {
        if let Err((error, reply)) = engine.await_readable(timeout, reply) {
            reply.send(Err(error));
        }
    })?;
    Ok(entry(&*engine.view()?))
}

pub fn get(engine: &Engine, name: &str) -> Result<Option<Bytes>, EngineError> {
    get_within(engine, name, TIMEOUT)
}
