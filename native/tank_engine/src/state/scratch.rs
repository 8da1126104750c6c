//! A view as a transaction sees it that has written something and is not committed.

use crate::command::Op;
use crate::outcome::{Refusal, Response};
use crate::view::View;

use super::State;
use super::apply::Work;

impl View {
    /// The view as `op` would leave it, and what `op` would answer. What it writes has the next revision, whatever the
    /// store's will be; the view's own revision stays that of what was committed.
    ///
    /// # Errors
    /// What the operation would be refused for, but for a lease that has ended.
    pub fn with(&self, op: &Op) -> Result<(Self, Response), Refusal> {
        let mut state = State {
            entries: self.entries.clone(),
            nodes: self.nodes.clone(),
            revision: self.revision,
            history: self.history,
            ..State::default()
        };
        let response = state.apply_op(op, &mut Work::default())?;
        Ok((Self { entries: state.entries, nodes: state.nodes, ..self.clone() }, response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Clear, Delete, Write};
    use crate::key::Key;
    use bytes::Bytes;

    #[test]
    fn what_is_written_is_seen_in_the_new_view_only() {
        let key = |bytes: &[u8]| Key::from_bytes(bytes);
        let put = |at: &[u8]| Op::Put(Write::new(key(at), Bytes::new()));
        let with = |view: &View, op: &Op| view.with(op).unwrap().0;
        let base = View { revision: 7, ..View::default() };
        let written = with(&with(&with(&base, &put(b"\x02a\0")), &put(b"\x02a\0\x02b\0")), &put(b"\x02a\0"));
        assert_eq!((base.entries.len(), written.entries.len(), written.revision), (0, 2, 7));
        let entry = written.get(&key(b"\x02a\0")).unwrap();
        assert_eq!((entry.revision, entry.version, written.tree().child_count(&key(b"\x02a\0"))), (8, 2, 1));
        assert_eq!(with(&written, &Op::Clear(Clear::from(key(b"\x02a\0")))).entries.len(), 1);
        assert_eq!(with(&written, &Op::Delete(Delete::from(key(b"\x02a\0")))).entries.len(), 0);
        assert_eq!(written.entries.len(), 2);
    }
}
