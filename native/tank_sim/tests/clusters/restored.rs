//! A store that was restored from a backup, and members that join it: they get all of it.

use std::path::PathBuf;

use tank_engine::backup::{Progress, restore};
use tank_engine::engine::Engine;
use tank_engine::options::Formation;

use crate::bed::{Cluster, get, put};

const ENTRIES: u32 = 100;

/// A cluster of one member that holds [`ENTRIES`] entries from a backup; node 0 is started.
fn restored(nodes: usize, snapshot_interval_entries: u64) -> Cluster {
    let origin = Cluster::of(1);
    for i in 0..ENTRIES {
        put(origin.engine(0), &format!("k{i}"), &i.to_be_bytes()).unwrap();
    }
    let file = origin.path(0).with_file_name("backup");
    origin.engine(0).backup(&file, &Progress::default()).unwrap();
    let mut cluster = Cluster::unstarted(nodes, snapshot_interval_entries);
    restore(&file, &cluster.path(0), Some("tank"), &Cluster::name(0), &Progress::default()).unwrap();
    cluster.start(0, Formation::NewCluster);
    cluster
}

fn has_all(engine: &Engine) {
    for i in 0..ENTRIES {
        let found = get(engine, &format!("k{i}")).unwrap();
        assert_eq!(found.as_deref(), Some(&i.to_be_bytes()[..]), "k{i}");
    }
}

#[test]
fn members_that_join_a_restored_store_have_everything_when_its_first_member_is_gone() {
    let mut cluster = restored(3, 20_000);
    cluster.join(1);
    cluster.join(2);
    cluster.agree();
    cluster.stop(0);
    cluster.leader_among_running();
    put(cluster.engine(1), "later", b"1").unwrap();
    for node in 1..3 {
        has_all(cluster.engine(node));
        assert_eq!(cluster.engine(node).status().unwrap().entries, u64::from(ENTRIES) + 1);
    }
    cluster.agree();
}

#[test]
fn a_restored_store_that_ran_on_and_was_restarted_gives_joiners_everything() {
    let mut cluster = restored(2, 50);
    for i in 0..200 {
        put(cluster.engine(0), &format!("later{i}"), b"1").unwrap();
    }
    cluster.stop(0);
    cluster.start(0, Formation::NewCluster);
    cluster.join(1);
    cluster.agree();
    has_all(cluster.engine(1));
    assert_eq!(cluster.engine(1).status().unwrap().entries, u64::from(ENTRIES) + 200);
}

#[test]
fn a_restored_store_is_still_one_member_on_a_node_of_another_name() {
    let mut cluster = restored(1, 20_000);
    cluster.stop(0);
    let from: PathBuf = cluster.path(0);
    cluster.nodes.push(None);
    std::fs::rename(from, cluster.path(1)).unwrap();
    cluster.start(1, Formation::NewCluster);
    has_all(cluster.engine(1));
    let members = cluster.engine(1).cluster().unwrap().members;
    assert_eq!(members.iter().map(|member| member.node.as_str()).collect::<Vec<_>>(), ["n1"]);
}
