//! The state before a command, for one that is refused after it has begun.

use imbl::{OrdMap, OrdSet};

use crate::command::Command;
use crate::entries::Entries;
use crate::key::Key;
use crate::nodes::Nodes;

use super::{Digest, Leases, State};

/// What a command may change. Taking it copies nothing.
pub(super) struct Saved {
    entries: Entries,
    nodes: Nodes,
    leases: Leases,
    attached: OrdMap<u64, OrdSet<Key>>,
    digest: Digest,
    bytes: u64,
}

impl Saved {
    /// The state before `command`, if that may be refused after it has changed something: a transaction by an operation
    /// behind others, and what has to look at too many conditions.
    pub(super) fn of(state: &State, command: &Command) -> Option<Self> {
        let is_late = matches!(command, Command::Txn(_)) || command.brings_conditions();
        (is_late || !state.nodes.watched.is_empty()).then(|| Self {
            entries: state.entries.clone(),
            nodes: state.nodes.clone(),
            leases: state.leases.clone(),
            attached: state.attached.clone(),
            digest: state.digest,
            bytes: state.bytes,
        })
    }

    /// Makes the state what it was.
    pub(super) fn restore(self, state: &mut State) {
        let Self { entries, nodes, leases, attached, digest, bytes } = self;
        (state.entries, state.nodes, state.leases, state.attached) = (entries, nodes, leases, attached);
        (state.digest, state.bytes) = (digest, bytes);
    }
}
