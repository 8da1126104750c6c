//! What surrounds one life of a member, from its start to its end: a wall clock that may be wrong, chance,
//! and its tasks, which end when it is killed.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use tank_engine::environment::{Environment, World};
use tank_sim::Rng;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// When all clocks show the same: some day.
const EPOCH_MS: i64 = 1_900_000_000_000;

/// How far a member's wall clock is from the right time. It outlives the member.
#[derive(Clone, Default)]
pub struct Skew(Arc<AtomicI64>);

impl Skew {
    /// Sets the clock to `ms` after the right time, or before it.
    pub fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

/// One life.
pub struct Life {
    start: Instant,
    skew: Skew,
    rng: Mutex<Rng>,
    tasks: Mutex<Vec<AbortHandle>>,
    over: AtomicBool,
    /// While the process is suspended: the tasks that wanted to go on.
    suspended: Mutex<Option<Suspended>>,
    /// For how long it was, before.
    was_suspended: Mutex<Duration>,
}

struct Suspended {
    since: Instant,
    tasks: Vec<Waker>,
}

impl Life {
    /// A life; `start` is when the run began.
    pub fn new(start: Instant, skew: Skew, seed: u64) -> Arc<Self> {
        let (rng, tasks) = (Mutex::new(Rng::new(seed)), Mutex::default());
        Arc::new(Self {
            start,
            skew,
            rng,
            tasks,
            over: AtomicBool::new(false),
            suspended: Mutex::default(),
            was_suspended: Mutex::default(),
        })
    }

    /// What the engine gets.
    pub fn environment(self: &Arc<Self>) -> Environment {
        Environment::new(Arc::clone(self) as Arc<dyn World>)
    }

    /// Suspends the process: all clocks go on, and nothing else does.
    pub fn suspend(&self) {
        let suspended = || Suspended { since: Instant::now(), tasks: Vec::new() };
        self.suspended.lock().unwrap().get_or_insert_with(suspended);
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended.lock().unwrap().is_some()
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let Some(Suspended { since, tasks }) = self.suspended.lock().unwrap().take() else { return };
        *self.was_suspended.lock().unwrap() += since.elapsed();
        tasks.into_iter().for_each(Waker::wake);
    }

    /// Ends all tasks, at whatever point they are.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut *self.tasks.lock().unwrap()) {
            task.abort();
        }
    }
}

impl World for Life {
    fn wall_ms(&self) -> u64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap();
        u64::try_from(EPOCH_MS + elapsed + self.skew.0.load(Ordering::Relaxed)).unwrap()
    }

    fn random(&self) -> u64 {
        self.rng.lock().unwrap().next_u64()
    }

    fn suspended(&self) -> Duration {
        let since =
            self.suspended.lock().unwrap().as_ref().map_or(Duration::ZERO, |suspended| suspended.since.elapsed());
        *self.was_suspended.lock().unwrap() + since
    }

    fn suspends(&self, task: &Waker) -> bool {
        let mut suspended = self.suspended.lock().unwrap();
        suspended.as_mut().map(|suspended| suspended.tasks.push(task.clone())).is_some()
    }

    fn spawned(&self, task: AbortHandle) {
        if self.over.load(Ordering::Relaxed) {
            return task.abort();
        }
        let mut tasks = self.tasks.lock().unwrap();
        if tasks.len() % 256 == 255 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }
}
