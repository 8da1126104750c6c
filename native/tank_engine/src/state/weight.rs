//! How much work a command is, before it is done.

use crate::command::{Command, Compare, LeaseCommand, Op, Request, Txn, Write};
use crate::entries;
use crate::key::Key;

use super::State;

impl State {
    /// About how many entries applying `request` looks at or changes; `usize::MAX` where only applying
    /// it tells. Counts no further than a little above `max`.
    pub(crate) fn weight(&self, request: &Request, max: usize) -> usize {
        match &request.command {
            Command::Put(write) | Command::Create(write) | Command::Update(write) => self.put_weight(write),
            Command::Delete(delete) => self.delete_weight(&delete.key, max),
            Command::Txn(txn) => self.txn_weight(txn, max),
            Command::Lease(LeaseCommand::Acquire { .. } | LeaseCommand::Renew { .. }) => 1,
            // With a lease goes all that is attached to it.
            Command::Lease(LeaseCommand::Release { epoch, .. } | LeaseCommand::Expire { epoch, .. }) => {
                if self.nodes.watched.is_empty() {
                    self.attached.get(epoch).map_or(0, |keys| keys.len()) + 1
                } else {
                    usize::MAX
                }
            }
            // All that match; the history that goes from the disk.
            Command::PutMany(_)
            | Command::DeleteMany(_)
            | Command::ClearMany(_)
            | Command::Compact { .. }
            | Command::NewHistory { .. } => usize::MAX,
        }
    }

