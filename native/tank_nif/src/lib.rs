//! The boundary between the BEAM and the engine, and the only crate that knows Erlang terms.
//!
//! A NIF here decodes, hands over, and returns. What is known before handing over is returned;
//! what is known after is sent, by `reply`. Nothing here waits on a scheduler for another member, nor for a
//! disk; but reads of what is not in memory do for a moment, on a dirty I/O scheduler. What takes long works on
//! a thread of its own (`threads`).

#![allow(clippy::needless_pass_by_value, reason = "the arguments of a NIF are decoded for it")]
#![allow(clippy::too_many_arguments, reason = "a NIF takes what its stub in Elixir does")]

mod alarms;
mod atoms;
mod options;
mod store;

mod members;
mod relays;

mod commands;
mod found;
mod leases;
mod patterns;
mod reply;
mod threads;
mod writes;

mod backups;
mod base64;

mod browse;
mod past;
mod prefetch;
mod queries;
mod reads;
mod term_cache;
mod views;
mod watches;

mod errors;
mod exit;
mod faults;
mod logs;
mod metrics;

rustler::init!("Elixir.Tank.Store.Native", load = load);

fn load(_env: rustler::Env<'_>, _info: rustler::Term<'_>) -> bool {
    true
}

/// The version of this library; the same as the application's.
#[rustler::nif]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Ties the compiled crate to its checkout; see `.cargo/config.toml`.
const _: Option<&str> = option_env!("TANK_STORE_CHECKOUT");
