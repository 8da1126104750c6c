//! Answers to processes: `{ref, answer}`, sent once, unless the process no longer wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustler::env::SavedTerm;
use rustler::{Encoder, Env, LocalPid, NifResult, OwnedEnv, Reference, Resource, ResourceArc, Term};
use tank_engine::engine::Reply;
use tank_engine::error::EngineError;

use crate::errors;

/// A call that waits for its answer. Whoever sets `taken` first, the answer or the caller that
/// gives up, has the say: so a caller knows whether a message will still come.
pub(crate) struct Call {
    taken: Arc<AtomicBool>,
}

#[rustler::resource_impl]
impl Resource for Call {}

/// Gives up a call: `true`, and no message will come; `false`, and it has come or is coming.
#[rustler::nif]
fn cancel(call: ResourceArc<Call>) -> bool {
    !call.taken.swap(true, Ordering::AcqRel)
}

/// Where an answer goes.
struct Waiting {
    caller: LocalPid,
    env: OwnedEnv,
    reference: SavedTerm,
    taken: Arc<AtomicBool>,
}

/// A call of the current process that is to be answered under `reference`, and its reply, which
/// makes the answer's term with `encode`.
pub(crate) fn expect<'a, T: 'static>(
    env: Env<'a>,
    reference: Reference<'a>,
    encode: impl for<'b> FnOnce(Env<'b>, T) -> Term<'b> + Send + 'static,
) -> (ResourceArc<Call>, Reply<T>) {
    let taken = Arc::new(AtomicBool::new(false));
    let message = OwnedEnv::new();
    let reference = message.save(reference);
    let waiting = Waiting { caller: env.pid(), env: message, reference, taken: Arc::clone(&taken) };
    let reply = Reply::new(move |result| waiting.send(result, encode));
    (ResourceArc::new(Call { taken }), reply)
}

/// A reply that was refused before it was handed over: the caller is told by the return value.
pub(crate) fn refuse<T>(call: &Call, reply: Reply<T>) {
    call.taken.store(true, Ordering::Release);
    drop(reply);
}

impl Waiting {
    fn send<T>(self, result: Result<T, EngineError>, encode: impl for<'b> FnOnce(Env<'b>, T) -> Term<'b>) {
        let Self { caller, mut env, reference, taken } = self;
        if taken.swap(true, Ordering::AcqRel) {
            return;
        }
        // It fails when the caller is gone; then nobody is waiting.
        let _ = env.send_and_clear(&caller, |env| {
            let answer = match result {
                Ok(value) => encode(env, value),
                Err(error) => errors::error(env, &error),
            };
            (reference.load(env), answer).encode(env)
        });
    }
}

/// For NIFs that take a reference: rustler's type checks that it is one.
pub(crate) fn reference(term: Term<'_>) -> NifResult<Reference<'_>> {
    term.decode()
}
