//! Nodes as plain as can be: a map of every node, and rules that look at all of it.

use std::collections::{BTreeMap, BTreeSet};

use tank_engine::command::Relation;

pub type Place = Vec<u8>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub payload: Option<u8>,
    pub payload_version: u64,
    pub child_list_version: u64,
    pub stays: bool,
    pub keep: Vec<Keep>,
}

/// A condition on other nodes: those of which each name is one of the path, or any, and as many as that or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    pub path: Vec<Option<u8>>,
    pub is_deep: bool,
    pub condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Exists,
    Missing,
    HasData,
    Bare,
    Data(u8),
    ChildCount(Relation, u64),
    PayloadVersion(Relation, u64),
    ChildListVersion(Relation, u64),
}

#[derive(Clone, Debug)]
pub enum Op {
    Put(Place, u8, How),
    PutNode(Place, Option<Vec<Keep>>),
    Delete(Place),
    Clear(Place, bool),
    /// Of all nodes directly below a path.
    DeleteChildren(Place),
}

#[derive(Clone, Debug)]
pub struct How {
    pub unless_same: bool,
    pub keep: Option<Vec<Keep>>,
}

/// Why an operation is refused: which condition, and whether nothing matches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotKept(pub usize, pub bool);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    There,
    Deleted,
    NotKept,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: BTreeMap<Place, Node>,
    bumped: BTreeSet<Place>,
    pub told: BTreeMap<Place, (Option<Node>, After)>,
}

impl Default for Model {
    fn default() -> Self {
        let root = Node { payload: None, payload_version: 1, child_list_version: 1, stays: true, keep: vec![] };
        Self { nodes: [(vec![], root)].into(), bumped: BTreeSet::new(), told: BTreeMap::new() }
    }
}

fn child_count(nodes: &BTreeMap<Place, Node>, place: &[u8]) -> u64 {
    nodes.keys().filter(|other| other.len() == place.len() + 1 && other.starts_with(place)).count() as u64
}

impl Keep {
    fn matches(&self, place: &[u8]) -> bool {
        let fits = |(name, asked): (&u8, &Option<u8>)| asked.is_none_or(|asked| asked == *name);
        let long = if self.is_deep { place.len() > self.path.len() } else { place.len() == self.path.len() };
        long && place.iter().zip(&self.path).all(fits)
    }

    fn literal(&self) -> (Place, bool) {
        let names: Place = self.path.iter().map_while(|name| *name).collect();
        let is_whole = names.len() == self.path.len() && !self.is_deep;
        (names, is_whole)
    }
}

impl Model {
    pub fn child_count(&self, place: &[u8]) -> u64 {
        child_count(&self.nodes, place)
    }

    fn children(&self, place: &[u8]) -> Vec<Place> {
        let is_child = |other: &&Place| other.len() == place.len() + 1 && other.starts_with(place);
        self.nodes.keys().filter(is_child).cloned().collect()
    }

    pub fn apply(&mut self, op: &Op) -> Result<(), NotKept> {
        let (mut before, backup) = (self.nodes.clone(), self.clone());
        self.bumped.clear();
        self.told.clear();
        if let Err(refused) = self.perform(op) {
            *self = backup;
            return Err(refused);
        }
        loop {
            let gone = self.not_kept(&before);
            before = self.nodes.clone();
            for place in &gone {
                self.delete(place, &After::NotKept);
            }
            if before == self.nodes {
                return Ok(());
            }
        }
    }

    fn perform(&mut self, op: &Op) -> Result<(), NotKept> {
        match op {
            Op::Put(place, payload, how) => {
                self.check(place, &how.keep)?;
                self.tell(place, After::There);
                let same = self.nodes.get(place).is_some_and(|node| node.payload == Some(*payload)) && how.unless_same;
                if !same {
                    self.make(place, 0);
                    let node = self.nodes.get_mut(place).unwrap();
                    node.payload = Some(*payload);
                    node.payload_version += 1;
                }
                self.keep(place, &how.keep);
            }
            Op::PutNode(place, keep) => {
                self.check(place, keep)?;
                self.tell(place, After::There);
                self.make(place, 1);
                self.keep(place, keep);
                self.clear(place, true);
            }
            Op::Delete(place) => self.delete(place, &After::Deleted),
            Op::Clear(place, keep_node) => self.clear(place, *keep_node),
            Op::DeleteChildren(place) => {
                self.children(place).iter().for_each(|child| self.delete(child, &After::Deleted));
            }
        }
        Ok(())
    }

    fn tell(&mut self, place: &[u8], after: After) {
        let node = self.nodes.get(place).cloned();
        if after == After::There {
            self.told.entry(place.to_vec()).or_insert((node, after));
        } else {
            self.told.insert(place.to_vec(), (node, after));
        }
    }

    fn make(&mut self, place: &[u8], version: u64) {
        for length in 1..=place.len() {
            let (above, node) = (&place[..length - 1], place[..length].to_vec());
            if self.nodes.contains_key(&node) {
                continue;
            }
            let is_it = length == place.len();
            let payload_version = if is_it { version } else { 1 };
            let fresh = Node { payload: None, payload_version, child_list_version: 1, stays: is_it, keep: vec![] };
            self.nodes.insert(node.clone(), fresh);
            self.bump(above);
            // A child that comes with it is no change of its list.
            if !is_it {
                self.bumped.insert(node);
            }
        }
    }

