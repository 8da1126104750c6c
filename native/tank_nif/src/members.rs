//! The members of a store's cluster: who they are, and changing that.

use std::time::Duration;

use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, OwnedEnv, Resource, ResourceArc, Term};
use tank_engine::engine::{ClusterStatus, ClusterWatch, MemberStatus};
use tank_engine::peers::MembershipChange;
use tank_engine::raft::Member;

use crate::store::Store;
use crate::{atoms, errors, reply};

/// The cluster as this member knows it, at once: `{:ok, map}` or `{:error, reason}`.
#[rustler::nif]
fn cluster<'a>(env: Env<'a>, store: &'a Store) -> NifResult<Term<'a>> {
    match store.engine.cluster() {
        Ok(cluster) => Ok((atoms::ok(), cluster_map(env, store, &cluster)?).encode(env)),
        Err(error) => Ok(errors::error(env, &error)),
    }
}

/// Gives the engine a frame that `node` sent: `:ok`, or `{:other_cluster, cluster_id}` when it is one of another
/// cluster, and was dropped. Frames are small: whatever is large comes in parts.
#[rustler::nif]
fn deliver<'a>(env: Env<'a>, store: &'a Store, node: &str, frame: Binary<'a>) -> Term<'a> {
    match store.engine.deliver(node, &frame) {
        None => atoms::ok().encode(env),
        Some(cluster_id) => (atoms::other_cluster(), cluster_id).encode(env),
    }
}

/// A watch of the cluster, for as long as this is referred to.
struct Following(#[expect(dead_code, reason = "what counts is when it is dropped")] ClusterWatch);

#[rustler::resource_impl]
impl Resource for Following {}

/// Sends the calling process `tank_cluster_changed` now, whenever the leader, the members or the quorum change, and
/// when the store is closed or fails; as long as what is returned is referred to: `{:ok, following}` or
/// `{:error, reason}`.
#[rustler::nif]
fn follow_cluster<'a>(env: Env<'a>, store: &'a Store) -> Term<'a> {
    let pid = env.pid();
    let changed = Box::new(move || {
        let _ = OwnedEnv::new().send_and_clear(&pid, |_| atoms::tank_cluster_changed());
    });
    match store.engine.watch_cluster(changed) {
        Ok(watch) => (atoms::ok(), ResourceArc::new(Following(watch))).encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// Has the leader change the members: `{:ok, call}`, and `{reference, :ok | {:error, reason}}`
/// comes within `timeout_ms`. `change` is `{:add_learner, id, node, witness?} | {:promote,
/// id} | {:demote, id} | {:remove, id} | {:rename, id, node}`.
#[rustler::nif]
fn change_members<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    change: Term<'a>,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let change = self::change(change)?;
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    store.engine.change_members(change, Duration::from_millis(timeout_ms), reply);
    Ok((atoms::ok(), call).encode(env))
}

/// Has this member, which must lead, make another one the leader: answers as `change_members`.
#[rustler::nif]
fn transfer_leader<'a>(
    env: Env<'a>,
    store: &'a Store,
    reference: Term<'a>,
    to: u64,
    timeout_ms: u64,
) -> NifResult<Term<'a>> {
    let (call, reply) = reply::expect(env, reply::reference(reference)?, |env, ()| atoms::ok().encode(env));
    store.engine.transfer_leader(to, Duration::from_millis(timeout_ms), reply);
    Ok((atoms::ok(), call).encode(env))
}

/// Tells the engine that the connection to a node was lost.
#[rustler::nif]
fn peer_lost(store: &Store, node: &str) -> Atom {
    store.engine.peer_lost(node);
    atoms::ok()
}

/// Tells the engine that a node is connected and the store is not open there.
#[rustler::nif]
fn peer_absent(store: &Store, node: &str) -> Atom {
    store.engine.peer_absent(node);
    atoms::ok()
}

fn change(term: Term<'_>) -> NifResult<MembershipChange> {
    if let Ok((kind, id, node, witness)) = term.decode::<(Atom, u64, String, bool)>() {
        return if kind == atoms::add_learner() {
            Ok(MembershipChange::AddLearner(id, Member { node, witness }))
        } else {
            Err(Error::BadArg)
        };
    }
    if let Ok((kind, id, node)) = term.decode::<(Atom, u64, String)>() {
        return if kind == atoms::rename() { Ok(MembershipChange::Rename(id, node)) } else { Err(Error::BadArg) };
    }
    let (kind, id): (Atom, u64) = term.decode()?;
    if kind == atoms::promote() {
        Ok(MembershipChange::Promote(id))
    } else if kind == atoms::demote() {
        Ok(MembershipChange::Demote(id))
    } else if kind == atoms::remove() {
        Ok(MembershipChange::Remove(id))
    } else {
        Err(Error::BadArg)
    }
}

fn cluster_map<'a>(env: Env<'a>, store: &Store, cluster: &ClusterStatus) -> NifResult<Term<'a>> {
    let identity = store.engine.identity();
    let members = cluster.members.iter().map(|member| member_map(env, member)).collect::<NifResult<Vec<_>>>()?;
    let pairs: [(Atom, Term<'a>); 11] = [
        (atoms::member_id(), identity.member_id.encode(env)),
        (atoms::cluster_id(), identity.cluster_id.encode(env)),
        (atoms::members(), members.encode(env)),
        (atoms::leader(), cluster.leader.encode(env)),
        (atoms::term(), cluster.term.encode(env)),
        (atoms::last_log_index(), cluster.last_log_index.encode(env)),
        (atoms::purged_index(), cluster.purged_index.encode(env)),
        (atoms::role(), role(cluster.role).encode(env)),
        (atoms::quorum(), cluster.quorum.encode(env)),
        (atoms::malformed_frames(), cluster.malformed_frames.encode(env)),
        (atoms::foreign_frames(), cluster.foreign_frames.encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}

fn member_map<'a>(env: Env<'a>, member: &MemberStatus) -> NifResult<Term<'a>> {
    let pairs: [(Atom, Term<'a>); 6] = [
        (atoms::id(), member.id.encode(env)),
        (atoms::node(), member.node.encode(env)),
        (atoms::voter(), member.voter.encode(env)),
        (atoms::witness(), member.witness.encode(env)),
        (atoms::matched(), member.matched.encode(env)),
        (atoms::reachable(), member.reachable.encode(env)),
    ];
    Term::map_from_pairs(env, &pairs)
}

fn role(role: &str) -> Atom {
    match role {
        "leader" => atoms::leader(),
        "candidate" => atoms::candidate(),
        "learner" => atoms::learner(),
        "shutdown" => atoms::shutdown(),
        _ => atoms::follower(),
    }
}
