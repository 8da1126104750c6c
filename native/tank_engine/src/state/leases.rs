//! Leases: granted to one holder at a time, ended by it or by the leader.
//!
//! Nothing here looks at a clock. That a lease's time is over is the leader's judgement
//! ([`crate::engine`]), and becomes true only as a command in the log, which a renewal that stands
//! before it makes void. The epoch of a grant is the store's revision at it: it rises with every
//! grant of any lease, so that no two holders ever have the same.
//!
//! A lease that was granted in another history ([`super::History`]) has no holder any more: it cannot be renewed,
//! and nothing can be written with it. It ends when its time is over, and no earlier, since until then its former
//! holder may count on it; or when that one releases it.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::command::LeaseCommand;
use crate::key::Key;
use crate::lease::Lease;
use crate::outcome::{Outcome, Refusal};

use super::apply::Work;
use super::{Cause, State};

/// Leases by name. Cloning costs nothing.
pub type Leases = OrdMap<Bytes, Arc<Lease>>;

/// What became of a lease.
#[derive(Clone, Debug)]
pub struct LeaseChange {
    /// Its name.
    pub name: Bytes,
    /// As it is now, unless it has ended.
    pub lease: Option<Arc<Lease>>,
}

impl State {
    /// Whether somebody holds a lease of that epoch.
    pub(super) fn holds_lease(&self, epoch: u64) -> bool {
        self.is_of_this_history(epoch) && self.attached.contains_key(&epoch)
    }

    pub(super) fn apply_lease(&mut self, command: &LeaseCommand, work: &mut Work) -> Outcome {
        let held = self.leases.get(command.name()).cloned();
        match (command, held) {
            (LeaseCommand::Acquire { .. }, Some(held)) => Outcome::Refused(Refusal::Held((*held).clone())),
            (LeaseCommand::Acquire { name, holder, ttl_ms }, None) => {
                let (name, holder) = (name.clone(), holder.clone());
                let lease = Lease { name, holder, epoch: work.revision(self), ttl_ms: *ttl_ms, renewals: 0 };
                self.change_lease(&lease.name.clone(), Some(Arc::new(lease.clone())), work);
                Outcome::Granted(lease)
            }
            (LeaseCommand::Renew { epoch, .. }, Some(held))
                if held.epoch == *epoch && self.is_of_this_history(*epoch) =>
            {
                let lease = Lease { renewals: held.renewals.saturating_add(1), ..(*held).clone() };
                self.change_lease(&lease.name.clone(), Some(Arc::new(lease.clone())), work);
                Outcome::Granted(lease)
            }
            (LeaseCommand::Renew { .. }, _) => Outcome::Refused(Refusal::LeaseEnded),
            (LeaseCommand::Release { epoch, .. }, Some(held)) if held.epoch == *epoch => {
                self.end_lease(&held, Cause::Command, work)
            }
            (LeaseCommand::Release { .. }, _) => Outcome::Refused(Refusal::LeaseEnded),
            (LeaseCommand::Expire { epoch, renewals, .. }, Some(held))
                if (held.epoch, held.renewals) == (*epoch, *renewals) =>
            {
                self.end_lease(&held, Cause::Expiry, work)
            }
            (LeaseCommand::Expire { .. }, _) => Outcome::Done { revision: self.revision },
        }
    }

    fn end_lease(&mut self, lease: &Lease, cause: Cause, work: &mut Work) -> Outcome {
        let revision = work.revision(self);
        for key in self.attached.get(&lease.epoch).cloned().unwrap_or_default() {
            self.clear(&key, false, cause, work);
        }
        self.change_lease(&lease.name, None, work);
        // The end of a lease cannot be refused.
        match self.done(u64::MAX, work) {
            Outcome::Refused(_) => Outcome::Done { revision },
            done => done,
        }
    }

    fn change_lease(&mut self, name: &Bytes, lease: Option<Arc<Lease>>, work: &mut Work) {
        self.set_lease(name, lease.clone());
        work.leases.push(LeaseChange { name: name.clone(), lease });
    }

    /// Replaces a lease, and keeps the digest right.
    pub(super) fn set_lease(&mut self, name: &Bytes, lease: Option<Arc<Lease>>) {
        if let Some(new) = &lease {
            self.digest.add(new.hash());
            self.attached.entry(new.epoch).or_default();
        }
        let epoch = lease.as_ref().map(|new| new.epoch);
        let old = match lease {
            Some(new) => self.leases.insert(name.clone(), new),
            None => self.leases.remove(name),
        };
        if let Some(old) = &old {
            self.digest.remove(old.hash());
            if epoch != Some(old.epoch) {
                self.attached.remove(&old.epoch);
            }
        }
    }

