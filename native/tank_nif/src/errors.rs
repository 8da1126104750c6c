//! The engine's errors and refusals as Erlang terms.

use rustler::{Atom, Encoder, Env, Term};
use tank_engine::error::{DirectoryTrouble, EngineError, LockHolder, Loss};
use tank_engine::outcome::Refusal;

use crate::{atoms, found};

/// The reason of an `{:error, reason}`.
pub(crate) fn reason<'a>(env: Env<'a>, error: &EngineError) -> Term<'a> {
    use EngineError as E;
    match error {
        E::Overloaded { .. } => atoms::overloaded().encode(env),
        E::Closed => atoms::closed().encode(env),
        E::NoQuorum => atoms::no_quorum().encode(env),
        E::Differs => atoms::state_differs().encode(env),
        E::Witness => atoms::witness().encode(env),
        E::LogLost => atoms::log_lost().encode(env),
        E::HistoryLost => atoms::history_lost().encode(env),
        E::OnlyWitnesses => atoms::only_witnesses_left().encode(env),
        E::Unknown => atoms::timeout().encode(env),
        E::TooLarge { what, limit, .. } => (atoms::too_large(), part(what), limit).encode(env),
        E::InvalidPath(why) => (atoms::invalid_path(), why).encode(env),
        E::InvalidPattern(why) => (atoms::invalid_pattern(), why).encode(env),
        E::Compacted { min } => (atoms::compacted(), min).encode(env),
        E::FutureRevision { current } => (atoms::future_revision(), current).encode(env),
        E::InvalidOption { option, why } => (atoms::invalid_option(), option_name(option), why).encode(env),
        E::Failed(why) => (atoms::engine_failed(), why).encode(env),
        E::Locked { path, by } => {
            let by = match by {
                LockHolder::ThisVm => atoms::this_vm().encode(env),
                LockHolder::OtherProcess(Some(pid)) => (atoms::other_process(), pid).encode(env),
                LockHolder::OtherProcess(None) => atoms::other_process().encode(env),
            };
            (atoms::locked(), path.to_string_lossy().as_ref(), by).encode(env)
        }
        E::Directory { path, kind, why } => {
            let kind = match kind {
                DirectoryTrouble::NotADirectory => atoms::not_a_directory(),
                DirectoryTrouble::PermissionDenied => atoms::permission_denied(),
                DirectoryTrouble::NotAStore => atoms::not_a_store(),
                DirectoryTrouble::NotEmpty => atoms::not_empty(),
                DirectoryTrouble::NoStore => atoms::no_store(),
                DirectoryTrouble::Other => atoms::data_dir(),
            };
            (kind, path.to_string_lossy().as_ref(), why).encode(env)
        }
        E::DiskFull { .. } => atoms::disk_full().encode(env),
        E::WrongStore { expected, found } => (atoms::wrong_store(), expected, found).encode(env),
        E::OlderFormat { found, supported } => (atoms::older_format(), found, supported).encode(env),
        E::NewerFormat { found, supported } => (atoms::newer_format(), found, supported).encode(env),
        E::Corrupt { what, detail } => (atoms::corrupt(), part(what), detail).encode(env),
        E::File { path, why } => (atoms::file(), path.to_string_lossy().as_ref(), why).encode(env),
        E::Storage(why) => (atoms::storage(), why).encode(env),
        E::Lost { what, path } => (atoms::lost(), loss(*what), path.to_string_lossy().as_ref()).encode(env),
    }
}

/// `{:error, reason}`.
pub(crate) fn error<'a>(env: Env<'a>, error: &EngineError) -> Term<'a> {
    (atoms::error(), reason(env, error)).encode(env)
}

/// The reason of an `{:error, reason}` for a command that was refused.
pub(crate) fn refusal<'a>(env: Env<'a>, refusal: &Refusal) -> Term<'a> {
    match refusal {
        Refusal::Exists(entry) => (atoms::exists(), found::encode(env, entry)).encode(env),
        Refusal::NotFound => atoms::not_found().encode(env),
        Refusal::Conflict(Some(entry)) => (atoms::conflict(), found::encode(env, entry)).encode(env),
        Refusal::Conflict(None) => (atoms::conflict(), atoms::nil()).encode(env),
        Refusal::Mismatch(node) => (atoms::mismatch(), node.as_ref().map(|node| found::node(env, node))).encode(env),
        Refusal::KeepWhile { key, condition, is_missing } => {
            let why = if *is_missing { atoms::no_match() } else { atoms::unmet() };
            (atoms::keep_while(), found::path(env, key), *condition, why).encode(env)
        }
        Refusal::TooManyConditions(limit) => (atoms::too_large(), atoms::conditions(), limit).encode(env),
        Refusal::Held(lease) => (atoms::held(), found::lease(env, lease)).encode(env),
        Refusal::LeaseEnded => atoms::lease_ended().encode(env),
        Refusal::TooManyLooks(limit) => (atoms::too_large(), atoms::comparisons(), limit).encode(env),
        Refusal::TooMuch(limit) => (atoms::too_large(), atoms::matches(), limit).encode(env),
        // Nobody waits for it any more; and it may have been applied at its time.
        Refusal::MovedOn | Refusal::SessionEnded { .. } => atoms::timeout().encode(env),
        Refusal::Malformed(why) => (atoms::malformed(), why).encode(env),
    }
}

fn loss(what: Loss) -> Atom {
    match what {
        Loss::Missing => atoms::missing(),
        Loss::Empty => atoms::empty(),
        Loss::OtherStore => atoms::other_store(),
        Loss::OtherCluster => atoms::other_cluster(),
        Loss::OtherMember => atoms::other_member(),
        Loss::OtherFileSystem => atoms::other_file_system(),
        Loss::Replaced => atoms::replaced(),
    }
}

fn option_name(option: &str) -> Atom {
    match option {
        "store_id" => atoms::store_id(),
        "data_dir" => atoms::data_dir(),
        "txn_bytes_max" => atoms::txn_bytes_max(),
        _ => atoms::timing(),
    }
}

fn part(name: &str) -> Atom {
    match name {
        "value" => atoms::value(),
        "path" => atoms::path(),
        "path_component" => atoms::path_component(),
        "pattern" => atoms::pattern(),
        "regex" => atoms::regex(),
        "regexes" => atoms::regexes(),
        "format" => atoms::format(),
        "marker" => atoms::marker(),
        "log" => atoms::log(),
        "state" => atoms::state(),
        "vote" => atoms::vote(),
        "snapshot" => atoms::snapshot(),
        "history" => atoms::history(),
        "backup" => atoms::backup(),
        "transaction" => atoms::transaction(),
        "txn" => atoms::txn(),
        "keep_while" => atoms::keep_while(),
        "lease_name" => atoms::lease_name(),
        "lease_holder" => atoms::lease_holder(),
        _ => atoms::database(),
    }
}

/// `{:error, {:corrupt, detail}}`: a stored value cannot be decoded.
pub(crate) fn undecodable(env: Env<'_>) -> Term<'_> {
    let detail = "a value is not a term's encoding".to_owned();
    error(env, &EngineError::Corrupt { what: "state", detail })
}
