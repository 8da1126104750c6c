//! How much work a command is, before it is done.

use crate::command::{Command, Compare, Condition, LeaseCommand, Number, Op, Request, Txn};
use crate::entries;
use crate::key::Key;

use super::State;

impl State {
    /// About how many entries applying `request` looks at or changes; `usize::MAX` where only applying
    /// it tells. Counts no further than a little above `max`.
    pub(crate) fn weight(&self, request: &Request, max: usize) -> usize {
        match &request.command {
            // A refusal tells how many children there are.
            Command::Create(write) if self.entries.contains_key(&write.key) => self.counting(&write.key, max),
            Command::Put(write) | Command::Create(write) | Command::Update(write) => {
                self.refusing(&write.condition, &write.key, max)
            }
            Command::Delete(delete) => self.below(&delete.key, max),
            Command::Txn(txn) => self.txn_weight(txn, max),
            Command::Lease(LeaseCommand::Acquire { .. } | LeaseCommand::Renew { .. }) => 1,
            // With a lease goes all that is attached to it.
            Command::Lease(LeaseCommand::Release { epoch, .. } | LeaseCommand::Expire { epoch, .. }) => {
                self.attached.get(epoch).map_or(0, |keys| keys.len()) + 1
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
            Compare::Below { prefix, .. } | Compare::Unchanged { prefix, .. } => self.below(prefix, max),
            Compare::Number { key, number: Number::ChildCount, .. } => self.counting(key, max),
            Compare::Payload { .. } | Compare::Number { .. } | Compare::Lease { .. } => 1,
        });
        // One of the two branches is done.
        let done = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
            Op::Delete(key) | Op::List(key) => self.below(key, max),
            Op::Get(key) => self.counting(key, max),
            Op::Put(_) | Op::Clear(_) => 1,
        });
        let mut sum = 1;
        compared
            .chain(done)
            .take_while(|weight| {
                sum += weight;
                sum <= max
            })
            .for_each(drop);
        sum
    }

    fn refusing(&self, condition: &Condition, key: &Key, max: usize) -> usize {
        if *condition == Condition::Always { 1 } else { self.counting(key, max) }
    }

    fn below(&self, key: &Key, max: usize) -> usize {
        entries::subtree(&self.entries, key).take(max).count() + 1
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::command::{Delete, Relation, RequestId, Write};
    use crate::key::Component;

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
        let delete = |path: &[&str]| Command::Delete(Delete { key: key(path), condition: Default::default() });
        let weight = |command: Command| state.weight(&request(200, command), 50);
        assert_eq!(weight(delete(&["t", "7"])), 2);
        assert_eq!(weight(delete(&["t"])), 51, "it counts no further");
        assert_eq!(weight(Command::Put(write(&["t"]))), 1);
        assert!(weight(txn(vec![], vec![Op::Delete(key(&["t"])); 1_000])) < 200, "nor in sum");
        assert_eq!(weight(Command::Compact { revision: 1 }), usize::MAX, "it reads the disk");
    }

    #[test]
    fn a_command_weighs_as_much_as_it_may_look_at() {
        let state = state();
        let weight = |command: Command| state.weight(&request(200, command), 50);
        let conditional = |path: &[&str]| Write { condition: Condition::RevisionIs(7), ..write(path) };
        let refused = [
            Command::Create(write(&["t"])),
            Command::Put(conditional(&["t"])),
            Command::Update(conditional(&["t"])),
            Command::Delete(Delete { key: key(&["t"]), condition: Condition::RevisionIs(7) }),
        ];
        for command in refused {
            assert_eq!(weight(command.clone()), 51, "{command:?}");
        }
        for (command, expected) in [
            (Command::Create(write(&["t", "7"])), 1),
            (Command::Create(write(&["new"])), 1),
            (Command::Put(conditional(&["t", "7"])), 1),
        ] {
            assert_eq!(weight(command.clone()), expected, "{command:?}");
        }
        let prefix = || key(&["t"]);
        let children = |key| Compare::Number { key, number: Number::ChildCount, relation: Relation::Equal, operand: 7 };
        for compare in [
            Compare::Below { prefix: prefix(), relation: Relation::Less, operand: 7 },
            Compare::Unchanged { prefix: prefix(), since: 7, count: 100 },
            children(prefix()),
        ] {
            assert!(weight(txn(vec![compare.clone()], vec![])) > 50, "{compare:?}");
            let many = weight(txn(vec![compare.clone(); 1_000], vec![]));
            assert!((51..200).contains(&many), "{many} of many: {compare:?}");
        }
        for op in [Op::Get(prefix()), Op::List(prefix())] {
            assert!(weight(txn(vec![], vec![op.clone()])) > 50, "{op:?}");
        }
        assert_eq!(weight(txn(vec![children(key(&["t", "7"]))], vec![Op::Get(key(&["t", "7"]))])), 3);
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
    fn counting_again_is_no_work() {
        let mut state = state();
        let create = request(200, Command::Create(write(&["t"])));
        assert_eq!(state.weight(&create, 1_000), 101);
        state.apply(&create, 1);
        assert_eq!(state.weight(&create, 1_000), 1);
    }
}
