//! Which store a thread works for: what is logged on it is about that store.
//!
//! A store's threads are its own, so that the store need not be handed through to whatever may log something, such as the
//! raft library.

use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static STORE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The id of the store that this thread works for.
pub fn current() -> Option<Arc<str>> {
    STORE.try_with(|store| store.borrow().clone()).ok().flatten()
}

/// Says which store this thread works for.
pub fn set(store: Option<Arc<str>>) {
    // Nothing is logged while a thread ends.
    let _ = STORE.try_with(|current| *current.borrow_mut() = store);
}
