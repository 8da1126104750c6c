//! What the state was at recent log entries, in a few numbers: members compare them.
//!
//! Members that have applied the same log have the same state. The digest of the state is kept up to date with each
//! change ([`crate::state::Digest`]), so noting it for each log entry costs nothing; two members are compared at the
//! newest log entry that both have noted.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::types::LogId;

/// How many of the newest log entries are noted.
const RECENT: usize = 1_024;

/// Of the older ones every so many, for members that are far apart; and how many of those.
const SPACING: u64 = 1_024;
const SPACED: usize = 64;

/// How many of the newest are sent.
const SENT: usize = 64;

/// The state after a log entry was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) id: LogId,
    pub(crate) revision: u64,
    /// Hash of all entries and leases.
    pub(crate) digest: u64,
    /// Hash of the requests that may be asked again.
    pub(crate) sessions: u64,
}

/// The marks of one member.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    recent: VecDeque<Mark>,
    spaced: VecDeque<Mark>,
}

/// What two members noted at one log entry, when that is not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// What the members noted that the cluster goes by.
    pub(crate) expected: Mark,
    /// What the member noted that differs.
    pub(crate) found: Mark,
}

impl Marks {
    /// Adds what was noted since, in order.
    pub(crate) fn add(&mut self, marks: &[Mark]) {
        for mark in marks {
            if self.recent.len() == RECENT
                && let Some(old) = self.recent.pop_front()
                && old.id.index() % SPACING == 0
            {
                self.spaced.push_back(old);
                if self.spaced.len() > SPACED {
                    self.spaced.pop_front();
                }
            }
            self.recent.push_back(*mark);
        }
    }

    /// Begins again, with another state.
    pub(crate) fn restart(&mut self, mark: Option<Mark>) {
        self.spaced.clear();
        self.recent.clear();
        self.recent.extend(mark);
    }

    /// The newest log entry that is noted.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.recent.back().map(|mark| mark.id.index())
    }

    /// What another member needs to compare, newest first.
    pub(crate) fn sample(&self) -> Vec<Mark> {
        let recent = self.recent.iter().rev();
        let (newest, older) = (recent.clone().take(SENT), recent.skip(SENT));
        let older = older.filter(|mark| mark.id.index() % SPACING == 0);
        newest.chain(older).chain(self.spaced.iter().rev()).copied().collect()
    }

    /// Whether this member noted exactly that.
    pub(crate) fn has(&self, mark: &Mark) -> bool {
        self.at(&mark.id) == Some(mark)
    }

    /// Compares with the sample of another member: `None` when there is no log entry that both noted.
    pub(crate) fn compare(&self, other: &[Mark]) -> Option<Result<(), Difference>> {
        other.iter().find_map(|found| Some((self.at(&found.id)?, found))).map(judge)
    }

    fn at(&self, id: &LogId) -> Option<&Mark> {
        let within = |marks: &VecDeque<Mark>| marks.binary_search_by_key(&id.index(), |mark| mark.id.index()).ok();
        let found = within(&self.recent).and_then(|at| self.recent.get(at));
        found.or_else(|| self.spaced.get(within(&self.spaced)?)).filter(|mark| mark.id == *id)
    }
}

/// Compares two samples.
pub(crate) fn compare(expected: &[Mark], found: &[Mark]) -> Option<Result<(), Difference>> {
    let at = |id: &LogId| expected.iter().find(|mark| mark.id == *id);
    found.iter().find_map(|found| Some((at(&found.id)?, found))).map(judge)
}

fn judge((expected, found): (&Mark, &Mark)) -> Result<(), Difference> {
    if expected == found { Ok(()) } else { Err(Difference { expected: *expected, found: *found }) }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderIdExt;

    use super::*;

    fn mark(index: u64, digest: u64) -> Mark {
        let leader = openraft::impls::leader_id_adv::LeaderId::<u64, u64>::new_committed(1, 1);
        Mark { id: LogId::new(leader, index), revision: index, digest, sessions: 0 }
    }

    fn marks(indexes: std::ops::Range<u64>, digest: u64) -> Marks {
        let mut marks = Marks::default();
        indexes.for_each(|index| marks.add(&[mark(index, digest)]));
        marks
    }

    #[test]
    fn members_are_compared_where_both_have_been() {
        let (leader, equal, differs) = (marks(0..100, 7), marks(40..97, 7), marks(0..99, 8));
        assert_eq!(leader.compare(&equal.sample()), Some(Ok(())));
        let difference = Difference { expected: mark(98, 7), found: mark(98, 8) };
        assert_eq!(leader.compare(&differs.sample()), Some(Err(difference)));
        assert!(differs.has(&difference.found) && !differs.has(&difference.expected));
        assert_eq!(compare(&equal.sample(), &leader.sample()), Some(Ok(())));
        assert_eq!(compare(&differs.sample(), &equal.sample()).map(|compared| compared.is_err()), Some(true));
        assert_eq!(leader.compare(&marks(200..300, 7).sample()), None);
        assert_eq!(leader.compare(&[]), None);
    }

    #[test]
    fn a_member_that_is_far_behind_is_compared_at_an_older_entry() {
        let (leader, behind) = (marks(0..20_000, 7), marks(0..10_500, 8));
        let difference = Difference { expected: mark(10_240, 7), found: mark(10_240, 8) };
        assert_eq!(leader.compare(&behind.sample()), Some(Err(difference)));
        assert!(behind.sample().len() < 200 && leader.sample().len() < 200);
        assert_eq!(marks(0..1_000_000, 7).compare(&behind.sample()), None, "too far behind");
    }

    #[test]
    fn a_state_that_was_replaced_is_compared_from_there_on() {
        let mut member = marks(0..5_000, 8);
        member.restart(Some(mark(5_100, 7)));
        assert_eq!(member.sample(), [mark(5_100, 7)]);
        assert_eq!(marks(0..5_200, 7).compare(&member.sample()), Some(Ok(())));
    }
}
