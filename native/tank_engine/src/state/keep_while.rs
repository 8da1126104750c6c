//! Conditions that keep nodes: a node goes, with all below it, when they do not hold any more.
//!
//! They are looked at twice. A write that brings conditions is refused if one of them does not hold before it. And after
//! each operation, the conditions that name what it changed are evaluated; nodes whose conditions do not hold are
//! deleted, and then what that changed is looked at, until nothing goes:
//!
//! ```text
//! changed or created [a] ──> the holders of a condition on exactly [a]: that condition
//! deleted [a]            ──> the holders of a condition on [a] or below: all their conditions
//! ```
//!
//! So a condition with wildcards is not evaluated when a node comes or changes under it, only when the path that it
//! begins with goes. The root never counts as changed.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, Op, Write};
use crate::key::Key;
use crate::nodes::{KeepCondition, Tree};
use crate::outcome::{NodeAfter, Refusal, Response};
use crate::pattern::Node;

use super::State;
use super::apply::Work;

/// The most nodes that one command may look at because of conditions: less than a second of work.
pub(super) const LOOKS_MAX: u64 = 500_000;

/// The most conditions that a little write looks at: microseconds of work.
const LITTLE: usize = 64;

/// Which conditions of a node to look at.
#[derive(Clone)]
enum Which {
    All,
    /// Those on exactly these paths.
    On(BTreeSet<Key>),
}

/// How a condition stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Holds,
    Unmet,
    NoneMatch,
}

impl State {
    /// Whether the conditions that a write brings hold before it. Those on the node itself and below it are not looked
    /// at when it is new.
    pub(super) fn check_keep_while(&self, write: &Write) -> Result<(), Refusal> {
        self.check_keep_while_within(write, &mut { LOOKS_MAX })
    }

    fn check_keep_while_within(&self, write: &Write, left: &mut u64) -> Result<(), Refusal> {
        let Some(keep_while) = &write.how.keep_while else { return Ok(()) };
        let tree = self.tree();
        let is_new = !write.key.is_root() && !tree.exists(&write.key);
        for (index, (one, path, is_path)) in (0..).zip(keep_while.placed()) {
            if is_new && path.is_within(&write.key) {
                continue;
            }
            let standing = one.standing(tree, is_path.then_some(path), left)?;
            if standing != Standing::Holds {
                let is_missing = standing == Standing::NoneMatch;
                return Err(Refusal::KeepWhile { key: write.key.clone(), condition: index, is_missing });
            }
        }
        Ok(())
    }

    /// Deletes what the changes so far do not let stay.
    pub(super) fn settle(&mut self, looks_max: u64, work: &mut Work) -> Result<(), Refusal> {
        let mut left = looks_max;
        while let Some((changed, deleted)) = work.scope.take() {
            for key in self.not_kept(&changed, &deleted, &mut left)? {
                self.remove_subtree(&key, &NodeAfter::NotKept, work);
            }
        }
        Ok(())
    }

    /// Puts, if that is little work: nothing goes because of it, and few conditions are looked at. `None` if it is more;
    /// then this state is of no use any more.
    pub(super) fn put_little(&mut self, write: &Write, work: &mut Work) -> Result<Option<Response>, Refusal> {
        let mut left = LITTLE as u64;
        self.check_condition(&write.condition, &write.key)?;
        match self.check_keep_while_within(write, &mut left) {
            Err(Refusal::TooManyConditions(_)) => return Ok(None),
            checked => checked?,
        }
        work.scope.begin(write.how.returns);
        let response = Response::Put(self.put(write, work));
        if let Some((changed, deleted)) = work.scope.take()
            && !self.all_are_kept(&changed, &deleted, &mut left)
        {
            return Ok(None);
        }
        Ok(Some(work.scope.answer(self).map_or(response, Response::Changed)))
    }

    /// Whether all nodes stay, as far as few conditions tell.
    fn all_are_kept(&self, changed: &[Key], deleted: &[Key], left: &mut u64) -> bool {
        let of_changed = changed.iter().flat_map(|path| self.nodes.holders_of(path));
        let of_deleted = deleted.iter().flat_map(|path| self.nodes.holders_within(path));
        let are_few = of_changed.chain(of_deleted).nth(LITTLE).is_none();
        are_few && self.not_kept(changed, deleted, left).is_ok_and(|gone| gone.is_empty())
    }

    fn not_kept(&self, changed: &[Key], deleted: &[Key], left: &mut u64) -> Result<Vec<Key>, Refusal> {
        let mut holders = BTreeMap::new();
        for path in changed.iter().filter(|path| !path.is_root()) {
            for holder in self.nodes.holders_of(path) {
                let on = || Which::On(BTreeSet::new());
                if let Which::On(paths) = holders.entry(holder.clone()).or_insert_with(on) {
                    paths.insert(path.clone());
                }
            }
        }
        for path in deleted {
            holders.extend(self.nodes.holders_within(path).map(|holder| (holder.clone(), Which::All)));
        }
        let mut gone = Vec::new();
        for (holder, which) in holders {
            if !self.is_kept(&holder, &which, left)? {
                gone.push(holder);
            }
        }
        Ok(gone)
    }

    fn is_kept(&self, holder: &Key, which: &Which, left: &mut u64) -> Result<bool, Refusal> {
        let Some(keep_while) = self.nodes.get(holder).and_then(|node| node.keep_while.as_ref()) else {
            return Ok(true);
        };
        for (one, path, is_path) in keep_while.placed() {
            let is_asked = match which {
                Which::All => true,
                Which::On(paths) => is_path && paths.contains(path),
            };
            if is_asked && one.standing(self.tree(), is_path.then_some(path), left)? != Standing::Holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl KeepCondition {
    /// `path` is what the pattern is, if that is no more than a path.
    fn standing(&self, tree: Tree<'_>, path: Option<&Key>, left: &mut u64) -> Result<Standing, Refusal> {
        let mut look = |looks: u64| {
            *left = left.checked_sub(looks).ok_or(Refusal::TooManyConditions(LOOKS_MAX))?;
            Ok(())
        };
        look(1)?;
        let mut any = false;
        if let Some(path) = path {
            if path.is_root() || tree.exists(path) {
                any = true;
                if !self.condition.holds(tree, &Node::at(tree, path)) {
                    return Ok(Standing::Unmet);
                }
            }
        } else {
            let (mut walk, mut steps) = (self.pattern.walk(tree, None), 0);
            while let Some(node) = walk.next() {
                any = true;
                if !self.condition.holds(tree, &node) {
                    return Ok(Standing::Unmet);
                }
                look((walk.steps() - steps) as u64)?;
                steps = walk.steps();
            }
            look((walk.steps() - steps) as u64)?;
        }
        Ok(if any || self.holds_of_none() { Standing::Holds } else { Standing::NoneMatch })
    }
}

impl Command {
    /// Whether it brings conditions that keep nodes.
    pub(super) fn brings_conditions(&self) -> bool {
        let brings = |op: &Op| matches!(op, Op::Put(write) if write.how.keep_while.is_some());
        match self {
            Self::Put(write) | Self::Create(write) | Self::Update(write) => write.how.keep_while.is_some(),
            Self::PutMany(put) => put.how.keep_while.is_some(),
            Self::Txn(txn) => txn.then.iter().chain(&txn.otherwise).any(brings),
            _ => false,
        }
    }
}
