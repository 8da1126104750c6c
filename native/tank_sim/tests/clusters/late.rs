//! A request that arrives long after its client went on is not applied.

use std::time::Duration;

use tank_engine::peers::Channel;

use crate::bed::{Cluster, TIMEOUT, eventually, get, put, put_within, wait};

fn transfer(cluster: &Cluster, to: usize) {
    let id = cluster.engine(to).identity().member_id;
    eventually("the leader to hand over", || {
        let leader = cluster.leader();
        (leader == to || wait(|reply| cluster.engine(leader).transfer_leader(id, TIMEOUT, reply)).is_ok()).then_some(())
    });
    eventually("the new leader", || (cluster.leader() == to).then_some(()));
}

/// A follower's write waits in the network while another leader takes it, and a later one. Then the
/// first leader leads again, and the old frame arrives.
#[test]
fn a_write_that_arrives_after_its_client_went_on_does_not_undo_what_came_later() {
    let cluster = Cluster::of(3);
    let first = cluster.leader();
    let (second, follower) = ((first + 1) % 3, (first + 2) % 3);
    let name = Cluster::name;
    put(cluster.engine(follower), "x", b"0").unwrap();

    cluster.net.hold(&name(follower), &name(first), Channel::Data);
    let engine = cluster.engine(follower).clone();
    let write = std::thread::spawn(move || put_within(&engine, "x", b"1", Duration::from_secs(10)));
    eventually("the write on its way", || (cluster.net.held() > 0).then_some(()));
    transfer(&cluster, second);
    write.join().unwrap().unwrap();
    put(cluster.engine(follower), "x", b"2").unwrap();
    transfer(&cluster, first);

    // Within its deadline the old frame comes into the log; on a slow machine it may be over.
    cluster.net.release();
    for i in 0..20u8 {
        put(cluster.engine(first), "later", &[i]).unwrap();
    }
    cluster.agree();
    for engine in cluster.running() {
        assert_eq!(get(engine, "x").unwrap().unwrap(), "2");
    }
}
