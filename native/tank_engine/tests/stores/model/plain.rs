//! A store in the simplest form: maps, and loops over all of them.

use std::collections::{BTreeMap, BTreeSet};

use tank_engine::command::{Number, Relation};
use tank_engine::key::Component;

pub type Place = Vec<Component>;

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub entries: BTreeMap<Place, Value>,
    pub leases: BTreeMap<u8, Held>,
    pub revision: u64,
    pub compacted: u64,
    /// The entries as each revision left them.
    pub past: BTreeMap<u64, BTreeMap<Place, Value>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub payload: Vec<u8>,
    pub revision: u64,
    pub create_revision: u64,
    pub version: u64,
    pub lease: u64,
}

/// A lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub holder: u8,
    pub epoch: u64,
    pub renewals: u64,
}

/// What is asked of a store.
#[derive(Clone, Debug)]
pub enum Ask {
    Put(Place, Vec<u8>, When, Epoch),
    Create(Place, Vec<u8>, When),
    Update(Place, Vec<u8>, When),
    Delete(Place, When),
    PutMany(Vec<Part>, Vec<u8>),
    DeleteMany(Vec<Part>),
    ClearMany(Vec<Part>),
    Txn(Vec<Compare>, Vec<Op>, Vec<Op>),
    Acquire(u8, u8),
    Renew(u8, Epoch),
    Release(u8, Epoch),
    /// So many revisions back.
    Compact(u64),
}

#[derive(Clone, Debug)]
pub enum When {
    Always,
    RevisionIs(u64),
    PayloadIs(Vec<u8>),
}

/// The epoch of a lease, as somebody believes it to be.
#[derive(Clone, Copy, Debug)]
pub enum Epoch {
    None,
    /// That of the lease of this number, if it is held.
    Of(u8),
    /// A number; mostly of no lease.
    Guess(u64),
}

#[derive(Clone, Debug)]
pub enum Part {
    Any,
    /// One level or more.
    Many,
    Is(Component),
    HasData,
}

#[derive(Clone, Debug)]
pub enum Compare {
    Payload(Place, bool, Vec<u8>),
    Number(Place, Number, Relation, u64),
    Below(Place, Relation, u64),
    Lease(u8, Relation, Epoch),
}

#[derive(Clone, Debug)]
pub enum Op {
    Put(Place, Vec<u8>, Epoch),
    Delete(Place),
    Clear(Place),
    Get(Place),
    List(Place),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done(u64),
    Exists(Value),
    NotFound,
    Conflict(Option<Value>),
    Txn(bool, u64, Vec<Response>),
    Granted(Held),
    IsHeld(Held),
    LeaseEnded,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(u64),
    Deleted(u64),
    Got(Option<(Value, u64)>),
    Listed(Vec<(Place, Value, u64)>),
}

impl Model {
    pub fn apply(&mut self, ask: &Ask) -> Answer {
        let before = self.revision;
        let answer = self.answer(ask);
        if self.revision != before {
            self.past.insert(self.revision, self.entries.clone());
        }
        answer
    }

    /// The epoch that is meant, now.
    pub fn epoch(&self, epoch: Epoch) -> u64 {
        match epoch {
            Epoch::None => 0,
            Epoch::Of(name) => self.leases.get(&name).map_or(0, |held| held.epoch),
            Epoch::Guess(epoch) => epoch,
        }
    }

