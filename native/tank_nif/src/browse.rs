//! What people look at: a page of nodes, or of leases. A page is small, whatever its values are: each is cut.
//!
//! Values go out in their encoding, and a large one that is not in memory is not read from the disk for that.

use std::ops::Bound;

use bytes::Bytes;
use rustler::{Binary, Encoder, Env, ResourceArc, Term};
use tank_engine::entry::Entry;
use tank_engine::error::EngineError;
use tank_engine::key::Key;
use tank_engine::listing::{self, Range};
use tank_engine::view::View;

use crate::views::Handle;
use crate::{atoms, errors, found};

/// The node at a path: `{:ok, node}`, `:not_found` or `{:error, reason}`. There always is a root. A node is
/// `{path, payload | nil, payload_bytes, child_count, {revision, create_revision, version, lease}}`; of a payload of more
/// than `bytes_max` there are the first ones, or nil when it is not in memory.
#[rustler::nif(schedule = "DirtyIo")]
fn browse_node<'a>(env: Env<'a>, view: ResourceArc<Handle>, key: Binary<'a>, bytes_max: usize) -> Term<'a> {
    let (view, key) = (&view.view, Key::from_bytes(&key));
    if !key.is_root() && !view.tree().exists(&key) {
        return atoms::not_found().encode(env);
    }
    match node(env, view, &key, bytes_max) {
        Ok(node) => (atoms::ok(), node).encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// At most `limit` of the direct children of a path, behind `after`, in their order or the last one first: `{:ok, [node]}`
/// or `{:error, reason}`. The nodes are as above.
#[rustler::nif(schedule = "DirtyIo")]
fn browse<'a>(
    env: Env<'a>,
    view: ResourceArc<Handle>,
    prefix: Binary<'a>,
    after: Option<Binary<'a>>,
    limit: usize,
    reverse: bool,
    bytes_max: usize,
) -> Term<'a> {
    let view = &view.view;
    let range = Range { after: after.map(|after| Key::from_bytes(&after)), reverse, depth: 1 };
    let keys = listing::nodes(view.tree(), &Key::from_bytes(&prefix), &range).flatten().take(limit);
    match keys.map(|key| node(env, view, key, bytes_max)).collect::<Result<Vec<_>, _>>() {
        Ok(nodes) => (atoms::ok(), nodes).encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// At most `limit` leases whose names come behind the name `after`: each as `read_lease` gives it.
#[rustler::nif(schedule = "DirtyCpu")]
fn list_leases<'a>(env: Env<'a>, view: ResourceArc<Handle>, after: Option<Binary<'a>>, limit: usize) -> Vec<Term<'a>> {
    let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Bytes::copy_from_slice(&after)));
    let leases = view.view.leases.range((from, Bound::Unbounded)).take(limit);
    leases.map(|(_name, lease)| found::lease(env, lease)).collect()
}

fn node<'a>(env: Env<'a>, view: &View, key: &Key, bytes_max: usize) -> Result<Term<'a>, EngineError> {
    let entry = view.get(key);
    let numbers = entry.map_or((0, 0, 0, 0), |e| (e.revision, e.create_revision, e.version, e.lease));
    let payload = entry.map(|entry| payload(view, key, entry, bytes_max)).transpose()?.flatten();
    let payload = payload.map(|all| found::binary(env, all.get(..bytes_max).unwrap_or(&all)));
    let bytes = entry.map_or(0, |entry| entry.payload.len());
    Ok((found::path(env, key), payload, bytes, view.tree().child_count(key), numbers).encode(env))
}

fn payload(view: &View, key: &Key, entry: &Entry, bytes_max: usize) -> Result<Option<Bytes>, EngineError> {
    match entry.payload.in_memory() {
        Some(bytes) => Ok(Some(bytes)),
        None if entry.payload.len() > bytes_max => Ok(None),
        // None if it was compacted meanwhile: the view is older than what is kept.
        None => view.payload(key, entry),
    }
}
