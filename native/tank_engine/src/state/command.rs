//! What goes into the log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::key::{Key, KeyLimits};
use crate::nodes::{KeepWhile, VALUE};
use crate::pattern::{self, Pattern};
use crate::tree::{Facts, Fingerprint};

pub use crate::pattern::Relation;

/// The most comparisons, and the most operations of one branch, that a transaction may have in a store that is not told
/// otherwise; and in any store.
pub const TXN_OPERATIONS_MAX: usize = 1_024;
const TXN_OPERATIONS_WIDEST: usize = 1 << 20;

/// The longest name of a lease, and the longest encoding of its holder, in bytes.
const LEASE_BYTES_MAX: usize = 1_024;

/// The most bytes of entries that one command may write on the matches of a pattern: all of them
/// stand in one batch.
pub const PUT_MANY_BYTES_MAX: usize = 64 << 20;

/// How large a command may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One payload, in bytes.
    pub value_bytes_max: usize,
    /// All paths and payloads of a command of several parts, in bytes.
    pub txn_bytes_max: usize,
    /// Paths.
    pub keys: KeyLimits,
    /// Comparisons, and operations of one branch, of a transaction.
    pub operations_max: usize,
}

impl Limits {
    /// What no command may be above, whatever a store's options say: a member that did not check must not harm the others.
    pub const WIDEST: Self = Self {
        value_bytes_max: usize::MAX,
        txn_bytes_max: usize::MAX,
        keys: KeyLimits::WIDEST,
        operations_max: TXN_OPERATIONS_WIDEST,
    };

    /// The same for payloads, and no narrower than any for paths and counts of operations.
    #[must_use]
    pub fn widened(self) -> Self {
        Self { keys: Self::WIDEST.keys, operations_max: Self::WIDEST.operations_max, ..self }
    }
}

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks, so that a retry is applied once.
    pub id: RequestId,
    /// Wall clock of the leader when it proposed the request, in milliseconds since the epoch. What it
    /// moves on is the time in the log ([`crate::state::LogTime`]), the only clock that applying a
    /// command may use.
    pub time_ms: u64,
    /// What to do.
    pub command: Command,
    /// The time in the log that the client knew of when it made the request: whatever applies the
    /// request is later. The same in each retry ([`crate::state::Sessions`]).
    pub seen_ms: u64,
}

/// Names one request of one client for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Random, drawn when a store is opened.
    pub client: u64,
    /// Rises with each request of the client.
    pub sequence: u64,
    /// The client will never again ask for a sequence below this one: the store may forget them.
    pub resolved_below: u64,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Write, whether the entry exists or not.
    Put(Write),
    /// Write only if the entry does not exist.
    Create(Write),
    /// Write only if the entry exists.
    Update(Write),
    /// Delete the entry and all below it. A missing one is fine.
    Delete(Delete),
    /// Write on every node that matches.
    PutMany(PutMany),
    /// Delete every node that matches, and all below it.
    DeleteMany(DeleteMany),
    /// Delete the value of every node that matches, and leave what is below it.
    ClearMany(ClearMany),
    /// Compare, then do one list of operations or the other, all at one revision.
    Txn(Txn),
    /// Grant, renew or end a lease.
    Lease(LeaseCommand),
    /// Forget how entries were before a revision.
    Compact {
        /// The oldest revision that can still be read.
        revision: u64,
    },
    /// Begin another history: the state does not go on from what clients have seen.
    NewHistory {
        /// Drawn at random; not 0.
        id: u64,
    },
}

/// A payload for a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// What. Opaque.
    pub payload: Bytes,
    /// Only then.
    pub condition: Condition,
    /// The epoch of the lease that the entry goes with; 0 for none.
    pub lease: u64,
    /// How, and what it answers.
    pub how: How,
}

/// How a payload is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct How {
    /// The payload's kind; with [`NO_PAYLOAD`](crate::nodes::NO_PAYLOAD), the node is made, or loses its payload, and stays.
    pub kind: u8,
    /// Writes nothing where there is this payload already, of this kind and with this lease.
    pub unless_same: bool,
    /// What must hold for the node to stay, in the place of what had to hold before. `None` leaves that.
    pub keep_while: Option<KeepWhile>,
    /// Answers with what was replaced, and what went with it.
    pub returns: bool,
}

impl Default for How {
    fn default() -> Self {
        Self { kind: VALUE, unless_same: false, keep_while: None, returns: false }
    }
}