    fn txn_weight(&self, txn: &Txn, max: usize) -> usize {
        let compared = txn.compare.iter().map(|compare| match compare {
            Compare::Below { prefix, .. } => self.below(prefix, max),
            Compare::Matches { pattern, .. } => self.below(&pattern.prefix().0, max),
            Compare::Payload { .. } | Compare::Number { .. } | Compare::Lease { .. } => 1,
        });
        // One of the two branches is done.
        let done = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
            Op::Delete(delete) => self.delete_weight(&delete.key, max),
            Op::List(key) => self.below(key, max),
            Op::Put(write) => self.put_weight(write),
            Op::Clear(clear) => self.change_weight(&clear.key, 1),
            Op::Get(_) => 1,
        });
        let mut sum = 1usize;
        compared
            .chain(done)
            .take_while(|weight| {
                sum = sum.saturating_add(*weight);
                sum <= max
            })
            .for_each(drop);
        sum
    }

    fn put_weight(&self, write: &Write) -> usize {
        let conditions = write.how.keep_while.iter().flat_map(|keep_while| keep_while.conditions());
        let brought = conditions.map(|one| if one.pattern.prefix().1 { 1 } else { usize::MAX });
        self.change_weight(&write.key, brought.fold(1, usize::saturating_add))
    }

    fn delete_weight(&self, key: &Key, max: usize) -> usize {
        if self.nodes.holders_within(key).next().is_some() {
            return usize::MAX;
        }
        self.change_weight(key, self.below(key, max))
    }

    /// `weight`, unless conditions on the node, or on those above it, have to be looked at.
    fn change_weight(&self, key: &Key, weight: usize) -> usize {
        if self.nodes.watched.is_empty() {
            return weight;
        }
        let mut at = Some(key.clone());
        while let Some(node) = at {
            if self.nodes.holders_of(&node).next().is_some() {
                return usize::MAX;
            }
            at = node.parent();
        }
        weight
    }

    fn below(&self, key: &Key, max: usize) -> usize {
        entries::subtree(&self.entries, key).take(max).count() + 1
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::command::{Condition, Delete, How, Number, Relation, RequestId, Write};
    use crate::key::Component;
    use crate::nodes::{KeepCondition, KeepWhile};
    use crate::pattern::Condition::{Any, Is};
    use crate::pattern::{Part, Pattern};
    use crate::state::{Facts, Fingerprint};

    use super::*;

    fn key(path: &[&str]) -> Key {
        Key::of(&path.iter().map(|name| Component::String(name.as_bytes().to_vec())).collect::<Vec<_>>())
    }

    fn request(sequence: u64, command: Command) -> Request {
        Request { id: RequestId { client: 1, sequence, resolved_below: 0 }, time_ms: 0, command, seen_ms: 0 }
    }

    fn write(path: &[&str]) -> Write {
        Write::new(key(path), Bytes::from_static(b"v"))
    }

    fn txn(compare: Vec<Compare>, then: Vec<Op>) -> Command {
        Command::Txn(Txn { compare, then, otherwise: vec![] })
    }

    /// One path with a value and 100 children.
    fn state() -> State {
        let mut state = State::default();
        let names: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let paths = names.iter().map(|name| vec!["t", name]).chain([vec!["t"]]);
        for (sequence, path) in (0..).zip(paths) {
            state.apply(&request(sequence, Command::Put(write(&path))), sequence);
        }
        state
    }

    #[test]
    fn a_command_weighs_as_much_as_it_may_change() {
        let state = state();
        let delete = |path: &[&str]| Command::Delete(Delete::from(key(path)));
        let weight = |command: Command| state.weight(&request(200, command), 50);
        assert_eq!(weight(delete(&["t", "7"])), 2);
        assert_eq!(weight(delete(&["t"])), 51, "it counts no further");
        assert_eq!(weight(Command::Put(write(&["t"]))), 1);
        assert!(weight(txn(vec![], vec![Op::Delete(key(&["t"]).into()); 1_000])) < 200, "nor in sum");
        assert_eq!(weight(Command::Compact { revision: 1 }), usize::MAX, "it reads the disk");
    }

    #[test]
    fn a_command_weighs_as_much_as_it_may_look_at() {
        let state = state();
        let weight = |command: Command| state.weight(&request(200, command), 50);
        let conditional = |path: &[&str]| Write { condition: Condition::RevisionIs(7), ..write(path) };
        for command in [
            Command::Create(write(&["t"])),
            Command::Put(conditional(&["t"])),
            Command::Update(conditional(&["t"])),
            Command::Create(write(&["new"])),
        ] {
            assert_eq!(weight(command.clone()), 1, "a refusal tells a number that is known: {command:?}");
        }
        let prefix = || key(&["t"]);
        let children = |key| Compare::Number { key, number: Number::ChildCount, relation: Relation::Equal, operand: 7 };
        for compare in [
            Compare::Below { prefix: prefix(), relation: Relation::Less, operand: 7 },
            Compare::Matches {
                pattern: Pattern { parts: vec![Part::one(Is(prefix().as_bytes().to_vec())), Part::one(Any)] },
                facts: Facts::Paths,
                fingerprint: Fingerprint::default(),
            },
        ] {
            assert!(weight(txn(vec![compare.clone()], vec![])) > 50, "{compare:?}");
            let many = weight(txn(vec![compare.clone(); 1_000], vec![]));
            assert!((51..200).contains(&many), "{many} of many: {compare:?}");
        }
        assert!(weight(txn(vec![], vec![Op::List(prefix())])) > 50);
        assert_eq!(weight(txn(vec![children(prefix())], vec![Op::Get(prefix())])), 3);
    }

    #[test]
    fn the_end_of_a_lease_weighs_as_much_as_goes_with_it() {
        let mut state = State::default();
        let acquire = LeaseCommand::Acquire { name: Bytes::from("l"), holder: Bytes::new(), ttl_ms: 1 };
        state.apply(&request(0, Command::Lease(acquire)), 1);
        for sequence in 1..=30 {
            let attached = Write { lease: 1, ..write(&[&sequence.to_string()]) };
            state.apply(&request(sequence, Command::Put(attached)), 1);
        }
        let end = LeaseCommand::Expire { name: Bytes::from("l"), epoch: 1, renewals: 0 };
        assert_eq!(state.weight(&request(99, Command::Lease(end)), 512), 31);
    }

    #[test]
    fn what_conditions_name_weighs_as_much_as_nobody_knows() {
        let mut state = state();
        let keep = KeepCondition {
            pattern: Pattern { parts: vec![Part::one(Is(key(&["t"]).as_bytes().to_vec()))] },
            condition: Any,
        };
        let how = How { keep_while: Some(KeepWhile::new(vec![keep], Bytes::new())), ..How::default() };
        state.apply(&request(200, Command::Put(Write { how, ..write(&["kept"]) })), 200);
        let weight = |command: Command| state.weight(&request(201, command), 50);
        assert_eq!(weight(Command::Put(write(&["t"]))), usize::MAX, "a condition names it");
        assert_eq!(weight(Command::Put(write(&["t", "new"]))), usize::MAX, "the list of children of it changes");
        assert_eq!(weight(Command::Put(write(&["other"]))), 1);
        assert_eq!(weight(Command::Delete(key(&["kept"]).into())), 2);
    }
}
