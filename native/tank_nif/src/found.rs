//! Entries and leases in answers to writes, as Erlang terms.
//!
//! Answers are made on threads of ours, where values with large maps cannot be decoded (see
//! `term_cache`). So values go out in their encoding, for the caller to decode.

use rustler::{Atom, Binary, Encoder, Env, NewBinary, Term};
use tank_engine::key::{Component, Key};
use tank_engine::lease::Lease;
use tank_engine::outcome::{Found, NodeAfter, NodeChange, NodeInfo, Response};

use crate::atoms;

/// Tags of the external term format.
const VERSION: u8 = 131;
const ATOM_UTF8: u8 = 118;

/// `{path, payload, revision, create_revision, version, child_count, lease}`.
pub(crate) fn encode<'a>(env: Env<'a>, found: &Found) -> Term<'a> {
    let entry = &found.entry;
    let numbers = (entry.revision, entry.create_revision, entry.version, found.child_count, entry.lease);
    let (revision, create_revision, version, child_count, lease) = numbers;
    let payload = binary(env, found.payload.as_deref().unwrap_or_default());
    (path(env, &found.key), payload, revision, create_revision, version, child_count, lease).encode(env)
}

/// `{name, holder, epoch, ttl_ms, renewals}`.
pub(crate) fn lease<'a>(env: Env<'a>, lease: &Lease) -> Term<'a> {
    let (name, holder) = (binary(env, &lease.name), binary(env, &lease.holder));
    (name, holder, lease.epoch, lease.ttl_ms, lease.renewals).encode(env)
}

/// `{path, kind, payload | nil, payload_version, child_list_version, child_count, entry}`, where `entry` is
/// `{revision, create_revision, version, lease}`, or nil without a payload.
pub(crate) fn node<'a>(env: Env<'a>, node: &NodeInfo) -> Term<'a> {
    let payload = node.found.as_ref().map(|found| binary(env, found.payload.as_deref().unwrap_or_default()));
    let entry = node.found.as_ref().map(|found| &found.entry);
    let entry = entry.map(|entry| (entry.revision, entry.create_revision, entry.version, entry.lease));
    let (path, versions) = (path(env, &node.key), (node.payload_version, node.child_list_version));
    (path, node.kind, payload, versions.0, versions.1, node.child_count, entry).encode(env)
}

/// `{path, node before | nil, {:there, payload_version, child_list_version, child_count} | :deleted | :not_kept}` of each.
pub(crate) fn changes<'a>(env: Env<'a>, changes: &[NodeChange]) -> Vec<Term<'a>> {
    changes.iter().map(|change| self::change(env, change)).collect()
}

fn change<'a>(env: Env<'a>, change: &NodeChange) -> Term<'a> {
    let before = change.before.as_ref().map(|before| node(env, before));
    let (key, after) = match &change.after {
        NodeAfter::There { key, payload_version, child_list_version, child_count } => {
            let after = (atoms::there(), payload_version, child_list_version, child_count);
            (Some(key), after.encode(env))
        }
        NodeAfter::Deleted => (None, atoms::deleted().encode(env)),
        NodeAfter::NotKept => (None, atoms::not_kept().encode(env)),
    };
    let key = key.or_else(|| change.before.as_ref().map(|before| &before.key));
    (key.map(|key| path(env, key)), before, after).encode(env)
}

/// `{:put, version} | {:deleted, count} | {:got, found | nil} | {:listed, [found]} | {:changed, changes}`.
pub(crate) fn response<'a>(env: Env<'a>, response: &Response) -> Term<'a> {
    match response {
        Response::Put(version) => (atoms::put(), version).encode(env),
        Response::Changed(nodes) => (atoms::changed(), changes(env, nodes)).encode(env),
        Response::Deleted(count) => (atoms::deleted(), count).encode(env),
        Response::Got(None) => (atoms::got(), atoms::nil()).encode(env),
        Response::Got(Some(found)) => (atoms::got(), encode(env, found)).encode(env),
        Response::Listed(all) => {
            let all: Vec<_> = all.iter().map(|found| encode(env, found)).collect();
            (atoms::listed(), all).encode(env)
        }
    }
}

/// Makes the paths of keys that come in their order: the components that a path shares with the one before it are made
/// once, which takes less time, and less of the caller's memory.
#[derive(Default)]
pub(crate) struct Paths<'a> {
    last: Vec<u8>,
    /// Where each component of it ends, and its term.
    made: Vec<(usize, Term<'a>)>,
}

impl<'a> Paths<'a> {
    /// The path of `key`, as [`path`] makes it.
    pub(crate) fn path(&mut self, env: Env<'a>, key: &Key) -> Term<'a> {
        let bytes = key.as_bytes();
        let shared = self.last.iter().zip(bytes).take_while(|(one, other)| one == other).count();
        self.made.retain(|(end, _)| *end <= shared);
        let mut end = self.made.last().map_or(0, |(end, _)| *end);
        for component in Key::split(bytes.get(end..).unwrap_or_default()) {
            end += component.as_bytes().len();
            let term = component.components().unwrap_or_default().first().map(|component| name(env, component));
            self.made.extend(term.map(|term| (end, term)));
        }
        self.last.clear();
        self.last.extend_from_slice(bytes);
        self.made.iter().map(|(_, term)| *term).collect::<Vec<_>>().encode(env)
    }
}

/// A path as Elixir has it: a list of atoms and binaries. The atoms are those that some caller
/// wrote: a store gives back what was put into it, also to a VM that was just started.
pub(crate) fn path<'a>(env: Env<'a>, key: &Key) -> Term<'a> {
    let components = key.components().unwrap_or_default();
    let components: Vec<Term<'a>> = components.iter().map(|component| name(env, component)).collect();
    components.encode(env)
}

fn name<'a>(env: Env<'a>, component: &Component) -> Term<'a> {
    match component {
        Component::Atom(text) => atom(env, text).unwrap_or_else(|| binary(env, text)),
        Component::String(text) => binary(env, text),
    }
}

/// An atom of its UTF-8. The function for atoms takes Latin-1, up to OTP 25; the external term format
/// knows both.
fn atom<'a>(env: Env<'a>, text: &[u8]) -> Option<Term<'a>> {
    if text.is_ascii() {
        return Atom::from_bytes(env, text).ok().map(|atom| atom.encode(env));
    }
    let length = u16::try_from(text.len()).ok()?.to_be_bytes();
    let external = [&[VERSION, ATOM_UTF8][..], &length, text].concat();
    env.binary_to_term(&external).map(|(atom, _)| atom)
}

/// Bytes as a binary.
pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    Binary::from(binary).encode(env)
}

/// A history's id as users see it.
pub(crate) fn history(id: u64) -> String {
    format!("{id:016x}")
}
