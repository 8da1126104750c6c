//! Large commands are sent before their log entries.
//!
//! The log has one order: a small write that is logged after a large one cannot be committed before it, and on a slow
//! link that takes seconds. So the leader first sends a large command to a quorum. Small writes overtake it meanwhile.
//! Then the leader adds the command to the log. The members of that quorum get only the request's id in the log entry,
//! the others the whole command.
//!
//! ```text
//! leader --Hold--> members of a quorum      small writes continue
//! leader --Append: Held--> these members    the entry is in the log; the others get it whole
//! ```
//!
//! Held commands are in memory only, and may be lost: then the entry is sent whole. The safety of raft does not depend
//! on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use openraft::EntryPayload;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftEntry;
use tokio::time::{Instant, sleep, timeout_at};

use crate::command::{Command, Request, RequestId};
use crate::log::Staging;
use crate::runtime;
use crate::sync::lock;

use crate::peers::Lane;
use crate::peers::message::{AHEAD_BYTES_MIN, Answer, Call, NotWritten, SentEntry, Written};
use crate::peers::rpc::{self, Rpc, Wait};

use super::{LogEntry, Member, MemberId, Raft, server};

/// What commands that are held may take up. The oldest go first: they were given up.
const HELD_BYTES_MAX: usize = 256 << 20;

/// When another member is asked too, if one makes no progress.
const ANOTHER_AFTER: Duration = Duration::from_secs(1);

/// A request, whatever it says of others.
type Id = (u64, u64);

/// The commands that this member holds for a leader, and those that others hold for this member.
pub(crate) struct Seeds {
    rpc: Arc<Rpc>,
    me: MemberId,
    staging: Staging,
    held: Mutex<Held>,
    given: Mutex<BTreeMap<Id, BTreeSet<MemberId>>>,
}

#[derive(Default)]
struct Held {
    commands: BTreeMap<Id, (u64, Command)>,
    /// In the order in which they came.
    order: BTreeMap<u64, RequestId>,
    next: u64,
    bytes: usize,
}

impl Seeds {
    pub(crate) fn new(rpc: Arc<Rpc>, me: MemberId, staging: Staging) -> Self {
        Self { rpc, me, staging, held: Mutex::default(), given: Mutex::default() }
    }

    /// Writes through this member's raft core, if it leads. A large command goes ahead first, to others and to the
    /// disk; that takes no longer than `within`.
    pub(crate) async fn write(
        &self,
        raft: &Raft,
        request: Arc<Request>,
        within: Duration,
    ) -> Result<Written, NotWritten> {
        if request.command.size() < AHEAD_BYTES_MIN {
            return server::write(raft, request).await;
        }
        let _given = Given { seeds: self, id: request.id };
        let ahead = join(self.send_ahead(raft, &request), self.staging.stage(&request));
        match timeout_at(Instant::now() + within, ahead).await {
            Ok((Ok(()), ())) => server::write(raft, request).await,
            Ok((Err(error), ())) => Err(error),
            Err(_) => Err(NotWritten::NotLeader),
        }
    }

    /// Has a quorum hold the command of `request`.
    async fn send_ahead(&self, raft: &Raft, request: &Request) -> Result<(), NotWritten> {
        let (quorums, mut others) = self.voters(raft)?;
        let id = key(request.id);
        let given = |holders: &BTreeSet<MemberId>| quorums.iter().all(|voters| is_majority(voters, holders));
        let holders = || {
            let mut holders = lock(&self.given).get(&id).cloned().unwrap_or_default();
            holders.insert(self.me);
            holders
        };
        if given(&holders()) {
            return Ok(());
        }
        let call = Call::Hold { id: request.id, command: request.command.clone() };
        let body = runtime::offload(move || rpc::encode(&call)).await;
        let Ok(Ok(body)) = body else { return Err(NotWritten::NotLeader) };
        let mut asking = FuturesUnordered::new();
        let mut asked = holders();
        loop {
            // No more than are needed: all share the leader's way out.
            while !given(&asked)
                && let Some((member_id, member)) = others.pop()
            {
                if asked.insert(member_id) {
                    let body = body.clone();
                    asking.push(async move {
                        let held = self.rpc.call_encoded(member_id, &member, Lane::Bulk, body, Wait::WhileAlive).await;
                        (member_id, matches!(held, Ok(Answer::Held)))
                    });
                }
            }
            if asking.is_empty() {
                return Err(NotWritten::NotLeader);
            }
            tokio::select! {
                biased;
                Some((member_id, held)) = asking.next() => {
                    if held {
                        lock(&self.given).entry(id).or_default().insert(member_id);
                    } else {
                        asked.remove(&member_id);
                    }
                    if given(&holders()) {
                        return Ok(());
                    }
                }
                () = sleep(ANOTHER_AFTER) => {
                    let slow: Vec<MemberId> = asked.iter().copied().filter(|id| !self.makes_progress(*id)).collect();
                    // They may still come to hold it; they are not counted on.
                    asked.retain(|id| !slow.contains(id));
                }
            }
        }
    }

    fn makes_progress(&self, id: MemberId) -> bool {
        id == self.me || self.rpc.has_moved_within(id, ANOTHER_AFTER)
    }

