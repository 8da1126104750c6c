//! What must hold from one history of a store to the next: nothing that anybody has seen comes again.

use std::collections::BTreeMap;

use tank_engine::view::View;

use super::{Asked, Fate, Oracle, path_of, serial_of};

/// Somebody who was granted a lease in a former history.
#[derive(Clone, Debug)]
pub struct FormerHolder {
    pub lease: String,
    pub epoch: u64,
}

impl Oracle {
    /// The store goes on in another history from `view`, which has to be what `revision` of the former one was.
    pub fn begins_another_history(&self, view: &View, revision: u64) {
        let expected = self.expected_at(revision);
        let entries: Vec<_> = view
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((path_of(key), serial_of(&entry.payload.in_memory()?)?, entry.revision)))
            .collect();
        let held: BTreeMap<String, u64> = entries.iter().map(|(path, serial, _)| (path.clone(), *serial)).collect();
        if held != expected {
            self.finds(format!("another history begins with {held:?}, and not with {expected:?}"));
        }
        let seen = self.highest_seen();
        if view.history.since <= seen {
            self.finds(format!("a history begins at {}, and {seen} was seen before", view.history.since));
        }
        let mut inner = self.0.lock().unwrap();
        let inner = &mut *inner;
        (inner.since, inner.floor) = (view.history.since, view.history.since);
        inner.former_epoch = inner.epochs.keys().next_back().copied().unwrap_or_default();
        // Of leases that were granted since, the store knows nothing. Their holders' writes are refused.
        inner.beliefs.retain(|belief| belief.epoch <= revision);
        inner.history.clear();
        inner.placed.clear();
        inner.reads.clear();
        inner.checks.clear();
        inner.streams.clear();
        inner.digests.clear();
        let mut asked = std::mem::take(&mut inner.asked);
        for (path, serial, revision) in entries {
            inner.placed.insert(serial, revision);
            inner.history.entry(revision).or_default().push((path, Some(serial)));
            if let Some(asked) = asked.remove(&serial) {
                inner.asked.insert(serial, Asked { floor: 0, fate: Fate::Unknown, ..asked });
            }
        }
    }

    /// The highest revision that anybody has seen.
    pub fn highest_seen(&self) -> u64 {
        self.0.lock().unwrap().seen
    }

    /// Who was granted a lease in former histories.
    pub fn former_holders(&self) -> Vec<FormerHolder> {
        let inner = self.0.lock().unwrap();
        let former = inner.epochs.range(..=inner.former_epoch);
        former.map(|(epoch, (lease, _))| FormerHolder { lease: lease.clone(), epoch: *epoch }).collect()
    }
}