    fn answer(&mut self, ask: &Ask) -> Answer {
        match ask {
            Ask::Put(place, payload, when, lease) => self.write(place, payload, when, *lease),
            Ask::Create(place, ..) if self.entries.contains_key(place) => Answer::Exists(self.entries[place].clone()),
            Ask::Update(place, ..) if !self.entries.contains_key(place) => Answer::NotFound,
            Ask::Create(place, payload, when) | Ask::Update(place, payload, when) => {
                self.write(place, payload, when, Epoch::None)
            }
            Ask::Delete(place, when) => match self.conflict(place, when) {
                Some(conflict) => conflict,
                None => self.at_one_revision(|model| model.remove(place)),
            },
            Ask::PutMany(parts, payload) => self.at_one_revision(|model| {
                let matches = model.matches(parts);
                matches.iter().for_each(|place| {
                    model.put(place, payload, 0);
                });
                matches.len()
            }),
            Ask::DeleteMany(parts) => {
                self.at_one_revision(|model| model.matches(parts).iter().map(|place| model.remove(place)).sum())
            }
            Ask::ClearMany(parts) => {
                self.at_one_revision(|model| model.matches(parts).iter().map(|place| model.clear(place)).sum())
            }
            Ask::Txn(compare, then, otherwise) => self.txn(compare, then, otherwise),
            Ask::Acquire(name, holder) => self.acquire(*name, *holder),
            Ask::Renew(name, epoch) => self.renew(*name, self.epoch(*epoch)),
            Ask::Release(name, epoch) => self.release(*name, self.epoch(*epoch)),
            Ask::Compact(back) => {
                self.compacted = self.compacted.max(self.revision.saturating_sub(*back));
                Answer::Done(self.revision)
            }
        }
    }

    /// What `change` does has the next revision; there is none when it did nothing.
    fn at_one_revision(&mut self, change: impl FnOnce(&mut Self) -> usize) -> Answer {
        self.revision += 1;
        if change(self) == 0 {
            self.revision -= 1;
        }
        Answer::Done(self.revision)
    }

    fn write(&mut self, place: &Place, payload: &[u8], when: &When, lease: Epoch) -> Answer {
        let lease = self.epoch(lease);
        if let Some(conflict) = self.conflict(place, when) {
            return conflict;
        }
        if !self.is_held(lease) {
            return Answer::LeaseEnded;
        }
        self.revision += 1;
        self.put(place, payload, lease);
        Answer::Done(self.revision)
    }

    fn conflict(&self, place: &Place, when: &When) -> Option<Answer> {
        let found = self.entries.get(place);
        let holds = match when {
            When::Always => true,
            When::RevisionIs(revision) => found.map_or(0, |value| value.revision) == *revision,
            When::PayloadIs(payload) => found.is_some_and(|value| value.payload == *payload),
        };
        (!holds).then(|| Answer::Conflict(found.cloned()))
    }

    /// No lease is needed for epoch 0.
    fn is_held(&self, epoch: u64) -> bool {
        epoch == 0 || self.leases.values().any(|held| held.epoch == epoch)
    }

    fn put(&mut self, place: &Place, payload: &[u8], lease: u64) -> u64 {
        let revision = self.revision;
        let old = self.entries.get(place);
        let (create_revision, version) = old.map_or((revision, 1), |old| (old.create_revision, old.version + 1));
        let value = Value { payload: payload.to_vec(), revision, create_revision, version, lease };
        self.entries.insert(place.clone(), value);
        version
    }

    fn remove(&mut self, place: &Place) -> usize {
        let before = self.entries.len();
        self.entries.retain(|path, _| !path.starts_with(place));
        before - self.entries.len()
    }

    fn clear(&mut self, place: &Place) -> usize {
        usize::from(self.entries.remove(place).is_some())
    }

    fn txn(&mut self, compare: &[Compare], then: &[Op], otherwise: &[Op]) -> Answer {
        let succeeded = compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { then } else { otherwise };
        let ended = |op: &Op| matches!(op, Op::Put(_, _, lease) if !self.is_held(self.epoch(*lease)));
        if ops.iter().any(ended) {
            return Answer::LeaseEnded;
        }
        let mut responses = Vec::new();
        self.at_one_revision(|model| {
            let mut changes = 0;
            for op in ops {
                let (response, changed) = model.operate(op);
                responses.push(response);
                changes += changed;
            }
            changes
        });
        Answer::Txn(succeeded, self.revision, responses)
    }