    /// The sets of voters that each need a majority, and the others among them, the best one last.
    #[allow(clippy::type_complexity)]
    fn voters(&self, raft: &Raft) -> Result<(Vec<BTreeSet<MemberId>>, Vec<(MemberId, Member)>), NotWritten> {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref().ok_or(NotWritten::NotLeader)?;
        let membership = metrics.membership_config.membership();
        let matched = |id: MemberId| replication.get(&id).and_then(Option::as_ref).map(|log_id| log_id.index());
        let mut others: Vec<(MemberId, Member)> = membership
            .voter_ids()
            .filter(|id| *id != self.me)
            .filter_map(|id| Some((id, membership.get_node(&id)?.clone())))
            .collect();
        others.sort_by_key(|(id, _)| (matched(*id), self.rpc.has_moved_within(*id, ANOTHER_AFTER)));
        Ok((membership.get_joint_config().clone(), others))
    }

    /// The member `from` holds the command of a request that it forwarded.
    pub(super) fn holds(&self, from: MemberId, request: &Request) {
        if request.command.size() >= AHEAD_BYTES_MIN {
            lock(&self.given).entry(key(request.id)).or_default().insert(from);
        }
    }

    /// Holds the command of a request for a leader, in memory and on the disk.
    pub(crate) async fn hold(&self, request: &Request) {
        let displaced = lock(&self.held).insert(request.id, request.command.clone());
        displaced.into_iter().for_each(|id| self.staging.unstage(id));
        self.staging.stage(request).await;
    }

    /// Writes the command of a request to the disk, if it is so large that smaller ones should pass it.
    pub(crate) async fn stage(&self, request: &Request) {
        self.staging.stage(request).await;
    }

    /// Whether a request is large: then [`Seeds::hold`] spares its entry to bring it back, if the leader is another
    /// member.
    pub(crate) fn is_large(request: &Request) -> bool {
        request.command.size() >= AHEAD_BYTES_MIN
    }

    /// Holds a command no longer.
    pub(crate) fn let_go(&self, id: RequestId) {
        lock(&self.held).remove(key(id));
        self.staging.unstage(id);
    }

    /// A log entry as it is sent to a member.
    pub(super) fn pack(&self, to: MemberId, entry: LogEntry) -> SentEntry {
        let log_id = entry.log_id();
        match &entry.payload {
            EntryPayload::Normal(request)
                if request.command.size() >= AHEAD_BYTES_MIN
                    && lock(&self.given).get(&key(request.id)).is_some_and(|holders| holders.contains(&to)) =>
            {
                SentEntry::Held { log_id, id: request.id, time_ms: request.time_ms, seen_ms: request.seen_ms }
            }
            _ => SentEntry::Whole(entry),
        }
    }

    /// A log entry that was sent; `None` when its command is not held.
    pub(super) fn unpack(&self, sent: SentEntry) -> Option<LogEntry> {
        match sent {
            SentEntry::Whole(entry) => Some(entry),
            SentEntry::Held { log_id, id, time_ms, seen_ms } => {
                let command = lock(&self.held).get(key(id))?;
                Some(LogEntry::new_normal(log_id, Arc::new(Request { id, time_ms, command, seen_ms })))
            }
        }
    }

    /// The member `to` holds none of these any more.
    pub(super) fn forget(&self, to: MemberId, entries: &[LogEntry]) {
        let mut given = lock(&self.given);
        for entry in entries {
            if let EntryPayload::Normal(request) = &entry.payload
                && let Some(holders) = given.get_mut(&key(request.id))
            {
                holders.remove(&to);
            }
        }
    }
}

/// Forgets who holds a command when its write ends, also when its caller gives up.
struct Given<'a> {
    seeds: &'a Seeds,
    id: RequestId,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        lock(&self.seeds.given).remove(&key(self.id));
        self.seeds.staging.unstage(self.id);
    }
}

impl Held {
    /// Adds a command; the oldest ones that have to go for it.
    fn insert(&mut self, id: RequestId, command: Command) -> Vec<RequestId> {
        self.remove(key(id));
        self.bytes += command.size();
        self.commands.insert(key(id), (self.next, command));
        self.order.insert(self.next, id);
        self.next += 1;
        let mut displaced = Vec::new();
        while self.bytes > HELD_BYTES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.remove(key(oldest));
            displaced.push(oldest);
        }
        displaced
    }

    fn get(&self, id: Id) -> Option<Command> {
        self.commands.get(&id).map(|(_, command)| command.clone())
    }

    fn remove(&mut self, id: Id) {
        if let Some((at, command)) = self.commands.remove(&id) {
            self.order.remove(&at);
            self.bytes -= command.size();
        }
    }
}

fn key(id: RequestId) -> Id {
    (id.client, id.sequence)
}

fn is_majority(voters: &BTreeSet<MemberId>, holders: &BTreeSet<MemberId>) -> bool {
    voters.intersection(holders).count() * 2 > voters.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::Write;
    use crate::key::Key;

    fn command(bytes: usize) -> Command {
        Command::Put(Write::new(Key::of(&[]), Bytes::from(vec![1; bytes])))
    }

    fn id(sequence: u64) -> RequestId {
        RequestId { client: 1, sequence, resolved_below: 0 }
    }

    #[test]
    fn the_oldest_held_commands_go_when_there_are_too_many() {
        let mut held = Held::default();
        for sequence in 0..10 {
            held.insert(id(sequence), command(HELD_BYTES_MAX / 4));
        }
        let left: Vec<u64> = held.commands.keys().map(|(_, sequence)| *sequence).collect();
        assert_eq!(left, [6, 7, 8, 9]);
        held.insert(id(9), command(10));
        held.remove((1, 6));
        held.remove((1, 8));
        held.remove((1, 7));
        held.remove((1, 9));
        assert_eq!((held.bytes, held.order.len()), (0, 0));
    }
}
