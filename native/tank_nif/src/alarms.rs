//! Alarms as Erlang terms: `{name, details}`, where `details` is a map with at least the `message`.

use rustler::{Atom, Encoder, Env, LocalPid, NifResult, OwnedEnv, Term};
use tank_engine::alarms::{Alarm, Detail, Listener, Turn};

use crate::atoms;

/// The alarms of a store.
pub(crate) fn list<'a>(env: Env<'a>, alarms: &[Alarm]) -> NifResult<Term<'a>> {
    let terms = alarms.iter().map(|alarm| self::alarm(env, alarm)).collect::<NifResult<Vec<_>>>()?;
    Ok(terms.encode(env))
}

/// Sends `{:tank_store_alarm, opening, :raised | :cleared, {name, details}}` to a process.
pub(crate) fn listener(pid: LocalPid, opening: u64) -> Listener {
    Box::new(move |turn, alarm| {
        let turn = match turn {
            Turn::Raised => atoms::raised(),
            Turn::Cleared => atoms::cleared(),
        };
        let _ = OwnedEnv::new().send_and_clear(&pid, |env| match self::alarm(env, alarm) {
            Ok(alarm) => (atoms::tank_store_alarm(), opening, turn, alarm).encode(env),
            Err(_) => atoms::undefined().encode(env),
        });
    })
}

fn alarm<'a>(env: Env<'a>, alarm: &Alarm) -> NifResult<Term<'a>> {
    let mut pairs = vec![(atoms::message().encode(env), alarm.message.encode(env))];
    if let Some(member) = alarm.member {
        pairs.push((atoms::member_id().encode(env), member.encode(env)));
    }
    for (field, value) in &alarm.details {
        // Of names in the source of the engine: there are only so many.
        let field = Atom::from_str(env, field)?.encode(env);
        pairs.push((field, detail(env, value)));
    }
    let details = Term::map_from_pairs(env, &pairs)?;
    Ok((Atom::from_str(env, alarm.name)?, details).encode(env))
}

fn detail<'a>(env: Env<'a>, value: &Detail) -> Term<'a> {
    match value {
        Detail::Number(number) => number.encode(env),
        Detail::Text(text) => text.encode(env),
    }
}
