//! A hash of the nodes that a pattern matches: whether what a transaction read is still what there is.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::nodes::{KeepWhile, Tree};
use crate::pattern::{Node, Pattern};

/// What was read of the nodes that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Facts {
    /// Which there are.
    Paths,
    /// The payloads of those that have one. Nothing of the others, not even that they are there.
    Payloads,
    /// Those that have a payload, with the numbers of their payloads and children.
    Entries,
    /// All of them, with their payloads, the numbers of those and of their children, and the conditions that keep them.
    Nodes,
}

/// How many nodes match, and a hash of what was read of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many.
    pub count: u64,
    /// The sum of a hash for each, so that their order does not count.
    pub hash: u64,
}

impl Fingerprint {
    /// Of what `pattern` matches. `look` is told how many nodes were looked at since it was called last, and may end it.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn of<E>(
        tree: Tree<'_>,
        pattern: &Pattern,
        facts: Facts,
        mut look: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (mut sum, mut steps) = (Self::default(), 0);
        let mut walk = pattern.walk(tree, None);
        while let Some(node) = walk.next() {
            look((walk.steps() - steps) as u64)?;
            steps = walk.steps();
            if matches!(facts, Facts::Paths | Facts::Nodes) || node.entry.is_some() {
                sum.count += 1;
                sum.hash = sum.hash.wrapping_add(hash(tree, &node, facts));
            }
        }
        look((walk.steps() - steps) as u64)?;
        Ok(sum)
    }
}

fn hash(tree: Tree<'_>, node: &Node<'_>, facts: Facts) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(node.key.as_bytes());
    if facts != Facts::Paths {
        hasher.update(&node.entry.map_or(0, |entry| entry.revision).to_be_bytes());
    }
    if matches!(facts, Facts::Entries | Facts::Nodes) {
        hasher.update(&tree.payload_version(&node.key).to_be_bytes());
        hasher.update(&tree.child_list_version(&node.key).to_be_bytes());
    }
    if facts == Facts::Nodes {
        let keep_while = tree.nodes.get(&node.key).and_then(|node| node.keep_while.as_ref());
        hasher.update(&keep_while.map_or(0, KeepWhile::hash).to_be_bytes());
    }
    hasher.digest()
}
