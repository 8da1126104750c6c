//! Writes on their way into the raft core: bounded, numbered, answered once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use openraft::errors::{ClientWriteError, Fatal};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::command::{Command, Request, RequestId};
use crate::environment::wall_ms;
use crate::error::EngineError;
use crate::faults;
use crate::health::Health;
use crate::log::{AtOnce, DETACHED_BYTES_MIN};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::peers::AHEAD_BYTES_MIN;
use crate::runtime::{self, Runtime};
use crate::sync::lock;
use crate::types::{Responder, Types, WriteResult};

use super::calls::Reply;
use super::forward::{Forwarded, Group, Late, late};
use super::leader::LeaderClient;

/// How many writes the ingress task takes at a time.
const TAKE_MAX: usize = 256;

/// The largest write that the raft core's task may wait for itself: more takes longer than a sync.
const AT_ONCE_BYTES_MAX: usize = 64 << 10;

/// So many writes one after the other are taken for those of a single writer. Of two writers, the one
/// that comes second would wait until the first has its answer, though only the disk is busy.
const SINGLE_WRITER_AFTER: u32 = 16;

/// How often the writes that the raft core has are looked at, while it has some.
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// The way in for writes.
pub(super) struct Ingress {
    queue: mpsc::UnboundedSender<Pending>,
    bounds: Arc<Bounds>,
    client: u64,
}

struct Bounds {
    /// A write came while there was none.
    came: Arc<Notify>,
    writes: AtomicUsize,
    bytes: AtomicUsize,
    writes_max: usize,
    bytes_max: usize,
    sequences: Mutex<Sequences>,
    health: Arc<Health>,
}

/// Which of this client's requests are still open.
#[derive(Default)]
struct Sequences {
    next: u64,
    /// Every sequence below is resolved.
    resolved_below: u64,
    /// From `resolved_below` on; `None` for one that is resolved.
    open: VecDeque<Option<Open>>,
}

/// A write that is not answered yet.
struct Open {
    reply: Reply<Outcome>,
    bytes: usize,
    /// When the raft core must have answered; `None` when that is looked after elsewhere.
    deadline: Option<Instant>,
}

/// A write that was let in. However it ends, its place becomes free and its caller hears of it.
pub(super) struct Pending {
    command: Option<Command>,
    id: RequestId,
    pub(super) bytes: usize,
    /// Nothing else was on its way when it came.
    alone: bool,
    /// Until then the leader is asked.
    pub(super) deadline: Instant,
    bounds: Arc<Bounds>,
}

impl Ingress {
    pub(super) fn start(
        runtime: &Runtime,
        leader: LeaderClient,
        at_once: AtOnce,
        client: u64,
        options: &Options,
        health: &Arc<Health>,
    ) -> Self {
        let (queue, pending) = mpsc::unbounded_channel();
        let bounds = Arc::new(Bounds {
            came: Arc::default(),
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writes_max: options.in_flight_max,
            bytes_max: options.in_flight_bytes_max,
            sequences: Mutex::default(),
            health: Arc::clone(health),
        });
        runtime.spawn("ingress", health, feed(pending, leader, at_once));
        runtime.spawn("ingress-deadlines", health, tell_in_time(Arc::downgrade(&bounds)));
        Self { queue, bounds, client }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.bounds.writes.load(Ordering::Relaxed) as u64
    }

    pub(super) fn submit(
        &self,
        command: Command,
        timeout: Duration,
        reply: Reply<Outcome>,
    ) -> Result<(), (EngineError, Reply<Outcome>)> {
        let bytes = command.size();
        let alone = match self.bounds.take(bytes) {
            Ok(others) => others == 0,
            Err(error) => return Err((error, reply)),
        };
        let deadline = Instant::now() + timeout;
        let id = self.bounds.number(self.client, Open { reply, bytes, deadline: Some(deadline) });
        let bounds = Arc::clone(&self.bounds);
        let pending = Pending { command: Some(command), id, bytes, alone, deadline, bounds };
        let Err(unsent) = self.queue.send(pending) else { return Ok(()) };
        // Nobody listens any more. The caller is told by what is returned: a reply must not be
        // sent from within the call.
        let reply = self.bounds.resolve(unsent.0.id.sequence);
        let error = self.bounds.health.check().err().unwrap_or(EngineError::Closed);
        reply.map_or(Ok(()), |reply| Err((error, reply)))
    }
}

