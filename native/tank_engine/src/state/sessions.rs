//! The requests that were applied and may be asked again.
//!
//! A client numbers its requests, and says with each one below which number it will never ask
//! again. So for each client only the requests that may still be repeated are kept, and a
//! repeated one is answered with what it gave, not applied again. Only requests that changed the
//! state are kept: one that was refused changed nothing and may be judged anew.
//!
//! After D. Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.3.
//!
//! Everything here is a function of the log: expiry goes by the time in it. On disk, each applied
//! batch adds one record with what it remembered; a record goes when all in it is forgotten.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::command::RequestId;
use crate::outcome::Outcome;

/// A client that asked nothing for this long is forgotten. Retries end within a call's timeout,
/// so this only has to exceed the longest one.
pub const SESSION_MS: u64 = 600_000;

/// The most requests kept for one client. More in flight than a store allows; it bounds what a
/// faulty client, which never says what is resolved, can make us keep.
const REQUESTS_MAX: usize = 200_000;

/// All clients' applied requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sessions {
    clients: HashMap<u64, Session>,
    /// How many remembered requests stand in each record on disk.
    records: BTreeMap<u64, usize>,
    dead_records: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Session {
    last_ms: u64,
    /// By sequence.
    applied: BTreeMap<u64, Kept>,
}

/// What an applied request gave, and the record on disk that it stands in.
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

impl Sessions {
    /// What the request gave when it was applied, if it was.
    pub fn find(&self, id: RequestId, now_ms: u64) -> Option<Outcome> {
        let session = self.clients.get(&id.client)?;
        if session.is_over(now_ms) {
            return None;
        }
        let kept = session.applied.get(&id.sequence)?;
        Some(kept.outcome.as_deref().cloned().unwrap_or(Outcome::Done { revision: kept.revision }))
    }

    /// Remembers an applied request, as part of the record number `record`.
    pub fn remember(&mut self, remembered: Remembered, record: u64) {
        let Remembered { id, revision, outcome, time_ms } = remembered;
        let session = self.clients.entry(id.client).or_default();
        let keep_from = if session.is_over(time_ms) { u64::MAX } else { id.resolved_below };
        session.last_ms = session.last_ms.max(time_ms);
        let mut forgotten = session.forget_below(keep_from);
        session.applied.insert(id.sequence, Kept { revision, outcome, record });
        if session.applied.len() > REQUESTS_MAX {
            forgotten.extend(session.applied.pop_first().map(|(_, kept)| kept.record));
        }
        *self.records.entry(record).or_default() += 1;
        self.release(forgotten);
    }

    /// Forgets the clients that asked nothing for long. What it forgets could not be found
    /// anyway, so when it is called makes no difference to any answer.
    pub fn expire(&mut self, now_ms: u64) {
        let mut forgotten = Vec::new();
        self.clients.retain(|_, session| {
            let over = session.is_over(now_ms);
            if over {
                forgotten.extend(session.applied.values().map(|kept| kept.record));
            }
            !over
        });
        self.release(forgotten);
    }

    /// The records that nothing remembered stands in any more; each is named once.
    pub fn take_dead_records(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.dead_records)
    }

    /// How many records on disk something remembered stands in.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.records.values().sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn release(&mut self, records: Vec<u64>) {
        for record in records {
            let Some(live) = self.records.get_mut(&record) else { continue };
            *live -= 1;
            if *live == 0 {
                self.records.remove(&record);
                self.dead_records.push(record);
            }
        }
    }
}

impl Session {
    fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ms) > SESSION_MS
    }

    /// Forgets the requests below `sequence`; returns the record of each.
    fn forget_below(&mut self, sequence: u64) -> Vec<u64> {
        let keep = self.applied.split_off(&sequence);
        let forgotten = std::mem::replace(&mut self.applied, keep);
        forgotten.into_values().map(|kept| kept.record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(client: u64, sequence: u64, resolved_below: u64) -> RequestId {
        RequestId { client, sequence, resolved_below }
    }

    fn at(id: RequestId, time_ms: u64) -> Remembered {
        Remembered { id, revision: id.sequence * 10, outcome: None, time_ms }
    }

    fn done(revision: u64) -> Option<Outcome> {
        Some(Outcome::Done { revision })
    }

    #[test]
    fn a_request_is_found_until_its_client_resolved_it() {
        let mut sessions = Sessions::default();
        sessions.remember(at(id(1, 1, 0), 0), 100);
        sessions.remember(at(id(1, 2, 0), 0), 100);
        assert_eq!(sessions.find(id(1, 1, 0), 0), done(10));
        assert_eq!(sessions.find(id(2, 1, 0), 0), None, "another client's request of that number");
        sessions.remember(at(id(1, 3, 2), 0), 101);
        assert_eq!(sessions.find(id(1, 1, 0), 0), None);
        assert_eq!(sessions.find(id(1, 2, 0), 0), done(20));
        assert_eq!(sessions.take_dead_records(), Vec::<u64>::new());
        sessions.remember(at(id(1, 4, 3), 0), 102);
        assert_eq!(sessions.take_dead_records(), vec![100], "nothing is left in the first record");
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn a_silent_client_is_forgotten_by_the_time_in_the_log() {
        let mut sessions = Sessions::default();
        sessions.remember(at(id(1, 1, 0), 1_000), 100);
        assert_eq!(sessions.find(id(1, 1, 0), 1_000 + SESSION_MS), done(10));
        assert_eq!(sessions.find(id(1, 1, 0), 1_001 + SESSION_MS), None);
        let unexpired = sessions.clone();
        sessions.expire(1_001 + SESSION_MS);
        assert!(sessions.is_empty());
        assert_eq!(sessions.take_dead_records(), vec![100]);
        // Expired or not yet: every answer is the same.
        let mut other = unexpired;
        for sessions in [&mut sessions, &mut other] {
            sessions.remember(at(id(1, 2, 0), 2_000 + SESSION_MS), 101);
            assert_eq!(sessions.find(id(1, 1, 0), 2_000 + SESSION_MS), None);
            assert_eq!(sessions.find(id(1, 2, 0), 2_000 + SESSION_MS), done(20));
        }
    }

    #[test]
    fn a_client_that_resolves_nothing_is_bounded() {
        let mut sessions = Sessions::default();
        for sequence in 0..REQUESTS_MAX as u64 + 10 {
            sessions.remember(at(id(1, sequence, 0), 0), sequence);
        }
        assert_eq!(sessions.len(), REQUESTS_MAX);
        assert_eq!(sessions.find(id(1, 9, 0), 0), None);
        assert_eq!(sessions.find(id(1, 10, 0), 0), done(100));
    }
}