    fn bump(&mut self, place: &[u8]) {
        if self.bumped.insert(place.to_vec()) {
            self.nodes.get_mut(place).unwrap().child_list_version += 1;
        }
    }

    fn keep(&mut self, place: &[u8], keep: &Option<Vec<Keep>>) {
        if let Some(keep) = keep {
            let node = self.nodes.get_mut(place).unwrap();
            node.keep = keep.clone();
            node.stays = true;
        }
    }

    fn clear(&mut self, place: &[u8], keep_node: bool) {
        if self.nodes.get(place).is_none_or(|node| node.payload.is_none()) {
            return;
        }
        let stays = place.is_empty() || keep_node && self.nodes[place].stays;
        let goes = !stays && self.child_count(place) == 0;
        if goes && !keep_node {
            self.delete(place, &After::Deleted);
            return;
        }
        self.tell(place, After::There);
        let node = self.nodes.get_mut(place).unwrap();
        node.payload = None;
        node.payload_version += 1;
        node.stays = stays;
        if goes {
            self.delete(place, &After::NotKept);
        }
    }

    fn delete(&mut self, place: &[u8], after: &After) {
        if !self.nodes.contains_key(place)
            || self.nodes.len() == 1 && place.is_empty() && self.nodes[place].payload.is_none()
        {
            return;
        }
        let below: Vec<Place> =
            self.nodes.keys().filter(|other| other.starts_with(place) && !other.is_empty()).cloned().collect();
        below.iter().for_each(|gone| self.tell(gone, after.clone()));
        if place.is_empty() {
            self.tell(place, After::There);
            if self.child_count(place) > 0 {
                self.nodes.get_mut(place).unwrap().child_list_version += 1;
            }
            let root = self.nodes.get_mut(place).unwrap();
            root.payload_version += u64::from(root.payload.take().is_some());
        }
        below.iter().for_each(|gone| drop(self.nodes.remove(gone)));
        let mut child = place.to_vec();
        while child.pop().is_some() {
            self.bump(&child.clone());
            let node = &self.nodes[&child];
            if node.stays || node.payload.is_some() || self.child_count(&child) > 0 {
                return;
            }
            self.tell(&child.clone(), After::NotKept);
            self.nodes.remove(&child);
        }
    }

    fn check(&self, place: &[u8], keep: &Option<Vec<Keep>>) -> Result<(), NotKept> {
        let is_new = !self.nodes.contains_key(place);
        for (index, one) in keep.iter().flatten().enumerate() {
            if is_new && one.literal().0.starts_with(place) {
                continue;
            }
            self.standing(one).map_err(|is_missing| NotKept(index, is_missing))?;
        }
        Ok(())
    }

    fn standing(&self, keep: &Keep) -> Result<(), bool> {
        let matched: Vec<_> = self.nodes.keys().filter(|place| keep.matches(place)).collect();
        if matched.iter().any(|place| !self.holds(&keep.condition, place)) {
            return Err(false);
        }
        if matched.is_empty() && keep.condition != Condition::Missing { Err(true) } else { Ok(()) }
    }

    fn holds(&self, condition: &Condition, place: &[u8]) -> bool {
        let node = &self.nodes[place];
        match condition {
            Condition::Exists => true,
            Condition::Missing => false,
            Condition::HasData => node.payload.is_some(),
            Condition::Bare => node.payload.is_none(),
            Condition::Data(payload) => node.payload == Some(*payload),
            Condition::ChildCount(relation, n) => relation.holds(self.child_count(place), *n),
            Condition::PayloadVersion(relation, n) => relation.holds(node.payload_version, *n),
            Condition::ChildListVersion(relation, n) => relation.holds(node.child_list_version, *n),
        }
    }

    /// The nodes that must go because of what has changed since `before`.
    fn not_kept(&self, before: &BTreeMap<Place, Node>) -> Vec<Place> {
        // The version of a child list rises once for each command, however often the list changes.
        let bare = |nodes: &BTreeMap<Place, Node>, place: &Place| {
            let node = nodes.get(place)?;
            Some((node.payload, node.payload_version, node.child_list_version, child_count(nodes, place)))
        };
        let changed = |place: &Place| {
            !place.is_empty() && bare(&self.nodes, place) != bare(before, place) && self.nodes.contains_key(place)
        };
        let gone = |place: &Place| before.contains_key(place) && !self.nodes.contains_key(place);
        let all: BTreeSet<Place> = before.keys().chain(self.nodes.keys()).cloned().collect();
        let (changed, gone): (BTreeSet<&Place>, Vec<&Place>) =
            (all.iter().filter(|place| changed(place)).collect(), all.iter().filter(|place| gone(place)).collect());
        let asked = |keep: &Keep| {
            let (path, is_whole) = keep.literal();
            is_whole && changed.contains(&path)
        };
        let all_asked = |keep: &Keep| gone.iter().any(|gone| keep.literal().0.starts_with(gone));
        let is_unmet = |node: &Node| {
            let all = node.keep.iter().any(all_asked);
            node.keep.iter().any(|keep| (all || asked(keep)) && self.standing(keep).is_err())
        };
        self.nodes.iter().filter(|(_, node)| is_unmet(node)).map(|(place, _)| place.clone()).collect()
    }
}
