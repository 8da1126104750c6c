//! How much work a command is, before it is done.

use crate::command::{Command, LeaseCommand, Op, Request};
use crate::entries;
use crate::key::Key;

use super::State;

impl State {
    /// About how many entries applying `request` concerns; `usize::MAX` where only applying it tells.
    /// Counts no further than a little above `max`.
    pub(crate) fn weight(&self, request: &Request, max: usize) -> usize {
        let below = |key: &Key| entries::subtree(&self.entries, key).take(max).count() + 1;
        match &request.command {
            Command::Put(_) | Command::Create(_) | Command::Update(_) | Command::Compact { .. } => 1,
            Command::Lease(LeaseCommand::Acquire { .. } | LeaseCommand::Renew { .. }) => 1,
            Command::Delete(delete) => below(&delete.key),
            Command::Txn(txn) => {
                let weight = |op: &Op| match op {
                    Op::Delete(key) | Op::List(key) => below(key),
                    Op::Put(_) | Op::Clear(_) | Op::Get(_) => 1,
                };
                // One of the two is done.
                let ops = txn.then.iter().chain(&txn.otherwise);
                ops.fold(txn.compare.len() + 1, |sum, op| if sum > max { sum } else { sum + weight(op) })
            }
            // All that match; all that go with the lease.
            Command::PutMany(_) | Command::DeleteMany(_) | Command::ClearMany(_) | Command::Lease(_) => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::command::{Delete, RequestId, Txn, Write};
    use crate::key::Component;

    use super::*;

    fn key(path: &[&str]) -> Key {
        Key::of(&path.iter().map(|name| Component::String(name.as_bytes().to_vec())).collect::<Vec<_>>())
    }

    fn request(sequence: u64, command: Command) -> Request {
        Request { id: RequestId { client: 1, sequence, resolved_below: 0 }, time_ms: 0, command, seen_ms: 0 }
    }

    #[test]
    fn a_command_weighs_as_much_as_it_may_change() {
        let mut state = State::default();
        for i in 0..100 {
            let write = Write::new(key(&["t", &i.to_string()]), Bytes::from_static(b"v"));
            state.apply(&request(i, Command::Put(write)), i);
        }
        let delete = |path: &[&str]| Command::Delete(Delete { key: key(path), condition: Default::default() });
        let weight = |command: Command| state.weight(&request(100, command), 50);
        assert_eq!(weight(delete(&["t", "7"])), 2);
        assert_eq!(weight(delete(&["t"])), 51, "it counts no further");
        assert_eq!(weight(Command::Put(Write::new(key(&["t"]), Bytes::new()))), 1);
        let then = vec![Op::Delete(key(&["t"])); 1_000];
        assert!(weight(Command::Txn(Txn { compare: vec![], then, otherwise: vec![] })) < 200, "nor in sum");
        let ended = LeaseCommand::Expire { name: Bytes::new(), epoch: 1, renewals: 0 };
        assert_eq!(weight(Command::Lease(ended)), usize::MAX);
    }
}
