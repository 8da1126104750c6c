//! Callers that wait for a leader, and are woken once.
//!
//! ```text
//! callers ──> queue ──> one prober a store ──asks, with pauses──> is there a leader that a majority confirms?
//!               │                                                   │
//!               ├──────────────── all of them, once <───────yes─────┘
//!               └──── each whose time is over
//! ```
//!
//! A caller costs an entry in the queue, and no task: without a majority thousands of them wait, and the thread that
//! they would keep busy has an election to hold.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::peers::Basis;
use crate::sync::lock;

use super::leader::LeaderClient;

/// Between two questions; twice as long after each one, up to the longest. A leader that is new is asked at once.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Questions that are further apart have nothing to do with each other.
const ASKED_LONG_AGO: Duration = Duration::from_secs(1);

/// How long a question is waited for. Others are asked long before.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How much too late a caller may hear that its time is over: those of one moment are told together.
const TOLD_WITHIN: Duration = Duration::from_millis(10);

/// How many are woken before other tasks have their turn.
const WAKE_MAX: usize = 256;

/// Why a caller is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// A leader was just confirmed.
    Leader,
    /// The caller's time is over, or the store ends.
    TimeOver,
}

type Wake = Box<dyn FnOnce(Woken) + Send>;

/// The queue.
#[derive(Default)]
pub(super) struct Callers {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    callers: Vec<(Instant, Wake)>,
    /// Nobody asks any more.
    ended: bool,
}

impl Callers {
    /// Calls `wake` once, when there is a leader again or at `deadline`. For tasks of the store: it may be at once.
    pub(super) fn wait(&self, deadline: Instant, wake: impl FnOnce(Woken) + Send + 'static) {
        let mut waiting = lock(&self.waiting);
        if waiting.ended {
            drop(waiting);
            return wake(Woken::TimeOver);
        }
        waiting.callers.push((deadline, Box::new(wake)));
        if waiting.callers.len() == 1 {
            self.came.notify_one();
        }
    }

    /// Returns when there is a leader again, or at `deadline`.
    pub(super) async fn leader(&self, deadline: Instant) -> Woken {
        let (sender, woken) = oneshot::channel();
        self.wait(deadline, move |why| {
            // It gave up a moment ago.
            let _ = sender.send(why);
        });
        woken.await.unwrap_or(Woken::TimeOver)
    }

    /// When somebody's time is over next; `None` when nobody waits.
    fn earliest(&self) -> Option<Instant> {
        lock(&self.waiting).callers.iter().map(|(deadline, _)| *deadline).min()
    }

    /// Wakes all, or those whose time is over.
    async fn wake(&self, why: Woken) {
        let now = Instant::now();
        let woken: Vec<_> = {
            let callers = &mut lock(&self.waiting).callers;
            callers.extract_if(.., |(deadline, _)| why == Woken::Leader || *deadline <= now).collect()
        };
        // Not under the lock: they may come again at once.
        for (count, (_, wake)) in (1..).zip(woken) {
            wake(why);
            if count % WAKE_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn end(&self) {
        let callers = {
            let mut waiting = lock(&self.waiting);
            waiting.ended = true;
            std::mem::take(&mut waiting.callers)
        };
        callers.into_iter().for_each(|(_, wake)| wake(Woken::TimeOver));
    }
}

/// Asks for those that wait, for as long as the raft core runs. A question does not wait for the answer to the one
/// before: how long that takes is not known.
pub(super) async fn probe(leader: LeaderClient) {
    let callers = Arc::clone(&leader.callers);
    let _ends = Ends(Arc::clone(&callers));
    let mut server = leader.raft.server_metrics();
    let mut questions = FuturesUnordered::new();
    let (mut pause, mut not_before) = (PAUSE_MIN, Instant::now());
    loop {
        let now = Instant::now();
        let Some(next) = callers.earliest() else {
            questions.clear();
            tokio::select! {
                () = callers.came.notified() => continue,
                changed = server.changed() => if changed.is_ok() { continue },
            }
            break;
        };
        if now > not_before + ASKED_LONG_AGO {
            pause = PAUSE_MIN;
        }
        if now >= not_before {
            let leader = leader.clone();
            questions.push(async move { leader.read_index(Basis::Quorum, ANSWER_WITHIN).await.is_some() });
            not_before = now + pause;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        tokio::select! {
            Some(confirmed) = questions.next() => if confirmed {
                callers.wake(Woken::Leader).await;
                questions.clear();
            },
            // It may be a new leader.
            changed = server.changed() => match changed {
                Ok(()) => not_before = Instant::now(),
                Err(_) => break,
            },
            () = sleep_until(not_before.min(next + TOLD_WITHIN)) => callers.wake(Woken::TimeOver).await,
        }
    }
}

/// Ends the queue when the prober ends, also when its task is aborted. The callers in the queue hold the queue: without
/// this nobody would ever drop them, and they would get no answer.
struct Ends(Arc<Callers>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_caller_is_woken_once_by_a_leader_or_when_its_time_is_over() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let callers = Callers::default();
            let counts: Arc<[AtomicUsize; 2]> = Arc::default();
            let wait = |deadline| {
                let counts = Arc::clone(&counts);
                callers.wait(deadline, move |why| {
                    counts[usize::from(why == Woken::Leader)].fetch_add(1, Ordering::Relaxed);
                });
            };
            let woken = || [0, 1].map(|why| counts[why].load(Ordering::Relaxed));
            let now = Instant::now();
            wait(now);
            (0..1_000).for_each(|_| wait(now + Duration::from_secs(60)));
            callers.wake(Woken::TimeOver).await;
            assert_eq!(woken(), [1, 0]);
            callers.wake(Woken::Leader).await;
            assert_eq!(woken(), [1, 1_000]);
            assert_eq!(callers.earliest(), None);
            wait(now + Duration::from_secs(60));
            callers.end();
            wait(now + Duration::from_secs(60));
            assert_eq!(woken(), [3, 1_000], "nobody asks any more");
        });
    }
}
