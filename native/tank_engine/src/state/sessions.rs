//! How is a request applied once, however often and however late it arrives?
//!
//! A client numbers its requests. With each request it sends the session's floor: the number below which it will never
//! ask again. Requests from the floor on are remembered, also those that were refused or changed nothing. A repeated
//! request gets the same answer. A request below the floor is refused: its caller has stopped waiting, and it may have
//! been applied and forgotten. Commands that cannot change anything are not remembered.
//!
//! ```text
//! unknown ── first request ──> known ── no request for SESSION_MS, or too many sessions ──> forgotten
//!                               floor rises with each request                                horizon rises
//! ```
//!
//! A session ends by the time in the log. A request of an unknown session is either the first of a new client, or a
//! late one of a client whose session was forgotten. The time that its client knew when it made the request tells them
//! apart ([`crate::command::Request::seen_ms`]). A request is applied later in the log than what its client had seen,
//! so its session lasted at least until then. The horizon is the end of the last forgotten session. A request that was
//! made before the horizon is refused; one that was made after it was never applied.
//!
//! After D. Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.3.
//!
//! Everything here is a function of the log. On disk, each applied batch adds one record with the requests that it
//! remembers, and writes the record of each session concerned. A record is removed once all its requests are forgotten.

#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::command::RequestId;
use crate::mutants;
use crate::outcome::{Outcome, Refusal};

use super::Digest;

/// A client that asked nothing for this long, by the time in the log, is forgotten. Retries end
/// within a call's timeout, which is a day at the most.
pub const SESSION_MS: u64 = 25 * 3_600_000;

/// The most requests kept for one client. More in flight than a store allows; it bounds what a
/// faulty client, which never says what is resolved, can make us keep.
const REQUESTS_MAX: usize = 200_000;

/// The most sessions, and the most requests in all of them: the session that asked nothing for
/// longest is forgotten first. Each opening of a store begins one.
const SESSIONS_MAX: usize = 10_000;
const REQUESTS_IN_ALL_MAX: usize = 1_000_000;

/// All clients' applied requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sessions {
    clients: HashMap<u64, Session>,
    /// By when they asked something last.
    by_age: BTreeSet<(u64, u64)>,
    /// How many remembered requests are in each record on disk.
    records: BTreeMap<u64, usize>,
    /// How many there are in all.
    remembered: usize,
    dead_records: BTreeSet<u64>,
    /// The clients whose own record on disk is not what it should be.
    changed: BTreeSet<u64>,
    /// A request that was made before may be of a session that was forgotten.
    horizon_ms: u64,
    digest: Digest,
}

#[derive(Clone, Debug, PartialEq)]
struct Session {
    record: SessionRecord,
    /// By sequence.
    applied: BTreeMap<u64, Kept>,
}

/// What an applied request gave, and the record on disk that it is in.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    revision: u64,
    outcome: Option<Box<Outcome>>,
    record: u64,
}

/// One remembered request, as it is written to disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which request.
    pub id: RequestId,
    /// The revision that it gave.
    pub revision: u64,
    /// Its outcome, if that is more than the revision.
    pub outcome: Option<Box<Outcome>>,
    /// The time in the log.
    pub time_ms: u64,
}

/// One session without its requests, as it is written to disk. Times are those in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// When it began. A client that was forgotten may begin again: requests that were remembered
    /// before do not count.
    since_ms: u64,
    /// The horizon when it began. A request that was made before it may be of a session that was forgotten, and may
    /// have been applied then.
    horizon_ms: u64,
    /// When it asked something last.
    last_ms: u64,
    /// It will never again ask for a sequence below this one.
    floor: u64,
}

/// What a request is to those before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Presented {
    /// It was not applied yet.
    New,
    /// It was applied before, and gave this.
    Repeated(Outcome),
    /// It must not be applied: nobody can tell whether it was.
    Late(Refusal),
}

