//! The file MEMBERS: how far each member is known to have come.
//!
//! With it a member notices that another one went back in time, also when all were restarted since. It is written now and
//! then, and not synced: an old one only says less. One that is gone or damaged says nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::files::slots::{self, SLOTS};
use crate::sync::lock;
use crate::types::{MemberId, Progress};

use super::format::Identity;

/// The file's name.
pub(super) const FILE: &str = "MEMBERS";
const FORMAT: u8 = 1;

const SLOT_BYTES: u64 = 16 << 10;

/// As many as surely fit.
const MEMBERS_MAX: usize = 128;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    format: u8,
    /// Rises with each record, and tells the newer slot.
    sequence: u64,
    cluster_id: u64,
    /// Whose file it is.
    member_id: MemberId,
    members: Vec<(MemberId, Progress)>,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct MembersFile {
    file: File,
    current: Mutex<Record>,
}

impl MembersFile {
    /// Opens the file of the member in `dir`, or makes it. What another member wrote, or one of another cluster, is
    /// forgotten.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn open(dir: &Path, identity: &Identity) -> std::io::Result<Self> {
        let Identity { cluster_id, member_id, .. } = *identity;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join(FILE))?;
        file.set_len(SLOTS * SLOT_BYTES)?;
        let ours =
            |record: &Record| (record.format, record.cluster_id, record.member_id) == (FORMAT, cluster_id, member_id);
        let newest = slots::read_all(&file, SLOT_BYTES)?.into_iter().max_by_key(|record: &Record| record.sequence);
        let sequence = newest.as_ref().map_or(0, |record| record.sequence);
        let none = Record { format: FORMAT, sequence, cluster_id, member_id, members: Vec::new() };
        let current = newest.filter(ours).unwrap_or(none);
        Ok(Self { file, current: Mutex::new(current) })
    }

    /// What was written last.
    pub(crate) fn read(&self) -> BTreeMap<MemberId, Progress> {
        lock(&self.current).members.iter().copied().collect()
    }

    /// Writes what is known now, without a sync.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write(&self, members: &BTreeMap<MemberId, Progress>) -> std::io::Result<()> {
        let mut current = lock(&self.current);
        current.sequence += 1;
        current.members = members.iter().map(|(id, progress)| (*id, *progress)).take(MEMBERS_MAX).collect();
        slots::write(&self.file, SLOT_BYTES, current.sequence, &*current)
    }
}

#[cfg(test)]
mod tests {
    use crate::storage::Formation;
    use crate::types::Vote;

    use super::*;

    #[test]
    fn what_was_written_comes_back_to_the_same_member_only() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_new("tank", Formation::NewCluster).unwrap();
        let progress = |term| Progress { vote: Vote::new_committed(term, 1), last: None };
        let file = MembersFile::open(dir.path(), &identity).unwrap();
        for term in 1..=3 {
            file.write(&(0..MEMBERS_MAX as u64 + 1).map(|id| (u64::MAX - id, progress(term))).collect()).unwrap();
        }
        drop(file);
        let again = MembersFile::open(dir.path(), &identity).unwrap().read();
        assert_eq!(again.len(), MEMBERS_MAX);
        assert!(again.values().all(|known| *known == progress(3)));
        let other = Identity { member_id: identity.member_id ^ 1, ..identity.clone() };
        assert!(MembersFile::open(dir.path(), &other).unwrap().read().is_empty());
        let elsewhere = Identity { cluster_id: identity.cluster_id ^ 1, ..identity.clone() };
        assert!(MembersFile::open(dir.path(), &elsewhere).unwrap().read().is_empty());
        std::fs::write(dir.path().join(FILE), "damaged").unwrap();
        assert!(MembersFile::open(dir.path(), &identity).unwrap().read().is_empty());
    }

    /// Nothing but what was written is ever read: a member would be replaced for what it never had.
    #[test]
    fn a_damaged_file_says_less_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_new("tank", Formation::NewCluster).unwrap();
        let known = |term| BTreeMap::from([(7, Progress { vote: Vote::new_committed(term, 1), last: None })]);
        let file = MembersFile::open(dir.path(), &identity).unwrap();
        file.write(&known(1)).unwrap();
        file.write(&known(2)).unwrap();
        drop(file);
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            MembersFile::open(dir.path(), &identity).unwrap().read()
        };
        assert_eq!(read(&whole), known(2));
        let slot = usize::try_from(SLOT_BYTES).unwrap();
        let written = |at: &usize| whole[*at..(*at + 8).min(whole.len())].iter().any(|byte| *byte != 0);
        for at in (0..whole.len()).filter(written) {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let found = read(&damaged);
                assert!(found == known(1) || found == known(2), "bit {bit} of byte {at}: {found:?}");
                // Both slots.
                damaged[(at + slot) % whole.len()] ^= 1 << bit;
                let found = read(&damaged);
                assert!(found.is_empty() || found == known(1) || found == known(2), "bytes {at}: {found:?}");
            }
            let found = read(&whole[..at]);
            assert!(found.is_empty() || found == known(1) || found == known(2), "truncated to {at}: {found:?}");
        }
    }
}
