//! Fault points, for tests.

use rustler::{Encoder, Env, Term};

use crate::atoms;

/// Arms a fault point of the engine: `:ok` or `{:error, why}`; an error in every release build.
#[rustler::nif]
fn arm_fault<'a>(env: Env<'a>, name: &str, action: &str) -> Term<'a> {
    match tank_engine::faults::arm(name, action) {
        Ok(()) => atoms::ok().encode(env),
        Err(why) => (atoms::error(), why).encode(env),
    }
}
