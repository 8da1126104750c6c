//! A view as a transaction sees it that has written something and is not committed.

use std::sync::Arc;

use crate::command::Op;
use crate::entries;
use crate::entry::Entry;
use crate::key::Key;
use crate::view::View;

impl View {
    /// The view as `op` would leave it. What it writes has the next revision, whatever the store's
    /// will be; the view's own revision stays that of what was committed.
    pub fn with(&self, op: &Op) -> Self {
        let mut view = self.clone();
        match op {
            Op::Put(write) => {
                let (payload, revision) = (write.payload.clone(), self.revision + 1);
                let entry = match self.get(&write.key) {
                    Some(entry) => entry.updated(&write.key, payload, revision, write.lease),
                    None => Entry::created(&write.key, payload, revision, write.lease),
                };
                view.entries.insert(write.key.clone(), Arc::new(entry));
            }
            Op::Delete(key) => {
                let gone: Vec<Key> = entries::subtree(&self.entries, key).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    view.entries.remove(&key);
                }
            }
            Op::Clear(key) => {
                view.entries.remove(key);
            }
            Op::Get(_) | Op::List(_) => {}
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Write;
    use bytes::Bytes;

    #[test]
    fn what_is_written_is_seen_in_the_new_view_only() {
        let key = |bytes: &[u8]| Key::from_bytes(bytes);
        let put = |at: &[u8]| Op::Put(Write::new(key(at), Bytes::new()));
        let base = View { revision: 7, ..View::default() };
        let written = base.with(&put(b"\x02a\0")).with(&put(b"\x02a\0\x02b\0")).with(&put(b"\x02a\0"));
        assert_eq!((base.entries.len(), written.entries.len(), written.revision), (0, 2, 7));
        let entry = written.get(&key(b"\x02a\0")).unwrap();
        assert_eq!((entry.revision, entry.version), (8, 2));
        assert_eq!(written.with(&Op::Clear(key(b"\x02a\0"))).entries.len(), 1);
        assert_eq!(written.with(&Op::Delete(key(b"\x02a\0"))).entries.len(), 0);
        assert_eq!(written.entries.len(), 2);
    }
}