/// A payload for the nodes of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutMany {
    /// Where.
    pub pattern: Pattern,
    /// What. Opaque.
    pub payload: Bytes,
    /// How, and what it answers.
    pub how: How,
}

/// The removal of all nodes that match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteMany {
    /// Which.
    pub pattern: Pattern,
    /// Answers with all that was deleted.
    pub returns: bool,
}

/// The removal of the values of all nodes that match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearMany {
    /// Of which.
    pub pattern: Pattern,
    /// Whether nodes that were written stay without a value.
    pub keep_nodes: bool,
    /// Answers with what was replaced, and what went with it.
    pub returns: bool,
}

/// The removal of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Where.
    pub key: Key,
    /// Only then.
    pub condition: Condition,
    /// Answers with all that was deleted.
    pub returns: bool,
}

/// What must hold of the entry for a command to change anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing more than the command itself asks for.
    #[default]
    Always,
    /// The entry's revision is this one; 0: there is no entry.
    RevisionIs(u64),
    /// The entry's payload is this one.
    PayloadIs(Bytes),
    /// This holds of the node. The refusal tells of the node, not of the entry.
    Node {
        /// What.
        condition: pattern::Condition,
        /// Whether it is enough that there is no node.
        or_none: bool,
    },
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// What is compared, all with the state before.
    pub compare: Vec<Compare>,
    /// What is done when all of it holds.
    pub then: Vec<Op>,
    /// What is done otherwise.
    pub otherwise: Vec<Op>,
}

/// One comparison of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Whether the entry's payload is this one. A missing entry has none.
    Payload {
        /// Whose.
        key: Key,
        /// Whether it should be.
        equal: bool,
        /// Which.
        payload: Bytes,
    },
    /// A number of one path.
    Number {
        /// Whose.
        key: Key,
        /// Which.
        number: Number,
        /// How it should stand to `operand`.
        relation: Relation,
        /// To what.
        operand: u64,
    },
    /// The revision of every entry below a path.
    Below {
        /// The path.
        prefix: Key,
        /// How each should stand to `operand`.
        relation: Relation,
        /// To what.
        operand: u64,
    },
    /// The nodes that match a pattern are these.
    Matches {
        /// The pattern.
        pattern: Pattern,
        /// What was read of them.
        facts: Facts,
        /// Of what was read.
        fingerprint: Fingerprint,
    },
    /// The epoch of a lease; 0 when nobody holds it.
    Lease {
        /// The lease's name.
        name: Bytes,
        /// How it should stand to `operand`.
        relation: Relation,
        /// To what.
        operand: u64,
    },
}

/// A number that a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Number {
    /// Writes since its creation; 0 when it has no value.
    Version,
    /// The revision of its last write; 0 when it has no value.
    Revision,
    /// The revision of its creation; 0 when it has no value.
    CreateRevision,
    /// 1 when it has a value or children, else 0.
    Exists,
    /// Its direct children, with a value or without.
    ChildCount,
    /// The epoch of its lease; 0 for none.
    LeaseEpoch,
    /// Changes of its payload since the node was created, with that; 0 without a node.
    PayloadVersion,
    /// How often its children came or went, with its creation; 0 without a node.
    ChildListVersion,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Write. Where its condition does not hold, the whole transaction is refused.
    Put(Write),
    /// Delete the node and all below it. Where its condition does not hold, the whole transaction is refused.
    Delete(Delete),
    /// Delete the entry, and leave what is below it.
    Clear(Clear),
    /// Read the entry, as the operations before left it.
    Get(Key),
    /// Read the entries directly below.
    List(Key),
}

/// The removal of one path's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear {
    /// Of which.
    pub key: Key,
    /// Whether a node that was written stays without a value.
    pub keep_node: bool,
    /// Answers with what was replaced, and what went with it.
    pub returns: bool,
}

/// A change of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseCommand {
    /// Grant it, unless it is held.
    Acquire {
        /// The lease's name.
        name: Bytes,
        /// Who asks. Opaque.
        holder: Bytes,
        /// How long it lasts without a renewal, in milliseconds.
        ttl_ms: u64,
    },
    /// Keep it for its time again, if it is still of this epoch.
    Renew {
        /// The lease's name.
        name: Bytes,
        /// The epoch.
        epoch: u64,
    },
    /// End it, if it is still of this epoch.
    Release {
        /// The lease's name.
        name: Bytes,
        /// The epoch.
        epoch: u64,
    },
    /// End it, if it was not renewed since the leader found that its time was over.
    Expire {
        /// The lease's name.
        name: Bytes,
        /// The epoch.
        epoch: u64,
        /// The renewals that the leader had seen.
        renewals: u64,
    },
}

