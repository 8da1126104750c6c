//! The nodes as a transaction sees them that has written something and is not committed.

use crate::command::{Op, Write};
use crate::entries::Entries;
use crate::nodes::Nodes;
use crate::outcome::{Refusal, Response};

use super::apply::Work;
use super::{History, State};

/// The entries and nodes of a view, with what a transaction has written.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    pub(crate) entries: Entries,
    pub(crate) nodes: Nodes,
    pub(crate) revision: u64,
    pub(crate) history: History,
}

impl Scratch {
    /// Does `op`, at the revision after this one, and returns what it answers.
    ///
    /// # Errors
    /// What the operation would be refused for, but for a lease that has ended.
    pub(crate) fn write(&mut self, op: &Op) -> Result<Response, Refusal> {
        let mut state = self.state();
        let response = state.apply_op(op, &mut Work::default())?;
        self.take(state);
        Ok(response)
    }

    /// The same for a put that takes microseconds: `None`, and nothing is written, if conditions that keep nodes make it
    /// more.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn write_little(&mut self, write: &Write) -> Result<Option<Response>, Refusal> {
        let mut state = self.state();
        let response = state.put_little(write, &mut Work::default())?;
        if response.is_some() {
            self.take(state);
        }
        Ok(response)
    }

    fn state(&self) -> State {
        let (entries, nodes) = (self.entries.clone(), self.nodes.clone());
        State { entries, nodes, revision: self.revision, history: self.history, ..State::default() }
    }

    fn take(&mut self, state: State) {
        (self.entries, self.nodes) = (state.entries, state.nodes);
    }
}