/// Feeds the raft core. Ends when the store is closed or the core is gone.
async fn feed(mut queue: mpsc::UnboundedReceiver<Pending>, leader: LeaderClient, at_once: AtOnce) {
    let leader = Arc::new(leader);
    let mut taken = Vec::with_capacity(TAKE_MAX);
    let mut single_writer = SingleWriter::default();
    while queue.recv_many(&mut taken, TAKE_MAX).await > 0 {
        faults::point("ingress");
        // Before any of them is proposed: what applies them is later in the log.
        let seen_ms = leader.authority.published().load().log_time.now_ms();
        let time_ms = wall_ms();
        if single_writer.seen(is_alone(&taken)) && leader.authority.is_alone() {
            at_once.ask();
        }
        // The raft core would refuse them one by one.
        let is_elsewhere = leader.is_elsewhere();
        let mut group = Group::new(&leader);
        for mut pending in taken.drain(..) {
            let Some(command) = pending.command.take() else { continue };
            let request = Arc::new(Request { id: pending.id, time_ms, command, seen_ms });
            if pending.bytes >= AHEAD_BYTES_MIN && !leader.authority.is_alone() {
                // Others have to hold it before it is logged.
                pending.forward(Arc::clone(&leader), request, false);
            } else if is_elsewhere {
                group.add(pending, request);
            } else if pending.bytes >= DETACHED_BYTES_MIN {
                pending.stage(Arc::clone(&leader), request);
            } else if pending.propose(&leader, request).await.is_err() {
                return;
            }
        }
        group.send();
    }
}

/// Answers writes that the raft core has for too long: it keeps what it cannot commit until it hears of another
/// leader. Ends with the store.
async fn tell_in_time(bounds: Weak<Bounds>) {
    loop {
        let came = {
            let Some(bounds) = bounds.upgrade() else { return };
            Arc::clone(&bounds.came)
        };
        came.notified().await;
        loop {
            let Some(bounds) = bounds.upgrade() else { return };
            let now = Instant::now();
            let over = bounds.take_over(now);
            for reply in over {
                reply.send(Err(bounds.lost()));
            }
            let next = bounds.next_deadline();
            drop(bounds);
            let Some(next) = next else { break };
            tokio::time::sleep_until(next.clamp(now + LOOK_MIN, now + LOOK_MAX)).await;
        }
    }
}

fn is_alone(taken: &[Pending]) -> bool {
    matches!(taken, [one] if one.alone && one.bytes <= AT_ONCE_BYTES_MAX)
}

/// Notices that one writer writes, one thing after the other.
#[derive(Default)]
struct SingleWriter {
    in_a_row: u32,
}

impl SingleWriter {
    /// Whether it does, after what was taken last, which was `alone` or not.
    fn seen(&mut self, alone: bool) -> bool {
        self.in_a_row = if alone { self.in_a_row.saturating_add(1) } else { 0 };
        self.in_a_row > SINGLE_WRITER_AFTER
    }
}

