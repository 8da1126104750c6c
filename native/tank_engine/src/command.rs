//! What goes into the log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::key::Key;
use crate::pattern::Pattern;

/// The most comparisons, and the most operations of one branch, that a transaction may have.
pub const TXN_OPERATIONS_MAX: usize = 1_024;

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
    DeleteMany(Pattern),
    /// Delete the value of every node that matches, and leave what is below it.
    ClearMany(Pattern),
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
}

/// A payload for the nodes of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutMany {
    /// Where.
    pub pattern: Pattern,
    /// What. Opaque.
    pub payload: Bytes,
}

/// The removal of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Where.
    pub key: Key,
    /// Only then.
    pub condition: Condition,
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
    /// Nothing at or below a path has changed since a revision: no entry was written, created or
    /// deleted.
    Unchanged {
        /// The path.
        prefix: Key,
        /// The revision.
        since: u64,
        /// How many entries there were at or below the path.
        count: u64,
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
}

/// How two numbers stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Write. Its condition must be [`Condition::Always`]: comparing comes first.
    Put(Write),
    /// Delete the entry and all below it.
    Delete(Key),
    /// Delete the entry, and leave what is below it.
    Clear(Key),
    /// Read the entry, as the operations before left it.
    Get(Key),
    /// Read the entries directly below.
    List(Key),
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
        Self { key, payload, condition: Condition::Always, lease: 0 }
    }
}

impl Command {
    /// The bytes that it carries, for bounds on queues and batches.
    pub fn size(&self) -> usize {
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.size(),
            Self::Delete(delete) => delete.key.as_bytes().len() + delete.condition.size(),
            Self::PutMany(put) => put.pattern.size() + put.payload.len(),
            Self::DeleteMany(pattern) | Self::ClearMany(pattern) => pattern.size(),
            Self::Txn(txn) => txn.size(),
            Self::Lease(LeaseCommand::Acquire { name, holder, .. }) => name.len() + holder.len(),
            Self::Lease(_) | Self::Compact { .. } | Self::NewHistory { .. } => 0,
        }
    }

    /// Whether [`Command::check`] costs little: see [`Pattern::is_ready`].
    pub fn is_ready(&self) -> bool {
        match self {
            Self::PutMany(PutMany { pattern, .. }) | Self::DeleteMany(pattern) | Self::ClearMany(pattern) => {
                pattern.is_ready()
            }
            _ => true,
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
    /// proposed, with the store's own limit for values; and when it is applied, with none: a
    /// member that did not check must not harm the others.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`], [`EngineError::InvalidPattern`] or [`EngineError::TooLarge`].
    pub fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.check(value_bytes_max),
            Self::Delete(delete) => Key::check(&delete.key),
            Self::PutMany(put) => {
                within("value", put.payload.len(), value_bytes_max)?;
                put.pattern.check(value_bytes_max)
            }
            Self::DeleteMany(pattern) | Self::ClearMany(pattern) => pattern.check(value_bytes_max),
            Self::Txn(txn) => txn.check(value_bytes_max),
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
        self.key.as_bytes().len() + self.payload.len() + self.condition.size()
    }

    fn check_size(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        within("value", self.payload.len(), value_bytes_max)?;
        self.condition.check_size(value_bytes_max)
    }

    fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        Self::check_sizes(&self.key, self.payload.len(), value_bytes_max)
    }

    /// Checks the path of a write and the size of its payload.
    ///
    /// # Errors
    /// [`EngineError::InvalidPath`] or [`EngineError::TooLarge`].
    pub fn check_sizes(key: &Key, payload_bytes: usize, value_bytes_max: usize) -> Result<(), EngineError> {
        Key::check(key)?;
        within("value", payload_bytes, value_bytes_max)
    }
}

impl Condition {
    fn size(&self) -> usize {
        if let Self::PayloadIs(payload) = self { payload.len() } else { 0 }
    }

    fn check_size(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        within("value", self.size(), value_bytes_max)
    }
}

impl Txn {
    fn size(&self) -> usize {
        let ops = self.then.iter().chain(&self.otherwise).map(|op| match op {
            Op::Put(write) => write.size(),
            Op::Delete(key) | Op::Clear(key) | Op::Get(key) | Op::List(key) => key.as_bytes().len(),
        });
        let compared = self.compare.iter().map(|compare| match compare {
            Compare::Payload { key, payload, .. } => key.as_bytes().len() + payload.len(),
            Compare::Number { key, .. } => key.as_bytes().len(),
            Compare::Below { prefix, .. } | Compare::Unchanged { prefix, .. } => prefix.as_bytes().len(),
            Compare::Lease { name, .. } => name.len(),
        });
        ops.chain(compared).sum()
    }

    fn check(&self, value_bytes_max: usize) -> Result<(), EngineError> {
        for count in [self.compare.len(), self.then.len(), self.otherwise.len()] {
            within("transaction", count, TXN_OPERATIONS_MAX)?;
        }
        for compare in &self.compare {
            match compare {
                Compare::Payload { key, .. } | Compare::Number { key, .. } => Key::check(key)?,
                Compare::Below { prefix, .. } | Compare::Unchanged { prefix, .. } => Key::check(prefix)?,
                Compare::Lease { .. } => {}
            }
        }
        for op in self.then.iter().chain(&self.otherwise) {
            match op {
                Op::Put(write) => write.check(value_bytes_max)?,
                Op::Delete(key) | Op::Clear(key) | Op::Get(key) | Op::List(key) => Key::check(key)?,
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
        within("lease_name", self.name().len(), crate::key::PATH_BYTES_MAX)?;
        match self {
            Self::Acquire { holder, .. } => within("lease_holder", holder.len(), crate::key::PATH_BYTES_MAX),
            _ => Ok(()),
        }
    }
}

impl Relation {
    /// Whether `left` stands so to `right`.
    pub fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
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

    const LIMITS: Limits = Limits { value_bytes_max: 100, txn_bytes_max: 1_000 };

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
        let delete = |bytes| Command::Delete(Delete { key: write(0).key, condition: against(bytes) });
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
            let put = PutMany { pattern: pattern(count), payload: Bytes::from(vec![0; 100]) };
            assert_eq!(too_large(&Command::PutMany(put)), expected);
            assert_eq!(too_large(&Command::DeleteMany(pattern(count))), expected);
            assert_eq!(too_large(&Command::ClearMany(pattern(count))), expected);
        }
    }
}