impl Sessions {
    /// Looks at a request that was made when the log's time was `seen_ms`, and notes what it says
    /// about its client.
    pub fn present(&mut self, id: RequestId, seen_ms: u64, now_ms: u64) -> Presented {
        self.expire(now_ms);
        let record = match self.clients.get(&id.client).map(|session| session.record) {
            Some(record) if id.sequence < record.floor && !mutants::is("late_duplicate") => {
                return Presented::Late(Refusal::MovedOn);
            }
            Some(record) if seen_ms.min(now_ms) < record.horizon_ms && !self.remembers(id) => {
                return Presented::Late(Refusal::SessionEnded { log_ms: now_ms });
            }
            Some(record) => SessionRecord { last_ms: now_ms, floor: record.floor.max(id.resolved_below), ..record },
            None if seen_ms.min(now_ms) < self.horizon_ms => {
                return Presented::Late(Refusal::SessionEnded { log_ms: now_ms });
            }
            None => {
                let horizon_ms = self.horizon_ms;
                SessionRecord { since_ms: now_ms, horizon_ms, last_ms: now_ms, floor: id.resolved_below }
            }
        };
        self.set(id.client, record);
        self.forget_others(id.client);
        let kept = self.clients.get(&id.client).and_then(|session| session.applied.get(&id.sequence));
        kept.map_or(Presented::New, |kept| {
            let outcome = kept.outcome.as_deref().cloned();
            Presented::Repeated(outcome.unwrap_or(Outcome::Done { revision: kept.revision }))
        })
    }

    fn remembers(&self, id: RequestId) -> bool {
        self.clients.get(&id.client).is_some_and(|session| session.applied.contains_key(&id.sequence))
    }

    /// Remembers a request that was presented and applied, as part of the record number `record`.
    /// Returns whether it did: a client that contradicts itself may ask for what it said it never would.
    pub fn remember(&mut self, remembered: Remembered, record: u64) -> bool {
        let Remembered { id, revision, outcome, time_ms } = remembered;
        let Some(session) = self.clients.get_mut(&id.client) else { return false };
        if id.sequence < session.record.floor || time_ms < session.record.since_ms {
            return false;
        }
        let kept = Kept { revision, outcome, record };
        let replaced = session.applied.insert(id.sequence, kept).map(|old| (id.sequence, old));
        self.digest.add(request_hash(id.client, id.sequence, revision));
        self.remembered += 1;
        *self.records.entry(record).or_default() += 1;
        self.dead_records.remove(&record);
        self.forget_all(id.client, replaced);
        self.keep_within(id.client);
        true
    }

    /// Replaces what a request that is remembered gave.
    pub fn set_outcome(&mut self, id: RequestId, outcome: Option<Box<Outcome>>) {
        let session = self.clients.get_mut(&id.client);
        if let Some(kept) = session.and_then(|session| session.applied.get_mut(&id.sequence)) {
            kept.outcome = outcome;
        }
    }

    /// Takes over a session read from a disk or a snapshot. Its requests come later, by
    /// [`Sessions::remember`], which passes over those that were forgotten.
    pub fn load(&mut self, client: u64, record: SessionRecord) {
        self.set(client, record);
    }

    /// Ends the loading: what is on the disk is what is here.
    pub fn loaded(&mut self, horizon_ms: u64) {
        self.horizon_ms = horizon_ms;
        self.changed.clear();
    }

    /// The sessions whose records on disk are to be written; `None`: it has ended.
    pub fn take_changed(&mut self) -> Vec<(u64, Option<SessionRecord>)> {
        let record = |client| self.clients.get(&client).map(|session| session.record);
        std::mem::take(&mut self.changed).into_iter().map(|client| (client, record(client))).collect()
    }

