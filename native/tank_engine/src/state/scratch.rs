//! A view as a transaction sees it that has written something and is not committed.

use crate::command::{Op, Write};
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
        let mut state = self.state();
        let response = state.apply_op(op, &mut Work::default())?;
        Ok((self.of(state), response))
    }

    /// The same of a put, if that is the work of microseconds: `None` if conditions that keep nodes make it more.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn with_little(&self, write: &Write) -> Result<Option<(Self, Response)>, Refusal> {
        let mut state = self.state();
        let response = state.put_little(write, &mut Work::default())?;
        Ok(response.map(|response| (self.of(state), response)))
    }

    fn state(&self) -> State {
        State {
            entries: self.entries.clone(),
            nodes: self.nodes.clone(),
            revision: self.revision,
            history: self.history,
            ..State::default()
        }
    }

    fn of(&self, state: State) -> Self {
        Self { entries: state.entries, nodes: state.nodes, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Clear, Delete, How, Relation};
    use crate::key::Key;
    use crate::nodes::{KeepCondition, KeepWhile};
    use crate::pattern::{Condition, Part, Pattern};
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
    #[test]
    fn what_makes_a_node_go_is_not_little() {
        let key = |bytes: &[u8]| Key::from_bytes(bytes);
        let write = |at: &[u8]| Write::new(key(at), Bytes::new());
        let view = View::default().with_little(&write(b"\x02owner\0")).unwrap().unwrap().0;
        let pattern = Pattern { parts: vec![Part::one(Condition::Is(b"\x02owner\0".to_vec()))] };
        let condition = Condition::PayloadVersion(Relation::Less, 3);
        let keep_while = Some(KeepWhile::new(vec![KeepCondition { pattern, condition }], Bytes::new()));
        let kept = Write { how: How { keep_while, ..How::default() }, ..write(b"\x02kept\0") };
        let view = view.with_little(&kept).unwrap().unwrap().0;
        let again = view.with_little(&write(b"\x02owner\0")).unwrap().unwrap().0;
        assert_eq!(again.entries.len(), 2);
        assert!(again.with_little(&write(b"\x02owner\0")).unwrap().is_none(), "the third version lets the other go");
        assert_eq!(again.with(&Op::Put(write(b"\x02owner\0"))).unwrap().0.entries.len(), 1);
    }
}
