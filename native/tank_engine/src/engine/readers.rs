//! Reads that have to ask the leader. Readers that wait at the same time share a question.
//!
//! ```text
//! readers --queue--> one task --one question at a time--> leader
//!    ^                   |                                   |
//!    +-- the view has --<+<------------- index --------------+
//! ```
//!
//! A reader may share only a question that is not sent yet. The answer covers what was acknowledged before the leader
//! got the question, and the reader must see what was acknowledged before it asked. So a reader that arrives while a
//! question is in flight shares the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::error::EngineError;
use crate::health::Health;
use crate::peers::Basis;
use crate::runtime::{self, Runtime};

use super::callers::Woken;
use super::calls::Reply;
use super::leader::{LeaderClient, TRY};

/// How many readers the task takes at a time.
const TAKE_MAX: usize = 1024;

/// The way in for reads.
pub(super) struct Readers {
    queue: mpsc::UnboundedSender<Reader>,
}

struct Reader {
    deadline: Instant,
    reply: Reply<()>,
}

/// The task that asks.
struct Asking {
    queue: mpsc::UnboundedReceiver<Reader>,
    leader: LeaderClient,
    health: Arc<Health>,
    /// How long the first try of a question waits for its answer.
    patience: Duration,
}

impl Readers {
    /// `patience`: how soon a question is asked again whose answer may be lost.
    pub(super) fn start(runtime: &Runtime, leader: LeaderClient, patience: Duration, health: &Arc<Health>) -> Self {
        let (sender, queue) = mpsc::unbounded_channel();
        let asking = Asking { queue, leader, health: Arc::clone(health), patience };
        runtime.spawn("readers", health, asking.run());
        Self { queue: sender }
    }

    /// Calls `reply` once the view holds every write that was acknowledged before this call, or
    /// when `timeout` has passed.
    ///
    /// # Errors
    /// Nobody listens any more, since the task has panicked or the store is gone. The caller is told by what is
    /// returned: a reply must not be sent from within the call.
    pub(super) fn wait(&self, timeout: Duration, reply: Reply<()>) -> Result<(), Reply<()>> {
        let reader = Reader { deadline: Instant::now() + timeout, reply };
        self.queue.send(reader).map_err(|unsent| unsent.0.reply)
    }
}

impl Asking {
    /// Runs until the store is gone.
    async fn run(mut self) {
        let mut waiting = Vec::new();
        let mut patience = Duration::ZERO;
        loop {
            if waiting.is_empty() && self.queue.recv_many(&mut waiting, TAKE_MAX).await == 0 {
                return;
            }
            while let Ok(reader) = self.queue.try_recv() {
                waiting.push(reader);
            }
            // The answer takes two round trips where the leader has to ask the others.
            patience = patience.max(self.patience + self.leader.rpc.round_trip_max() * 2);
            if let Some(index) = self.ask(&mut waiting, patience).await {
                self.release(std::mem::take(&mut waiting), index);
                patience = Duration::ZERO;
            } else if let Some(next) = earliest(&waiting) {
                // Not in vain for ever: a leader that is slow may need longer.
                if self.await_leader(&mut waiting, next).await == Woken::TimeOver && Instant::now() < next {
                    // There is no raft core any more.
                    answer(std::mem::take(&mut waiting), &Err(EngineError::NoQuorum));
                }
                patience = (patience * 2).min(TRY);
            }
        }
    }

    /// Waits for a leader until `next`, when the first of those that wait has to be told. Takes others in meanwhile,
    /// and returns when one of them has to be told before.
    async fn await_leader(&mut self, waiting: &mut Vec<Reader>, next: Instant) -> Woken {
        let callers = Arc::clone(&self.leader.callers);
        let leader = callers.leader(next);
        tokio::pin!(leader);
        loop {
            tokio::select! {
                woken = &mut leader => return woken,
                Some(reader) = self.queue.recv() => {
                    let sooner = reader.deadline < next;
                    waiting.push(reader);
                    if sooner {
                        return Woken::Leader;
                    }
                }
            }
        }
    }

    /// Asks once. Meanwhile, those whose time is over are told so.
    async fn ask(&self, waiting: &mut Vec<Reader>, patience: Duration) -> Option<u64> {
        let question = self.leader.read_index(Basis::Lease, patience);
        tokio::pin!(question);
        loop {
            let next = earliest(waiting)?;
            tokio::select! {
                index = &mut question => return index,
                () = sleep_until(next) => expire(waiting, &EngineError::NoQuorum),
            }
        }
    }

    /// Answers the readers when this member's view has the log up to `index`.
    fn release(&self, mut readers: Vec<Reader>, index: u64) {
        if self.leader.has_applied(index) {
            return answer(readers, &Ok(()));
        }
        let leader = self.leader.clone();
        runtime::spawn_here("readers-behind", Arc::clone(&self.health), async move {
            while let Some(next) = earliest(&readers) {
                match leader.await_applied(index, next).await {
                    Err(error) if Instant::now() >= next => expire(&mut readers, &error),
                    ended => return answer(readers, &ended),
                }
            }
        });
    }
}

fn earliest(readers: &[Reader]) -> Option<Instant> {
    readers.iter().map(|reader| reader.deadline).min()
}

/// Tells those whose time is over.
fn expire(readers: &mut Vec<Reader>, error: &EngineError) {
    let now = Instant::now();
    let over = readers.extract_if(.., |reader| reader.deadline <= now).collect();
    answer(over, &Err(error.clone()));
}

fn answer(readers: Vec<Reader>, result: &Result<(), EngineError>) {
    for reader in readers {
        reader.reply.send(result.clone());
    }
}
