//! Every atom that this library makes. None is made from input.

rustler::atoms! {
    ok,
    error,
    nil,
    undefined,

    // Kinds of writes.
    put,
    create,
    update,
    delete,

    // Answers that are not errors.
    not_found,
    wait,
    dirty,
    atom,
    string,

    // Reasons; see Tank.Store.Error.
    exists,
    conflict,
    malformed,
    overloaded,
    closed,
    no_quorum,
    timeout,
    too_large,
    invalid_path,
    invalid_option,
    engine_failed,
    locked,
    this_vm,
    other_process,
    not_a_directory,
    permission_denied,
    not_a_store,
    data_dir,
    disk_full,
    wrong_store,
    newer_format,
    corrupt,
    storage,

    // Parts of reasons.
    value,
    path,
    path_component,
    format,
    marker,
    log,
    state,
    database,
    vote,
    snapshot,

    // Messages.
    tank_store_failed,
    tank_frame,
    tank_peer_wanted,

    // Lanes to other nodes.
    control,
    // log, snapshot: see above

    // Changes of the members.
    add_learner,
    promote,
    demote,
    remove,

    // Options and status.
    dir,
    store_id,
    node,
    in_flight_max,
    in_flight_bytes_max,
    value_bytes_max,
    heartbeat_ms,
    election_ms,
    snapshot_after,
    log_keep,
    purge_batch,
    member_id,
    cluster_id,
    revision,
    entries,
    digest,
    memory_bytes,
    disk_bytes,
    in_flight,
    fsyncs,
    log_entries,
    log_bytes,
    applied_index,
    readable,

    // The cluster.
    joining,
    alone,
    id,
    members,
    voter,
    matched,
    role,
    term,
    leader,
    follower,
    candidate,
    learner,
    shutdown,
    quorum,
    last_log_index,
    malformed_frames,
    foreign_frames,
}
