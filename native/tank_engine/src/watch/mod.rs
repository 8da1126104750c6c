//! Watches: cursors over the history of revisions.
//!
//! A watch holds no queue. It is a place in the history, and whoever has it asks for what comes
//! next ([`Cursor::next`]): from memory while that is recent (`ring`), otherwise from the disk.
//! When there is nothing, the watch is armed, and the `hub` calls once when that has changed.
//!
//! ```text
//!                  next: changes             next: nothing there
//! start --> behind ------------> behind ... ---------------------> armed
//!              ^                                                     |
//!              +------- a revision that passes the filter <----------+   (those that do not, move it on)
//! ```

mod alike;
mod cursor;
mod hub;
mod ring;
mod worker;

pub use crate::state::{Filter, Revised};
pub use alike::{Alike, AlikeWatches};
pub use cursor::{Budget, Cursor, Next, Wake};
pub(crate) use hub::{Hub, Recent};