impl Bounds {
    /// Takes a place; how many are taken by others.
    fn take(&self, bytes: usize) -> Result<usize, EngineError> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single write may always go, however large: its size has a limit of its own.
        if writes < self.writes_max && (held == 0 || held.saturating_add(bytes) <= self.bytes_max) {
            return Ok(writes);
        }
        self.give_back(bytes);
        Err(EngineError::Overloaded { limit: self.writes_max })
    }

    fn give_back(&self, bytes: usize) {
        self.writes.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn number(&self, client: u64, open: Open) -> RequestId {
        let mut sequences = lock(&self.sequences);
        let sequence = sequences.next;
        sequences.next += 1;
        sequences.open.push_back(Some(open));
        if sequences.open.len() == 1 {
            self.came.notify_one();
        }
        RequestId { client, sequence, resolved_below: sequences.resolved_below }
    }

    /// Frees the place of a write, whose reply this is. `None` when that has happened before.
    fn resolve(&self, sequence: u64) -> Option<Reply<Outcome>> {
        let open = lock(&self.sequences).resolve(sequence)?;
        self.give_back(open.bytes);
        Some(open.reply)
    }

    /// From now on somebody else looks after the deadline of a write.
    fn leave_deadline(&self, sequence: u64) {
        if let Some(Some(open)) = lock(&self.sequences).slot(sequence) {
            open.deadline = None;
        }
    }

    /// Frees the places of those whose time is over.
    fn take_over(&self, now: Instant) -> Vec<Reply<Outcome>> {
        let mut sequences = lock(&self.sequences);
        let first = sequences.resolved_below;
        let is_over = |open: &Option<Open>| open.as_ref().and_then(|open| open.deadline).is_some_and(|at| at <= now);
        let over: Vec<_> = (first..).zip(&sequences.open).filter(|(_, open)| is_over(open)).map(|(at, _)| at).collect();
        let over: Vec<_> = over.into_iter().filter_map(|sequence| sequences.resolve(sequence)).collect();
        drop(sequences);
        over.into_iter()
            .map(|open| {
                self.give_back(open.bytes);
                open.reply
            })
            .collect()
    }

    /// The next deadline; `None` when nothing is open. A distant one when others look after all.
    fn next_deadline(&self) -> Option<Instant> {
        let sequences = lock(&self.sequences);
        let deadlines = sequences.open.iter().flatten().filter_map(|open| open.deadline);
        let far = || Instant::now() + LOOK_MAX;
        (!sequences.open.is_empty()).then(|| deadlines.min().unwrap_or_else(far))
    }

    /// What the caller of a write is told whose end is not known.
    fn lost(&self) -> EngineError {
        self.health.check().err().unwrap_or(EngineError::Unknown)
    }
}

impl Sequences {
    fn slot(&mut self, sequence: u64) -> Option<&mut Option<Open>> {
        let offset = sequence.checked_sub(self.resolved_below)?;
        self.open.get_mut(usize::try_from(offset).ok()?)
    }

    fn resolve(&mut self, sequence: u64) -> Option<Open> {
        let open = self.slot(sequence)?.take();
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.resolved_below += 1;
        }
        open
    }
}

impl Pending {
    /// Answers, or asks the leader if that is another member.
    fn answer(self, result: WriteResult, (leader, mut request): (Arc<LeaderClient>, Arc<Request>)) {
        // A discarded entry may still be in the log of another member, which may yet lead.
        let maybe_logged = match result {
            Ok(response) => match late(&response.data) {
                None => return self.reply(Ok(response.data)),
                Some(Late::MadeBefore(log_ms)) => {
                    Arc::make_mut(&mut request).seen_ms = log_ms;
                    false
                }
                Some(Late::MovedOn) => return self.reply(Err(EngineError::Unknown)),
            },
            Err(ClientWriteError::ForwardToLeader(_)) => false,
            Err(ClientWriteError::LogEntryDiscarded(_)) => true,
            Err(_) => return self.reply(Err(EngineError::Unknown)),
        };
        self.forward(leader, request, maybe_logged);
    }

    /// Hands a request to the raft core.
    async fn propose(self, leader: &Arc<LeaderClient>, request: Arc<Request>) -> Result<(), Fatal<Types>> {
        let again = (Arc::clone(leader), Arc::clone(&request));
        let responder = Responder::new(move |result| self.answer(result, again));
        leader.raft.client_write_ff(request, Some(responder)).await
    }

    /// Hands a request to the raft core once its command is on the disk: smaller ones go before it meanwhile.
    fn stage(self, leader: Arc<LeaderClient>, request: Arc<Request>) {
        runtime::spawn_here("stage", Arc::clone(&self.bounds.health), async move {
            leader.seeds.stage(&request).await;
            // Without a raft core, whoever waits hears of that when this is dropped.
            drop(self.propose(&leader, request).await);
        });
    }

