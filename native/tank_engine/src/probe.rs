//! Measures how late a store's runtime wakes a task: for tests, which show that nothing blocks its thread.
//!
//! A busy machine delays every thread. So a thread of the probe's own sleeps in the same rhythm, and counts: of the
//! time that a task was late, only as much counts as that thread was awake for; and, where the system tells it, the
//! time in which the runtime's thread was ready to run and had no processor does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks: tokio's timers are no finer.
const EVERY: Duration = Duration::from_millis(1);

/// Measures until it is dropped.
#[derive(Debug)]
pub struct Probe(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// How often the thread beside it woke.
    beats: AtomicU64,
    looks: AtomicU64,
    worst_us: AtomicU64,
}

impl Probe {
    /// A probe, and the task that measures, for the runtime in question.
    ///
    /// # Errors
    /// There is no thread.
    pub(crate) fn new() -> std::io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let shared = Arc::new(Shared::default());
        let beating = Arc::clone(&shared);
        std::thread::Builder::new().name("tank-probe".to_owned()).spawn(move || {
            while !beating.ended.load(Ordering::Relaxed) {
                std::thread::sleep(EVERY);
                beating.beats.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok((Self(Arc::clone(&shared)), measure(shared)))
    }

    /// The longest delay since the last call of this.
    pub fn take_worst(&self) -> Duration {
        Duration::from_micros(self.0.worst_us.swap(0, Ordering::Relaxed))
    }

    /// How often it has measured: a task that is never woken shows no delay.
    pub fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

async fn measure(shared: Arc<Shared>) {
    while !shared.ended.load(Ordering::Relaxed) {
        let (began, beats) = (Instant::now(), shared.beats.load(Ordering::Relaxed));
        let (thread, waited) = (std::thread::current().id(), without_processor());
        tokio::time::sleep(EVERY).await;
        let late = began.elapsed().saturating_sub(EVERY);
        // Another thread may run the tasks by now, of which nothing is known.
        let same = std::thread::current().id() == thread;
        let waited = if same { without_processor().saturating_sub(waited) } else { Duration::ZERO };
        let late = late.saturating_sub(waited);
        let awake = EVERY * u32::try_from(shared.beats.load(Ordering::Relaxed) - beats).unwrap_or(u32::MAX);
        let late_us = u64::try_from(late.min(awake).as_micros()).unwrap_or(u64::MAX);
        shared.worst_us.fetch_max(late_us, Ordering::Relaxed);
        shared.looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long this thread was ready to run and had no processor, since it began.
fn without_processor() -> Duration {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns = figures.split_ascii_whitespace().nth(1).and_then(|figure| figure.parse().ok());
    Duration::from_nanos(waited_ns.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
    }

    fn wait_for_looks(probe: &Probe, count: u64) {
        let (from, deadline) = (probe.looks(), Instant::now() + Duration::from_secs(20));
        while probe.looks() < from + count {
            assert!(Instant::now() < deadline, "{} looks", probe.looks());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_probe_notices_a_task_that_blocks_its_worker() {
        let runtime = runtime();
        let (probe, measure) = Probe::new().unwrap();
        runtime.spawn(measure);
        wait_for_looks(&probe, 3);
        let _ = probe.take_worst();
        runtime.block_on(async {
            tokio::spawn(async { std::thread::sleep(Duration::from_millis(200)) }).await.unwrap();
        });
        wait_for_looks(&probe, 2);
        let worst = probe.take_worst();
        assert!(worst > Duration::from_millis(50), "{worst:?}");
    }

    #[test]
    fn a_probe_shows_no_delay_when_what_blocks_lets_the_others_go_on() {
        let runtime = runtime();
        let (probe, measure) = Probe::new().unwrap();
        runtime.spawn(measure);
        wait_for_looks(&probe, 3);
        let _ = probe.take_worst();
        runtime.block_on(async {
            let block = || std::thread::sleep(Duration::from_millis(200));
            tokio::spawn(async move { crate::runtime::blocking(block) }).await.unwrap();
            tokio::spawn(async move { crate::runtime::offload(block).await.unwrap() }).await.unwrap();
        });
        wait_for_looks(&probe, 2);
        let worst = probe.take_worst();
        assert!(worst <= Duration::from_millis(20), "{worst:?}");
    }
}