impl Write {
    /// An unconditional write without a lease.
    pub fn new(key: Key, payload: Bytes) -> Self {
        Self { key, payload, condition: Condition::Always, lease: 0, how: How::default() }
    }
}

impl From<Key> for Delete {
    fn from(key: Key) -> Self {
        Self { key, condition: Condition::Always, returns: false }
    }
}

impl From<Key> for Clear {
    fn from(key: Key) -> Self {
        Self { key, keep_node: false, returns: false }
    }
}

impl From<Pattern> for DeleteMany {
    fn from(pattern: Pattern) -> Self {
        Self { pattern, returns: false }
    }
}

impl From<Pattern> for ClearMany {
    fn from(pattern: Pattern) -> Self {
        Self { pattern, keep_nodes: false, returns: false }
    }
}

impl How {
    fn size(&self) -> usize {
        self.keep_while.as_ref().map_or(0, KeepWhile::size)
    }

    fn is_ready(&self) -> bool {
        self.keep_while.as_ref().is_none_or(KeepWhile::is_ready)
    }

    fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        self.keep_while.as_ref().map_or(Ok(()), |keep_while| keep_while.check(value_bytes_max))
    }
}

impl Command {
    /// The bytes that it carries, for bounds on queues and batches.
    pub fn size(&self) -> usize {
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.size(),
            Self::Delete(delete) => delete.key.as_bytes().len() + delete.condition.size(),
            Self::PutMany(put) => put.pattern.size() + put.payload.len() + put.how.size(),
            Self::DeleteMany(DeleteMany { pattern, .. }) | Self::ClearMany(ClearMany { pattern, .. }) => pattern.size(),
            Self::Txn(txn) => txn.size(),
            Self::Lease(LeaseCommand::Acquire { name, holder, .. }) => name.len() + holder.len(),
            Self::Lease(_) | Self::Compact { .. } | Self::NewHistory { .. } => 0,
        }
    }

    /// Whether [`Command::check`] costs little: see [`Pattern::is_ready`].
    pub fn is_ready(&self) -> bool {
        match self {
            Self::PutMany(PutMany { pattern, how, .. }) => pattern.is_ready() && how.is_ready(),
            Self::DeleteMany(DeleteMany { pattern, .. }) | Self::ClearMany(ClearMany { pattern, .. }) => {
                pattern.is_ready()
            }
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.is_ready(),
            Self::Delete(delete) => delete.condition.is_ready(),
            Self::Txn(txn) => txn.is_ready(),
            Self::Lease(_) | Self::Compact { .. } | Self::NewHistory { .. } => true,
        }
    }

    /// Whether the bytes that the command carries are within the limits. Costs next to nothing; checked
    /// where the command comes from and by the leader, before it is logged.
    ///
    /// # Errors
    /// [`EngineError::TooLarge`].
    pub fn check_size(&self, limits: Limits) -> Result<(), EngineError> {
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.check_size(limits.value_bytes_max),
            Self::Delete(delete) => delete.condition.check_size(limits.value_bytes_max),
            Self::Txn(_) | Self::PutMany(_) | Self::DeleteMany(_) | Self::ClearMany(_) => {
                within("txn", self.size(), limits.txn_bytes_max)
            }
            Self::Lease(_) | Self::Compact { .. } | Self::NewHistory { .. } => Ok(()),
        }
    }

    /// Whether the command is within the limits and its paths are paths. Checked before it is
    /// proposed, with the store's own limits; and when it is applied, with [`Limits::WIDEST`].
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`], [`EngineError::InvalidPattern`] or [`EngineError::TooLarge`].
    pub fn check(&self, limits: Limits) -> Result<(), EngineError> {
        let value_bytes_max = limits.value_bytes_max;
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.check(limits),
            Self::Delete(delete) => {
                delete.key.check(limits.keys)?;
                delete.condition.check(value_bytes_max)
            }
            Self::PutMany(put) => {
                within("value", put.payload.len(), value_bytes_max)?;
                put.how.check(value_bytes_max)?;
                put.pattern.check(value_bytes_max)
            }
            Self::DeleteMany(DeleteMany { pattern, .. }) | Self::ClearMany(ClearMany { pattern, .. }) => {
                pattern.check(value_bytes_max)
            }
            Self::Txn(txn) => txn.check(limits),
            Self::Lease(command) => command.check(),
            Self::Compact { .. } | Self::NewHistory { .. } => Ok(()),
        }
    }

    /// Whether it changes something in some state.
    pub fn may_change(&self) -> bool {
        let reads = |op: &Op| matches!(op, Op::Get(_) | Op::List(_));
        match self {
            Self::Txn(txn) => !txn.then.iter().chain(&txn.otherwise).all(reads),
            _ => true,
        }
    }
}

impl Write {
    fn size(&self) -> usize {
        self.key.as_bytes().len() + self.payload.len() + self.condition.size() + self.how.size()
    }

    fn is_ready(&self) -> bool {
        self.condition.is_ready() && self.how.is_ready()
    }

    fn check_size(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        within("value", self.payload.len(), value_bytes_max)?;
        within("keep_while", self.how.size(), value_bytes_max)?;
        self.condition.check_size(value_bytes_max)
    }

    fn check(&self, limits: Limits) -> Result<(), EngineError> {
        Self::check_sizes(&self.key, self.payload.len(), limits)?;
        self.condition.check(limits.value_bytes_max)?;
        self.how.check(limits.value_bytes_max)
    }

    /// Checks the path of a write and the size of its payload.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check_sizes(key: &Key, payload_bytes: usize, limits: Limits) -> Result<(), EngineError> {
        key.check(limits.keys)?;
        within("value", payload_bytes, limits.value_bytes_max)
    }
}

impl Condition {
    fn size(&self) -> usize {
        match self {
            Self::Always | Self::RevisionIs(_) => 0,
            Self::PayloadIs(payload) => payload.len(),
            Self::Node { condition, .. } => condition.size(),
        }
    }

    fn is_ready(&self) -> bool {
        if let Self::Node { condition, .. } = self { condition.is_ready() } else { true }
    }

    fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        match self {
            Self::Node { condition, .. } => Pattern::of(condition.clone()).check(value_bytes_max),
            Self::Always | Self::RevisionIs(_) | Self::PayloadIs(_) => Ok(()),
        }
    }

    fn check_size(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        within("value", self.size(), value_bytes_max)
    }
}

impl Op {
    fn key(&self) -> &Key {
        match self {
            Self::Put(write) => &write.key,
            Self::Delete(delete) => &delete.key,
            Self::Clear(clear) => &clear.key,
            Self::Get(key) | Self::List(key) => key,
        }
    }
}

impl Txn {
    fn is_ready(&self) -> bool {
        let compared =
            |compare: &Compare| if let Compare::Matches { pattern, .. } = compare { pattern.is_ready() } else { true };
        let done = |op: &Op| if let Op::Put(write) = op { write.is_ready() } else { true };
        self.compare.iter().all(compared) && self.then.iter().chain(&self.otherwise).all(done)
    }

    fn size(&self) -> usize {
        let ops = self.then.iter().chain(&self.otherwise).map(|op| match op {
            Op::Put(write) => write.size(),
            _ => op.key().as_bytes().len(),
        });
        let compared = self.compare.iter().map(|compare| match compare {
            Compare::Payload { key, payload, .. } => key.as_bytes().len() + payload.len(),
            Compare::Number { key, .. } => key.as_bytes().len(),
            Compare::Below { prefix, .. } => prefix.as_bytes().len(),
            Compare::Matches { pattern, .. } => pattern.size(),
            Compare::Lease { name, .. } => name.len(),
        });
        ops.chain(compared).sum()
    }

    fn check(&self, limits: Limits) -> Result<(), EngineError> {
        for count in [self.compare.len(), self.then.len(), self.otherwise.len()] {
            within("transaction", count, limits.operations_max)?;
        }
        for compare in &self.compare {
            match compare {
                Compare::Payload { key, .. } | Compare::Number { key, .. } => key.check(limits.keys)?,
                Compare::Below { prefix, .. } => prefix.check(limits.keys)?,
                Compare::Matches { pattern, .. } => pattern.check(limits.value_bytes_max)?,
                Compare::Lease { .. } => {}
            }
        }
        for op in self.then.iter().chain(&self.otherwise) {
            match op {
                Op::Put(write) => write.check(limits)?,
                _ => op.key().check(limits.keys)?,
            }
        }
        Ok(())
    }
}

impl LeaseCommand {
    /// The lease's name.
    pub fn name(&self) -> &Bytes {
        match self {
            Self::Acquire { name, .. }
            | Self::Renew { name, .. }
            | Self::Release { name, .. }
            | Self::Expire { name, .. } => name,
        }
    }

    fn check(&self) -> Result<(), EngineError> {
        within("lease_name", self.name().len(), LEASE_BYTES_MAX)?;
        match self {
            Self::Acquire { holder, .. } => within("lease_holder", holder.len(), LEASE_BYTES_MAX),
            _ => Ok(()),
        }
    }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), EngineError> {
    if size > limit { Err(EngineError::TooLarge { what, size, limit }) } else { Ok(()) }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request {}/{} of {} bytes", self.id.client, self.id.sequence, self.command.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Component;
    use crate::pattern::{Condition as NodeCondition, Part};

    const LIMITS: Limits = Limits { value_bytes_max: 100, txn_bytes_max: 1_000, ..Limits::WIDEST };

    fn write(bytes: usize) -> Write {
        Write::new(Key::of(&[Component::Atom(b"a".to_vec())]), Bytes::from(vec![0; bytes]))
    }

    fn too_large(command: &Command) -> Option<&'static str> {
        match command.check_size(LIMITS) {
            Ok(()) => None,
            Err(EngineError::TooLarge { what, .. }) => Some(what),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn txn(compare: Vec<Compare>, then: Vec<Op>, otherwise: Vec<Op>) -> Command {
        Command::Txn(Txn { compare, then, otherwise })
    }

    #[test]
    fn a_single_write_has_the_limit_of_a_value_and_so_has_what_it_is_compared_with() {
        let against = |bytes| Condition::PayloadIs(Bytes::from(vec![0; bytes]));
        for command in [Command::Put, Command::Create, Command::Update] {
            assert_eq!(too_large(&command(write(100))), None);
            assert_eq!(too_large(&command(write(101))), Some("value"));
            assert_eq!(too_large(&command(Write { condition: against(100), ..write(100) })), None);
            assert_eq!(too_large(&command(Write { condition: against(101), ..write(1) })), Some("value"));
        }
        let delete = |bytes| Command::Delete(Delete { condition: against(bytes), ..Delete::from(write(0).key) });
        assert_eq!((too_large(&delete(100)), too_large(&delete(101))), (None, Some("value")));
    }

    #[test]
    fn all_parts_of_a_command_count_together() {
        let puts = |count| vec![Op::Put(write(100)); count];
        let key = write(0).key;
        let compares =
            |count| vec![Compare::Payload { key: key.clone(), equal: true, payload: write(100).payload }; count];
        assert_eq!(too_large(&txn(vec![], puts(9), vec![])), None);
        assert_eq!(too_large(&txn(vec![], puts(10), vec![])), Some("txn"));
        assert_eq!(too_large(&txn(vec![], puts(5), puts(5))), Some("txn"), "both branches are logged");
        assert_eq!(too_large(&txn(compares(5), puts(5), vec![])), Some("txn"));
        assert_eq!(too_large(&txn(compares(5), puts(4), vec![])), None);
        let pattern = |count| {
            let payload = NodeCondition::Payload(Bytes::from(vec![0; 100]));
            Pattern { parts: vec![Part::one(NodeCondition::AnyOf(vec![payload; count]))] }
        };
        for (count, expected) in [(8, None), (10, Some("txn"))] {
            let put = PutMany { pattern: pattern(count), payload: Bytes::from(vec![0; 100]), how: How::default() };
            assert_eq!(too_large(&Command::PutMany(put)), expected);
            assert_eq!(too_large(&Command::DeleteMany(pattern(count).into())), expected);
            assert_eq!(too_large(&Command::ClearMany(pattern(count).into())), expected);
        }
    }

    #[test]
    fn a_store_counts_operations_and_any_store_does_at_some_point() {
        let store = Limits { operations_max: TXN_OPERATIONS_MAX, keys: KeyLimits::DEFAULT, ..Limits::WIDEST };
        let gets = |count| txn(vec![], vec![Op::Get(Key::default()); count], vec![]);
        let too_many = |size, limit| Err(EngineError::TooLarge { what: "transaction", size, limit });
        assert_eq!((gets(1_024).check(store), gets(1_025).check(store)), (Ok(()), too_many(1_025, 1_024)));
        assert_eq!(gets(100_000).check(store.widened()), Ok(()));
        assert_eq!(gets((1 << 20) + 1).check(Limits::WIDEST), too_many((1 << 20) + 1, 1 << 20));
        let long = Key::of(&[Component::String(vec![0; 300])]);
        for command in [Command::Delete(long.clone().into()), Command::Put(Write::new(long, Bytes::new()))] {
            assert!(matches!(
                command.check(store),
                Err(EngineError::TooLarge { what: "path_component", limit: 255, .. })
            ));
            assert_eq!(command.check(store.widened()), Ok(()));
        }
    }
}
