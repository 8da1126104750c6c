//! Views as handles: several reads at one revision.

use std::sync::Arc;

use rustler::{Encoder, Env, NifResult, Resource, ResourceArc, Term};
use tank_engine::command::Op;
use tank_engine::error::EngineError;
use tank_engine::nodes::KeepWhile;
use tank_engine::outcome::{Outcome, Refusal, Response};
use tank_engine::reclaim;
use tank_engine::view::View;

use crate::store::Store;
use crate::{atoms, commands, errors, found};

/// A view that a process reads more than once.
pub(crate) struct Handle {
    pub(crate) view: Arc<View>,
}

#[rustler::resource_impl]
impl Resource for Handle {
    const IMPLEMENTS_DESTRUCTOR: bool = true;

    // A view that was published is dropped elsewhere when it is not used any more; one of a
    // transaction's own may be the last to hold what all of them shared.
    fn destructor(self, _env: Env<'_>) {
        if Arc::strong_count(&self.view) == 1 {
            reclaim::now(self.view);
        }
    }
}

/// The current view: `{:ok, view}`; `:wait` (see `await_readable`) when it must be `authoritative`
/// and that takes asking; or `{:error, reason}`.
#[rustler::nif]
fn view<'a>(env: Env<'a>, store: &'a Store, authoritative: bool) -> Term<'a> {
    let view = if authoritative { store.engine.authoritative_view() } else { store.engine.view().map(Some) };
    match view {
        Ok(Some(view)) => (atoms::ok(), ResourceArc::new(Handle { view: Arc::clone(&view) })).encode(env),
        Ok(None) => atoms::wait().encode(env),
        Err(error) => errors::error(env, &error),
    }
}

/// The revision of a view.
#[rustler::nif]
fn view_revision(view: ResourceArc<Handle>) -> u64 {
    view.view.revision
}

/// The view as an operation of a transaction would leave it, and what that gives, as in an answer:
/// `{:ok, view, response}`, or `{:error, reason}` as a command would be refused; see `commands`. Gives `:dirty` when that takes
/// more than microseconds; then `view_with_large` is to be called.
#[rustler::nif]
fn view_with<'a>(env: Env<'a>, view: ResourceArc<Handle>, op: Term<'a>) -> NifResult<Term<'a>> {
    let op = commands::op(op)?;
    let done = match &op {
        Op::Put(write) if write.how.keep_while.as_ref().is_none_or(KeepWhile::is_ready) => {
            view.view.with_little(write).transpose()
        }
        Op::Clear(_) => Some(view.view.with(&op)),
        _ => None,
    };
    Ok(done.map_or_else(|| atoms::dirty().encode(env), |done| answer(env, done)))
}

/// The same, on a dirty scheduler: for deletions, which may be of many, and for large values.
#[rustler::nif(schedule = "DirtyCpu")]
fn view_with_large<'a>(env: Env<'a>, view: ResourceArc<Handle>, op: Term<'a>) -> NifResult<Term<'a>> {
    Ok(answer(env, view.view.with(&commands::op(op)?)))
}

fn answer<'a>(env: Env<'a>, done: Result<(View, Response), Refusal>) -> Term<'a> {
    match done {
        Ok((view, response)) => {
            let response = match completed(&view, response) {
                Ok(response) => response,
                Err(error) => return errors::error(env, &error),
            };
            let response = found::response(env, &response);
            (atoms::ok(), ResourceArc::new(Handle { view: Arc::new(view) }), response).encode(env)
        }
        Err(refusal) => (atoms::error(), errors::refusal(env, &refusal)).encode(env),
    }
}

/// The response with the payloads that are not in memory.
fn completed(view: &View, response: Response) -> Result<Response, EngineError> {
    let (succeeded, revision, responses) = (true, view.revision, vec![response]);
    let mut outcome = Outcome::Txn { succeeded, revision, responses };
    if !outcome.is_complete() {
        outcome.complete(|key, entry| view.payload(key, entry))?;
    }
    let compacted = EngineError::Compacted { min: view.revision + 1 };
    let Outcome::Txn { responses, .. } = outcome else { return Err(compacted) };
    responses.into_iter().next().ok_or(compacted)
}
