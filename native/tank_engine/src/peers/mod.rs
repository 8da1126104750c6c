//! The other members: frames over a transport, calls over frames, raft over calls.
//!
//! ```text
//! raft core --> network --call--> rpc --frame--> Transport ~~~~> rpc --> serve --> raft core
//!                                  ^                                       |
//!                                  +------------- answer <~~~~~~~~~~~~~~~~~+
//! ```
//!
//! A transport may lose, delay and reorder frames; it does not have to tell. It must not block,
//! and it must not deliver a frame that was changed on the way.

mod frame;
mod message;
mod network;
mod rpc;
mod serve;
mod transfer;

pub use message::Change;
pub use rpc::PeerStats;

pub(crate) use message::{Answer, Basis, Call, NotChanged, NotWritten, Written};
pub(crate) use network::Network;
pub(crate) use rpc::{CallError, Rpc};
pub(crate) use serve::{Authority, Server, write};

/// A way to other nodes. Over Erlang distribution in production, simulated in tests.
pub trait Transport: Send + Sync + 'static {
    /// Hands a frame over for the member of this store on `node`. Never blocks.
    ///
    /// # Errors
    /// [`NotSent`] when it is known that the frame will not arrive.
    fn send(&self, node: &str, lane: Lane, frame: Vec<u8>) -> Result<(), NotSent>;
}

/// What a frame is for. Frames of one lane do not wait behind those of another, where the
/// transport can help it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Votes, heartbeats, read indexes: small and urgent.
    Control,
    /// Log entries and forwarded writes.
    Log,
    /// Parts of a snapshot.
    Snapshot,
}

/// The frame will not arrive: the node is not connected, or takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

/// Reaches nobody: for a store that stays a single member.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, _node: &str, _lane: Lane, _frame: Vec<u8>) -> Result<(), NotSent> {
        Err(NotSent)
    }
}