    /// What an operation gives, and how much it changes.
    fn operate(&mut self, op: &Op) -> (Response, usize) {
        match op {
            Op::Put(place, payload, lease) => (Response::Put(self.put(place, payload, self.epoch(*lease))), 1),
            Op::Delete(place) => {
                let count = self.remove(place);
                (Response::Deleted(count as u64), count)
            }
            Op::Clear(place) => {
                let count = self.clear(place);
                (Response::Deleted(count as u64), count)
            }
            Op::Get(place) => {
                let found = self.entries.get(place).map(|value| (value.clone(), self.children(place).len() as u64));
                (Response::Got(found), 0)
            }
            Op::List(place) => {
                let found = self.children(place).into_iter().filter_map(|child| {
                    let value = self.entries.get(&child)?.clone();
                    let count = self.children(&child).len() as u64;
                    Some((child, value, count))
                });
                (Response::Listed(found.collect()), 0)
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let below =
            |place: &Place| self.entries.iter().filter(move |(path, _)| path.starts_with(place)).collect::<Vec<_>>();
        match compare {
            Compare::Payload(place, equal, payload) => {
                self.entries.get(place).is_some_and(|value| value.payload == *payload) == *equal
            }
            Compare::Number(place, number, relation, operand) => relation.holds(self.number(place, *number), *operand),
            Compare::Below(place, relation, operand) => {
                below(place).iter().all(|(path, value)| *path == place || relation.holds(value.revision, *operand))
            }
            Compare::Lease(name, relation, epoch) => relation.holds(self.epoch(Epoch::Of(*name)), self.epoch(*epoch)),
        }
    }

    fn number(&self, place: &Place, number: Number) -> u64 {
        let of = |number: fn(&Value) -> u64| self.entries.get(place).map_or(0, number);
        match number {
            Number::Version => of(|value| value.version),
            Number::Revision => of(|value| value.revision),
            Number::CreateRevision => of(|value| value.create_revision),
            Number::LeaseEpoch => of(|value| value.lease),
            Number::Exists => u64::from(self.entries.keys().any(|path| path.starts_with(place))),
            Number::ChildCount => self.children(place).len() as u64,
            Number::PayloadVersion | Number::ChildListVersion => unreachable!("the model does not ask for it"),
        }
    }

    fn acquire(&mut self, name: u8, holder: u8) -> Answer {
        if let Some(held) = self.leases.get(&name) {
            return Answer::IsHeld(held.clone());
        }
        self.revision += 1;
        let held = Held { holder, epoch: self.revision, renewals: 0 };
        self.leases.insert(name, held.clone());
        Answer::Granted(held)
    }

    fn renew(&mut self, name: u8, epoch: u64) -> Answer {
        match self.leases.get_mut(&name) {
            Some(held) if held.epoch == epoch => {
                held.renewals += 1;
                Answer::Granted(held.clone())
            }
            _ => Answer::LeaseEnded,
        }
    }

    fn release(&mut self, name: u8, epoch: u64) -> Answer {
        if self.leases.get(&name).is_none_or(|held| held.epoch != epoch) {
            return Answer::LeaseEnded;
        }
        self.leases.remove(&name);
        self.revision += 1;
        self.entries.retain(|_, value| value.lease != epoch);
        Answer::Done(self.revision)
    }

    /// The paths directly below, with a value or without.
    fn children(&self, place: &Place) -> BTreeSet<Place> {
        let below = self.entries.keys().filter(|path| path.len() > place.len() && path.starts_with(place));
        below.map(|path| path[..=place.len()].to_vec()).collect()
    }

    /// Every path with a value or something below it that matches.
    fn matches(&self, parts: &[Part]) -> BTreeSet<Place> {
        let nodes = self.entries.keys().flat_map(|path| (0..=path.len()).map(|n| path[..n].to_vec()));
        nodes.filter(|place| self.is_match(parts, place, 0)).collect()
    }

    fn is_match(&self, parts: &[Part], place: &[Component], depth: usize) -> bool {
        let Some((part, rest)) = parts.split_first() else { return depth == place.len() };
        let last = if matches!(part, Part::Many) { place.len() } else { (depth + 1).min(place.len()) };
        let holds = |to: usize| match part {
            Part::Any | Part::Many => true,
            Part::Is(name) => place[to - 1] == *name,
            Part::HasData => self.entries.contains_key(&place[..to]),
        };
        (depth + 1..=last).any(|to| holds(to) && self.is_match(rest, place, to))
    }
}