    /// Asks the leader, wherever it is.
    fn forward(self, leader: Arc<LeaderClient>, request: Arc<Request>, maybe_logged: bool) {
        Forwarded { pending: self, request, leader, maybe_logged }.go();
    }

    /// From now on the deadline is looked after elsewhere.
    pub(super) fn leave_deadline(&self) {
        self.bounds.leave_deadline(self.id.sequence);
    }

    pub(super) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.bounds.health)
    }

    pub(super) fn reply(self, result: Result<Outcome, EngineError>) {
        // Its place is free before its caller can know: whoever writes one after the other needs one.
        if let Some(reply) = self.bounds.resolve(self.id.sequence) {
            reply.send(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(reply) = self.bounds.resolve(self.id.sequence) {
            // The store ended with the write on its way: it may or may not be in the log.
            reply.send(Err(self.bounds.lost()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(writes_max: usize, bytes_max: usize) -> Bounds {
        Bounds {
            came: Arc::default(),
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writes_max,
            bytes_max,
            sequences: Mutex::default(),
            health: Arc::new(Health::new(Box::new(|_| {}))),
        }
    }

    #[test]
    fn bounds_refuse_and_free() {
        let bounds = bounds(2, 100);
        assert!(bounds.take(500).is_ok(), "a single large write goes");
        assert!(bounds.take(1).is_err(), "too many bytes");
        bounds.give_back(500);
        assert!(bounds.take(50).is_ok() && bounds.take(50).is_ok());
        assert_eq!(bounds.take(0), Err(EngineError::Overloaded { limit: 2 }));
    }

    #[test]
    fn a_single_writer_is_noticed_and_a_second_one_at_once() {
        let mut single_writer = SingleWriter::default();
        let mut seen = |alone| single_writer.seen(alone);
        for _ in 0..2 {
            assert!((0..SINGLE_WRITER_AFTER).all(|_| !seen(true)));
            assert!(seen(true) && seen(true));
            assert!(!seen(false));
        }
    }

    #[test]
    fn a_place_tells_how_many_others_are_taken() {
        let bounds = bounds(10, 100);
        assert_eq!((bounds.take(1), bounds.take(1)), (Ok(0), Ok(1)));
        bounds.give_back(1);
        bounds.give_back(1);
        assert_eq!(bounds.take(1), Ok(0));
    }

    fn open(deadline: Option<Instant>) -> Open {
        Open { reply: Reply::new(drop), bytes: 1, deadline }
    }

    #[test]
    fn resolved_below_follows_the_oldest_open_request() {
        let bounds = bounds(10, 10);
        let below = |bounds: &Bounds| bounds.number(1, open(None)).resolved_below;
        assert_eq!((below(&bounds), below(&bounds), below(&bounds)), (0, 0, 0));
        bounds.resolve(1);
        assert_eq!(below(&bounds), 0, "0 is still open");
        bounds.resolve(0);
        assert_eq!(below(&bounds), 2);
        assert!(bounds.resolve(1).is_none(), "once");
    }

    #[test]
    fn writes_whose_time_is_over_give_up_their_places_and_the_others_keep_theirs() {
        let bounds = bounds(10, 10);
        let now = Instant::now();
        for deadline in [Some(now + LOOK_MAX), Some(now), None, Some(now)] {
            bounds.take(1).unwrap();
            bounds.number(1, open(deadline));
        }
        bounds.leave_deadline(3);
        assert_eq!(bounds.take_over(now).len(), 1);
        assert_eq!(bounds.take_over(now).len(), 0);
        assert_eq!(bounds.writes.load(Ordering::Relaxed), 3);
        assert_eq!(bounds.next_deadline(), Some(now + LOOK_MAX));
        assert!(bounds.resolve(1).is_none() && bounds.resolve(0).is_some());
        assert_eq!(bounds.number(1, open(None)).resolved_below, 2);
    }
}
