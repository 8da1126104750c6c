//! Talking to other members: frames over a transport, and calls over frames.
//!
//! ```text
//! crate::raft                                                                    crate::raft
//! replication --call--> rpc --> link --parts--> Transport ~~~~> inbound --> rpc --> server
//!                        ^                                                            |
//!                        +---------------------- answer <~~~~~~~~~~~~~~~~~~~~~~~~~~~~~+
//! ```
//!
//! A transport may lose, delay, repeat and reorder frames; it does not have to tell. It must not block,
//! and it must not deliver a frame that was changed on the way.
//!
//! Small urgent calls (votes, heartbeats) are one frame each and are not sent again. Everything else goes
//! over a link for each member. The link cuts it into parts, paces them by what the connection carries, and
//! sends a part until it arrives. A call over a link ends when nothing moves any more, not after a time:
//! a large message takes as long as the network needs.

pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod refusal;
pub(crate) mod rpc;

mod inbound;
mod link;
mod window;

pub use message::MembershipChange;
pub use rpc::PeerStats;

pub(crate) use message::{
    AHEAD_BYTES_MIN, Answer, Ballot, Basis, Call, Differs, Known, NotChanged, NotWritten, Question, Written,
};
pub(crate) use rpc::{CallError, Rpc, Wait};

/// A way to other nodes. Over Erlang distribution in production, simulated in tests.
pub trait Transport: Send + Sync + 'static {
    /// Hands a frame over for the member of this store on `node`. Never blocks.
    ///
    /// # Errors
    /// [`NotSent`] when it is known that the frame will not arrive.
    fn send(&self, node: &str, channel: Channel, frame: Vec<u8>) -> Result<(), NotSent>;
}

/// Frames of one channel do not wait behind those of the other, where the transport can help it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Votes, heartbeats, read indexes, acknowledgements: small and urgent.
    Control,
    /// Parts of messages.
    Data,
}

/// What a call is about, which decides how it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// Small and urgent; not sent again.
    Control,
    /// Log entries, in order.
    Log,
    /// Forwarded writes and payloads sent ahead of their entries, in turns.
    Bulk,
    /// Parts of a snapshot, in order.
    Snapshot,
}

impl Lane {
    const ALL: [Self; 4] = [Self::Control, Self::Log, Self::Bulk, Self::Snapshot];

    fn number(self) -> u8 {
        Self::ALL.iter().position(|lane| *lane == self).map_or(u8::MAX, |at| at as u8)
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether messages are handed on in the order in which they were sent.
    fn is_ordered(self) -> bool {
        matches!(self, Self::Log | Self::Snapshot)
    }
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The node is not connected.
    Disconnected,
    /// The connection takes no more at the moment.
    Busy,
}

/// Reaches nobody: for a store that stays a single member.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&self, _node: &str, _channel: Channel, _frame: Vec<u8>) -> Result<(), NotSent> {
        Err(NotSent::Disconnected)
    }
}
