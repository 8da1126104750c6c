//! After the calm, the store begins another history: that of a backup, or of what one survivor has. What was written since
//! is lost; the other members join it, clients go on, and nothing that anybody has seen comes again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tank_engine::command::{Command, Compare, LeaseCommand, Op, Relation, Txn, Write};
use tank_engine::engine::{Engine, From, Position, Since};
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::outcome::Outcome;
use tank_engine::view::View;
use tank_engine::watch::{Budget, Filter, Next};
use tank_sim::Rng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::clients::Client;
use crate::cluster::{Cluster, End, key};
use crate::storm::{agree, compare, leads, look, serve_everywhere, state_of, tell};

/// How long each step may take.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Former holders of leases that try to go on.
const FORMER_HOLDERS: usize = 5;

/// A backup that is made during the storm, or after it.
pub struct Backup {
    due: Instant,
    file: PathBuf,
    /// The revision that it has.
    revision: Option<u64>,
}

/// Clients that use a store until they are told to end.
struct Users {
    tasks: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Backup {
    /// To be made at some moment of a storm.
    pub fn planned(rng: &mut Rng, began: Instant, storm: Duration, dir: &Path) -> Self {
        let due = began + storm.mul_f64(rng.below(100) as f64 / 100.0);
        Self { due, file: dir.join("backup"), revision: None }
    }

    /// Makes it, if it is time, of any member that can.
    pub fn make_if_due(&mut self, cluster: &Cluster, rng: &mut Rng) {
        let node = rng.below(cluster.count());
        if self.revision.is_none() && self.due <= Instant::now() && !cluster.is_witness(node) {
            let made = cluster.back_up(node, &self.file);
            cluster.trace().note(format_args!("backup of {node}: {:?}", made.as_ref().map(|about| about.revision)));
            self.revision = made.ok().map(|about| about.revision);
        }
    }
}

/// Restores a backup as the first member, which the others join.
pub async fn of_a_backup(cluster: &Cluster, mut backup: Backup, rng: &mut Rng) -> Result<(), String> {
    backup.due = Instant::now();
    while backup.revision.is_none() {
        backup.make_if_due(cluster, rng);
    }
    cluster.oracle().count("restored");
    lose_what_is_written_now(cluster, rng).await;
    cluster.restore(0, &backup.file).await?;
    go_on(cluster, 0, backup.revision.unwrap_or_default(), rng).await
}

/// Makes a cluster of one member, which the others join.
pub async fn of_a_survivor(cluster: &Cluster, revision: u64, rng: &mut Rng) -> Result<(), String> {
    let serving: Vec<usize> = (0..cluster.count()).filter(|node| !cluster.is_witness(*node)).collect();
    let survivor = serving[rng.below(serving.len())];
    cluster.oracle().count("forced");
    cluster.end(survivor, if rng.below(2) == 0 { End::Kill } else { End::PowerCut }).await;
    lose_what_is_written_now(cluster, rng).await;
    cluster.force_new_cluster(survivor).await?;
    go_on(cluster, survivor, revision, rng).await
}

/// Has clients write and hold leases for a while, and ends all members.
async fn lose_what_is_written_now(cluster: &Cluster, rng: &mut Rng) {
    let users = Users::begin(cluster, rng);
    sleep(Duration::from_millis(500 + rng.below(1_500) as u64)).await;
    for node in 0..cluster.count() {
        cluster.forget(node);
        cluster.end(node, End::Kill).await;
    }
    users.abort();
}

/// The store has begun another history on `first`, behind `revision`: the others join it while clients use it.
async fn go_on(cluster: &Cluster, first: usize, revision: u64, rng: &mut Rng) -> Result<(), String> {
    let (seen, view) = (cluster.oracle().highest_seen(), in_time(cluster, view_of(cluster, first)).await?);
    cluster.trace().note(format_args!("another history: {:?}", view.history));
    cluster.oracle().begins_another_history(&view, revision);
    cluster.remember();
    let users = Users::begin(cluster, rng);
    try_to_go_on_with_former_leases(cluster, first).await;
    check_position(cluster, first, seen);
    for node in (0..cluster.count()).filter(|node| *node != first) {
        cluster.join(node).await?;
    }
    sleep(Duration::from_millis(rng.below(2_000) as u64)).await;
    if let Some(leader) = (0..cluster.count()).find(|node| leads(cluster, *node)) {
        cluster.end(leader, End::Kill).await;
        sleep(Duration::from_millis(rng.below(1_000) as u64)).await;
        cluster.start_if_wanted(leader).await?;
    }
    in_time(cluster, serve_everywhere(cluster)).await??;
    in_time(cluster, users.end()).await?;
    let last = in_time(cluster, agree(cluster)).await?;
    in_time(cluster, tell(cluster)).await?;
    for node in (0..cluster.count()).filter(|node| !cluster.is_witness(*node)) {
        check_position(cluster, node, seen);
    }
    compare(cluster, cluster.oracle());
    cluster.oracle().judge(last);
    Ok(())
}

async fn in_time<T>(cluster: &Cluster, step: impl Future<Output = T>) -> Result<T, String> {
    timeout(STEP_MAX, step).await.map_err(|_| format!("in another history, after {STEP_MAX:?}: {}", state_of(cluster)))
}

/// The view that another history begins with.
async fn view_of(cluster: &Cluster, node: usize) -> Arc<View> {
    loop {
        let view = cluster.engine(node).and_then(|(engine, _)| engine.view().ok().map(|view| Arc::clone(&view)));
        if let Some(view) = view.filter(|view| view.history.id != 0 && view.revision >= view.history.since) {
            return view;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Former holders renew their leases, and write on condition that they hold them.
async fn try_to_go_on_with_former_leases(cluster: &Cluster, node: usize) {
    for former in cluster.oracle().former_holders().into_iter().rev().take(FORMER_HOLDERS) {
        let (name, epoch) = (Bytes::from(former.lease.clone()), former.epoch);
        let renewed = write(cluster, node, Command::Lease(LeaseCommand::Renew { name: name.clone(), epoch })).await;
        if matches!(renewed, Ok(Outcome::Granted(_))) {
            cluster.oracle().finds(format!("{former:?} was renewed in another history"));
        }
        let (serial, _) = cluster.oracle().write_begins("guarded put", "k0", false);
        let put = Op::Put(Write::new(key("k0"), serial.to_be_bytes().to_vec().into()));
        let compare = vec![Compare::Lease { name, relation: Relation::Equal, operand: epoch }];
        let txn = Txn { compare, then: vec![put], otherwise: Vec::new() };
        match write(cluster, node, Command::Txn(txn)).await {
            Ok(Outcome::Txn { succeeded: true, revision, .. }) => {
                cluster.oracle().write_done(serial, revision, true);
                cluster.oracle().finds(format!("{former:?} wrote in another history"));
            }
            Ok(_) => cluster.oracle().write_refused(serial),
            Err(_) => cluster.oracle().write_unknown(serial),
        }
    }
}

async fn write(cluster: &Cluster, node: usize, command: Command) -> Result<Outcome, EngineError> {
    let Some((engine, environment)) = cluster.engine(node) else { return Err(EngineError::Closed) };
    let within = Duration::from_secs(5);
    let call = |reply| {
        environment.enter(|| {
            if let Err((error, reply)) = engine.write_within(command, within, reply) {
                reply.send(Err(error));
            }
        });
    };
    cluster.answer("a write in another history", within, call).await
}

/// Whoever comes with a revision of a former history is told that it is compacted.
fn check_position(cluster: &Cluster, node: usize, revision: u64) {
    let Some((engine, _)) = cluster.engine(node) else { return };
    let (watched, listed) = (watched_after(&engine, revision), listed_since(&engine, revision));
    if !(watched && listed) {
        cluster.oracle().finds(format!("member {node} goes on from revision {revision} of a former history"));
    }
}

fn watched_after(engine: &Engine, revision: u64) -> bool {
    let Ok((cursor, _)) = engine.watch(Filter::prefix(Key::default()), From::After(revision), Box::new(|| {})) else {
        return false;
    };
    let budget = Budget { revisions: 16, changes: 1_000, bytes: 1 << 20, look: 1_000, patient: true };
    matches!(cursor.next(budget), Ok(Next::Compacted(_)))
}

fn listed_since(engine: &Engine, revision: u64) -> bool {
    let Ok(view) = engine.view() else { return true };
    let position = Position { history: None, revision };
    matches!(engine.changes_since(&view, &Filter::prefix(Key::default()), position, true), Ok(Since::Compacted(_)))
}

impl Users {
    fn begin(cluster: &Cluster, rng: &mut Rng) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = vec![tokio::spawn(look(cluster.clone(), Arc::clone(&over)))];
        for number in 0..5 {
            let (cluster, over, rng) = (cluster.clone(), Arc::clone(&over), Rng::new(rng.next_u64()));
            let client =
                Client { cluster, number, rng, over, pause: Duration::from_millis(50), value_bytes_max: 2_000 };
            tasks.push(if number < 3 {
                tokio::spawn(client.use_entries())
            } else {
                tokio::spawn(client.hold_leases())
            });
        }
        Self { tasks, over }
    }

    /// Ends them as they are.
    fn abort(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Ends them when they have done what they are at.
    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let _done = task.await;
        }
    }
}
