//! Disks that go back in time, and stores that are made of a backup.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tank_engine::backup::{self, About, Progress};
use tank_engine::engine::Engine;
use tank_engine::error::EngineError;
use tank_engine::log::disk::{LogDisk, LogWrite, Recovered};
use tank_engine::options::Formation;
use tank_engine::raft::{LogId, Vote};
use tank_engine::storage::Directory;

use crate::disk::MemberDisk;
use crate::links::name;

use super::{Cluster, End, copy_store};

/// A copy of a member's disk.
pub struct Copy {
    pub member_id: u64,
    /// How far the member had come.
    vote: Option<Vote>,
    last: Option<LogId>,
    disk: MemberDisk,
    dir: PathBuf,
}

impl Cluster {
    /// Copies the disk of a member that runs, as a snapshot of a virtual machine does.
    pub fn copy(&self, node: usize) -> Option<Copy> {
        let member_id = self.member_id(node)?;
        let mut state = self.state(node);
        let (dir, disk) = (self.new_dir(node, &mut state), state.disk.copy());
        copy_store(&state.dir, &dir);
        let Recovered { vote, last, .. } = disk.recover().ok()?;
        self.0.trace.note(format_args!("copy {node} at {vote:?} {last:?}"));
        Some(Copy { member_id, vote, last, disk, dir })
    }

    /// Whether all other members run, and know that a member has acknowledged more since it was copied.
    pub fn know_of_more(&self, node: usize, copy: &Copy) -> bool {
        let place = |vote: Vote, last: Option<LogId>| (*vote.leader_id(), last);
        let mut others = (0..self.count()).filter(|other| *other != node);
        others.all(|other| {
            let known = self.engine(other).and_then(|(engine, _)| engine.known_progress(copy.member_id));
            let copied = copy.vote.map(|vote| place(vote, copy.last));
            known.is_some_and(|(vote, last)| copied.is_none_or(|copied| copied < place(vote, last)))
        })
    }

    /// Kills a member, and puts a copy in the place of its disk.
    pub async fn roll_back(&self, node: usize, copy: Copy) {
        let _turn = self.0.slots[node].turn.lock().await;
        self.end_now(node, End::Kill).await;
        self.0.trace.note(format_args!("roll back {node} to {:?}", copy.last));
        self.0.slots[node].back.store(true, Ordering::Relaxed);
        let mut state = self.state(node);
        (state.disk, state.dir) = (copy.disk, copy.dir);
    }

    /// Makes a backup of what a member has.
    pub fn back_up(&self, node: usize, file: &Path) -> Result<About, String> {
        let (engine, environment) = self.engine(node).ok_or("it does not run")?;
        let made = environment.enter(|| engine.backup(file, &Progress::default()));
        made.map_err(|error| format!("no backup: {error}"))
    }

    /// Has nobody start a member again, and watch what it does.
    pub fn forget(&self, node: usize) {
        self.0.slots[node].joined.store(false, Ordering::Relaxed);
        self.0.watches.store(false, Ordering::Relaxed);
    }

    /// Starts a member with a new disk, on which a backup was restored.
    pub async fn restore(&self, node: usize, file: &Path) -> Result<(), String> {
        {
            let mut state = self.state(node);
            self.renew_disk(node, &mut state);
            let restored = backup::restore(file, &state.dir, Some("tank"), &name(node), &Progress::default());
            restored
                .and_then(|_| copy_log(&state.dir, &state.disk))
                .map_err(|error| format!("not restored: {error}"))?;
        }
        self.start(node, Formation::NewCluster).await?;
        self.0.slots[node].joined.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Starts a member as the only one of another cluster, with what it has.
    pub async fn force_new_cluster(&self, node: usize) -> Result<(), String> {
        self.start(node, Formation::ForceNew { cluster_id: self.random() | 1 }).await?;
        self.0.slots[node].joined.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Watches what members do again, after [`Cluster::forget`].
    pub fn remember(&self) {
        self.0.watches.store(true, Ordering::Relaxed);
        for node in 0..self.count() {
            let running = self.state(node).running.clone();
            running.into_iter().for_each(|running| self.watch(node, &running));
        }
    }

    /// Whether a member says that its disk went back in time.
    pub fn has_lost_its_log(&self, node: usize) -> bool {
        let about_itself = |engine: &Engine| engine.alarms().is_raised("log_lost", Some(engine.identity().member_id));
        self.state(node).running.as_ref().is_some_and(|running| about_itself(&running.engine))
    }

    /// What is wrong by what members say, and should not be: only who was rolled back has lost anything.
    pub fn wrong_alarms(&self) -> Vec<String> {
        let all = (0..self.count()).filter(|node| !self.0.slots[*node].back.load(Ordering::Relaxed));
        let own = all.filter_map(|node| Some((node, self.state(node).running.as_ref()?.engine.clone())));
        let wrong = own.flat_map(|(node, engine)| {
            let me = engine.identity().member_id;
            let alarms = engine.alarms().list().into_iter();
            alarms
                .filter(move |alarm| alarm.member == Some(me) || alarm.name != "log_lost")
                .map(move |alarm| (node, alarm))
        });
        wrong.map(|(node, alarm)| format!("member {node} raised an alarm: {alarm:?}")).collect()
    }
}

/// Copies the log of a directory to a simulated disk.
fn copy_log(dir: &Path, disk: &MemberDisk) -> Result<(), EngineError> {
    let directory = Directory::open(dir, "tank")?;
    let log = directory.log();
    let Recovered { purged, last, vote, committed } = log.recover()?;
    let range = purged.map_or(0, |id| id.index() + 1)..last.map_or(0, |id| id.index() + 1);
    let entries = log.read(range, usize::MAX).map_err(|error| EngineError::Storage(error.to_string()))?;
    let writes = purged.map(LogWrite::Purge).into_iter().chain(vote.map(LogWrite::Vote));
    let writes: Vec<_> = writes.chain([LogWrite::Append(entries), LogWrite::Committed(committed)]).collect();
    disk.write(&writes).map_err(|error| EngineError::Storage(error.to_string()))?;
    directory.close()
}
