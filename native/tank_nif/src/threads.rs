//! Calls that take as long as the disk does: each works on a thread of its own, and is answered by message. So no
//! scheduler waits for it, not even a dirty one, of which the VM has ten for all that reads or writes files.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use rustler::{Encoder, Env, NifResult, Term};
use tank_engine::error::EngineError;
use tank_engine::health::panic_text;

use crate::{atoms, errors, reply};

/// Runs `work` on a thread called `name`: `{:ok, call}`, and `{reference, answer}` comes when it is done; or
/// `{:error, reason}` when there is no thread. `encode` makes the answer of a result, unless that is an error.
pub(crate) fn run<'a, T: 'static>(
    env: Env<'a>,
    reference: Term<'a>,
    name: &'static str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    encode: impl for<'b> FnOnce(Env<'b>, T) -> Term<'b> + Send + 'static,
) -> NifResult<Term<'a>> {
    let reference = reply::reference(reference)?;
    // The thread first: once there is a reply, it must be sent by another thread than this one.
    let (sender, job) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Ok(job) = job.recv() {
            job();
        }
    });
    if let Err(error) = thread {
        return Ok(errors::error(env, &EngineError::Storage(format!("no thread: {error}"))));
    }
    let (call, reply) = reply::expect(env, reference, encode);
    let _ = sender.send(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        reply.send(result.unwrap_or_else(|panic| {
            Err(EngineError::Failed(format!("panic in {name}: {}", panic_text(panic.as_ref()))))
        }));
    }));
    Ok((atoms::ok(), call).encode(env))
}