    /// The records that nothing remembered is in any more; each is named once.
    pub fn take_dead_records(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.dead_records).into_iter().collect()
    }

    /// How many records on disk something remembered is in.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// The numbers of those records.
    pub fn record_numbers(&self) -> impl Iterator<Item = u64> {
        self.records.keys().copied()
    }

    /// The clients that are known.
    pub fn client_ids(&self) -> impl Iterator<Item = u64> {
        self.clients.keys().copied()
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.remembered
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.remembered == 0
    }

    /// How many clients are known.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// A request that was made before, by the time in the log, may be of a session that was forgotten.
    pub fn horizon_ms(&self) -> u64 {
        self.horizon_ms
    }

    /// A hash of all sessions and of their requests that are remembered: equal on members that have
    /// applied the same log.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Forgets the clients that asked nothing for long.
    fn expire(&mut self, now_ms: u64) {
        while let Some((last_ms, client)) = self.by_age.first().copied()
            && now_ms.saturating_sub(last_ms) > SESSION_MS
        {
            self.end(client);
        }
    }

    /// Forgets the oldest clients but `client` while there are too many, or too many requests.
    fn forget_others(&mut self, client: u64) {
        while self.clients.len() > SESSIONS_MAX || self.remembered > REQUESTS_IN_ALL_MAX {
            let Some((_, oldest)) = self.by_age.iter().copied().find(|(_, other)| *other != client) else { return };
            self.end(oldest);
        }
    }

    /// Forgets requests while `client`, or all together, keep too many.
    fn keep_within(&mut self, client: u64) {
        self.forget_others(client);
        let Some(session) = self.clients.get(&client) else { return };
        if session.applied.len() > REQUESTS_MAX
            && let Some((first, _)) = session.applied.first_key_value()
        {
            // What is forgotten is refused from now on.
            self.set(client, SessionRecord { floor: first.saturating_add(1), ..session.record });
        }
    }

    /// Ends a session.
    fn end(&mut self, client: u64) {
        let Some(Session { record, applied }) = self.clients.remove(&client) else { return };
        self.by_age.remove(&(record.last_ms, client));
        self.digest.remove(record.hash(client));
        self.changed.insert(client);
        // One of its requests may have been made in its last millisecond.
        self.horizon_ms = self.horizon_ms.max(record.last_ms.saturating_add(1));
        self.forget_all(client, applied);
    }

    /// Makes a session what `record` says, and forgets its requests below the floor.
    fn set(&mut self, client: u64, record: SessionRecord) {
        match self.clients.entry(client) {
            Entry::Vacant(vacant) => {
                vacant.insert(Session { record, applied: BTreeMap::new() });
            }
            Entry::Occupied(mut occupied) => {
                let session = occupied.get_mut();
                if session.record == record {
                    return;
                }
                self.digest.remove(session.record.hash(client));
                self.by_age.remove(&(session.record.last_ms, client));
                session.record = record;
            }
        }
        self.digest.add(record.hash(client));
        self.by_age.insert((record.last_ms, client));
        self.changed.insert(client);
        while let Some(request) = self.take_below_floor(client) {
            self.forget_all(client, [request]);
        }
    }

    /// Takes out the first request of a client, if that is below the floor. Each request of the client raises the floor,
    /// most by one: what stays is not moved.
    fn take_below_floor(&mut self, client: u64) -> Option<(u64, Kept)> {
        let session = self.clients.get_mut(&client)?;
        let first = session.applied.first_entry()?;
        (*first.key() < session.record.floor).then(|| first.remove_entry())
    }

    /// Notes that these requests are not kept any more.
    fn forget_all(&mut self, client: u64, requests: impl IntoIterator<Item = (u64, Kept)>) {
        for (sequence, kept) in requests {
            self.digest.remove(request_hash(client, sequence, kept.revision));
            self.remembered -= 1;
            let Some(live) = self.records.get_mut(&kept.record) else { continue };
            *live -= 1;
            if *live == 0 {
                self.records.remove(&kept.record);
                self.dead_records.insert(kept.record);
            }
        }
    }
}

impl SessionRecord {
    fn hash(&self, client: u64) -> u64 {
        hash([client, self.since_ms, self.horizon_ms, self.last_ms, self.floor])
    }
}

fn request_hash(client: u64, sequence: u64, revision: u64) -> u64 {
    // No session asked something at that time.
    hash([client, sequence, revision, u64::MAX, 0])
}

fn hash(numbers: [u64; 5]) -> u64 {
    let mut bytes = [0; 40];
    for (to, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
        *to = number.to_be_bytes();
    }
    xxh3_64(&bytes)
}
