//! The transport over Erlang distribution: frames go to relay processes, one for each peer node
//! and channel, which send them on; frames that came from other nodes are delivered by an inbox
//! process.
//!
//! ```text
//! engine --send--> relay process ~~distribution~~> inbox process --deliver--> engine
//!            ^          |
//!            +--relayed-+   what a relay has sent on no longer counts against its bound
//! ```
//!
//! There are relays only for nodes that are connected: the others refuse a frame at once, and the
//! peers process is told that somebody wants to talk to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustler::{Atom, Env, Error, LocalPid, NifResult, OwnedEnv, Resource, ResourceArc};
use tank_engine::peers::{Channel, NotSent, Transport};

use crate::{atoms, found};

/// How often the peers process is told of a node that has no relays.
const WANTED_EVERY: Duration = Duration::from_secs(1);

/// Bytes on their way to a relay or waiting in it: what a slow peer may hold up. Of data, the engine
/// has no more on its way than the connection carries; this is the most that it ever has.
fn queued_max(channel: Channel) -> usize {
    match channel {
        Channel::Control => 1 << 20,
        Channel::Data => 40 << 20,
    }
}

/// The resource that stands for a store's way to other nodes. It outlives the open engine: a
/// store that joins a cluster opens another one.
pub(crate) struct Link {
    pub(crate) relays: Arc<Relays>,
}

#[rustler::resource_impl]
impl Resource for Link {}

/// The relay processes of one store.
pub(crate) struct Relays {
    /// Starts relays, and connects nodes.
    peers: LocalPid,
    nodes: Mutex<Nodes>,
}

#[derive(Default)]
struct Nodes {
    relays: HashMap<String, HashMap<Channel, Relay>>,
    wanted: HashMap<String, Instant>,
}

struct Relay {
    pid: LocalPid,
    queued: usize,
}

/// Makes a link. The calling process is its peers process: it is sent `{:tank_peer_wanted, node}`
/// for nodes without relays, at most once a second for each.
#[rustler::nif]
fn link(env: Env<'_>) -> ResourceArc<Link> {
    ResourceArc::new(Link { relays: Arc::new(Relays { peers: env.pid(), nodes: Mutex::default() }) })
}

/// Has frames for a node sent to the process `pid`, as `{:tank_frame, frame}`.
#[rustler::nif]
fn set_relay(link: ResourceArc<Link>, node: String, channel: Atom, pid: LocalPid) -> NifResult<Atom> {
    let relay = Relay { pid, queued: 0 };
    let mut nodes = link.relays.lock();
    nodes.wanted.remove(&node);
    nodes.relays.entry(node).or_default().insert(self::channel(channel)?, relay);
    Ok(atoms::ok())
}

/// Forgets a node's relays: it cannot be reached.
#[rustler::nif]
fn unset_relays(link: ResourceArc<Link>, node: String) -> Atom {
    link.relays.lock().relays.remove(&node);
    atoms::ok()
}

/// Called by a relay: it has sent `bytes` on, or dropped them.
#[rustler::nif]
fn relayed(env: Env<'_>, link: ResourceArc<Link>, node: &str, channel: Atom, bytes: usize) -> NifResult<Atom> {
    let channel = self::channel(channel)?;
    let mut nodes = link.relays.lock();
    let relay = nodes.relays.get_mut(node).and_then(|channels| channels.get_mut(&channel));
    // The relay's successor may have taken its place already.
    if let Some(relay) = relay.filter(|relay| relay.pid == env.pid()) {
        relay.queued = relay.queued.saturating_sub(bytes);
    }
    Ok(atoms::ok())
}

impl Relays {
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay that takes `bytes` more, which count from now on.
    fn reserve(&self, node: &str, channel: Channel, bytes: usize) -> Result<LocalPid, NotSent> {
        let mut nodes = self.lock();
        let relay = nodes.relays.get_mut(node).and_then(|channels| channels.get_mut(&channel));
        if let Some(relay) = relay {
            // An idle relay takes any frame: how large one may be is limited elsewhere.
            if relay.queued > 0 && relay.queued.saturating_add(bytes) > queued_max(channel) {
                return Err(NotSent::Busy);
            }
            relay.queued += bytes;
            return Ok(relay.pid);
        }
        let now = Instant::now();
        let told = nodes.wanted.get(node).is_some_and(|at| now.duration_since(*at) < WANTED_EVERY);
        if !told {
            nodes.wanted.insert(node.to_owned(), now);
            drop(nodes);
            let _ = OwnedEnv::new()
                .send_and_clear(&self.peers, |env| (atoms::tank_peer_wanted(), found::binary(env, node.as_bytes())));
        }
        Err(NotSent::Disconnected)
    }
}

impl Transport for Relays {
    // Called on the engine's own threads only: a scheduler's may not send like this.
    fn send(&self, node: &str, channel: Channel, frame: Vec<u8>) -> Result<(), NotSent> {
        let pid = self.reserve(node, channel, frame.len())?;
        let sent = OwnedEnv::new().send_and_clear(&pid, |env| (atoms::tank_frame(), found::binary(env, &frame)));
        sent.map_err(|_| {
            // The relay is gone; its node's others will follow. Unless others have taken their place already.
            let mut nodes = self.lock();
            let current = nodes.relays.get(node).and_then(|channels| channels.get(&channel));
            if current.is_some_and(|relay| relay.pid == pid) {
                nodes.relays.remove(node);
            }
            drop(nodes);
            NotSent::Disconnected
        })
    }
}

fn channel(name: Atom) -> NifResult<Channel> {
    if name == atoms::control() {
        Ok(Channel::Control)
    } else if name == atoms::data() {
        Ok(Channel::Data)
    } else {
        Err(Error::BadArg)
    }
}