    /// Notes that the entry at `key` goes with the lease of an epoch; 0 for none.
    pub(super) fn attach(&mut self, epoch: u64, key: &Key) {
        if epoch != 0 {
            self.attached.entry(epoch).or_default().insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, epoch: u64, key: &Key) {
        if let Some(keys) = self.attached.get_mut(&epoch) {
            keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Request, RequestId, Write};
    use crate::state::Applied;

    #[derive(Default)]
    struct Client(State, u64);

    impl Client {
        fn apply(&mut self, command: Command) -> Applied {
            self.1 += 1;
            let id = RequestId { client: 1, sequence: self.1, resolved_below: self.1 };
            self.0.apply(&Request { id, time_ms: 0, command, seen_ms: 0 }, 1)
        }

        fn lease(&mut self, command: LeaseCommand) -> Outcome {
            self.apply(Command::Lease(command)).outcome
        }

        fn acquire(&mut self, name: &'static str) -> Outcome {
            let holder = Bytes::from_static(b"me");
            self.lease(LeaseCommand::Acquire { name: Bytes::from_static(name.as_bytes()), holder, ttl_ms: 10 })
        }
    }

    fn granted(outcome: &Outcome) -> Lease {
        let Outcome::Granted(lease) = outcome else { panic!("{outcome:?}") };
        lease.clone()
    }

    fn attached(name: &str, lease: u64) -> Command {
        let key = Key::from_bytes(format!("\x02{name}\0").as_bytes());
        Command::Put(Write { lease, ..Write::new(key, Bytes::new()) })
    }

    #[test]
    fn epochs_rise_with_every_grant_and_not_with_renewals() {
        let mut c = Client::default();
        let first = granted(&c.acquire("a"));
        assert!(matches!(c.acquire("a"), Outcome::Refused(Refusal::Held(l)) if l == first));
        let name = first.name.clone();
        let renewed = granted(&c.lease(LeaseCommand::Renew { name: name.clone(), epoch: first.epoch }));
        assert_eq!((renewed.epoch, renewed.renewals), (first.epoch, 1));
        let other = granted(&c.acquire("b"));
        assert!(other.epoch > first.epoch);
        c.lease(LeaseCommand::Release { name: name.clone(), epoch: first.epoch });
        assert!(granted(&c.acquire("a")).epoch > other.epoch);
        let stale = c.lease(LeaseCommand::Renew { name, epoch: first.epoch });
        assert_eq!(stale, Outcome::Refused(Refusal::LeaseEnded));
    }

    #[test]
    fn an_expiry_is_void_after_a_renewal_and_takes_what_is_attached_otherwise() {
        let mut c = Client::default();
        let lease = granted(&c.acquire("a"));
        for name in ["x", "y", "z"] {
            c.apply(attached(name, lease.epoch));
        }
        c.apply(attached("z", 0));
        let (name, epoch) = (lease.name.clone(), lease.epoch);
        c.lease(LeaseCommand::Renew { name: name.clone(), epoch });
        c.lease(LeaseCommand::Expire { name: name.clone(), epoch, renewals: 0 });
        assert_eq!(c.0.leases.len(), 1);
        let applied = c.apply(Command::Lease(LeaseCommand::Expire { name, epoch, renewals: 1 }));
        let causes: Vec<_> = applied.changes.iter().map(|change| change.cause).collect();
        assert_eq!(causes, [Cause::Expiry, Cause::Expiry]);
        assert_eq!((c.0.leases.len(), c.0.entries.len(), c.0.attached.len()), (0, 1, 0));
        assert!(matches!(c.apply(attached("x", epoch)).outcome, Outcome::Refused(Refusal::LeaseEnded)));
    }

    #[test]
    fn the_digest_knows_leases() {
        let mut c = Client::default();
        let before = c.0.digest;
        let lease = granted(&c.acquire("a"));
        assert_ne!(c.0.digest, before);
        c.lease(LeaseCommand::Release { name: lease.name, epoch: lease.epoch });
        assert_eq!(c.0.digest, before);
    }
}
