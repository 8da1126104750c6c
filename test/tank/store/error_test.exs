defmodule Tank.Store.ErrorTest do
  use ExUnit.Case, async: true

  alias Tank.Store.{Entry, Error}

  # Each row of the table in the documentation, as functions return it.
  @reasons [
    :noproc,
    :overloaded,
    :no_quorum,
    :witness,
    :log_lost,
    :history_lost,
    :state_differs,
    :only_witnesses_left,
    :timeout,
    :exists,
    :not_found,
    {:exists, %Entry{path: [:a], value: "hunter2", revision: 7}},
    {:conflict, %Entry{path: [:a], value: "hunter2", revision: 7}},
    {:conflict, nil},
    {:invalid_path, "why"},
    {:invalid_pattern, "why"},
    {:unknown_atom, "name"},
    {:too_large, :value, 16},
    {:keep_while, [:a], :unmet},
    {:keep_while, [:a], :no_match},
    {:compacted, 7},
    {:future_revision, 7},
    :lease_ended,
    :too_many_conflicts,
    :engine_failed,
    :disk_full,
    {:storage, "why"},
    {:lost, :missing},
    {:no_store, "/dir", "why"},
    {:no_data_dir, :app},
    {:locked, "/dir", :this_vm},
    {:wrong_store, "a", "b"},
    {:newer_format, 3, 2},
    {:older_format, 1, 2},
    {:not_a_directory, "/dir", "why"},
    {:permission_denied, "/dir", "why"},
    {:not_a_store, "/dir", "why"},
    {:data_dir, "/dir", "why"},
    {:not_empty, "/dir", "why"},
    {:file, "/file", "why"},
    {:malformed, 7},
    {:invalid_value, 7, [:a]},
    {:held, :lease},
    {:corrupt, :log, "why"},
    {:invalid_option, :timing, "why"},
    {:already_running, "/dir"},
    :system_not_started,
    :nodedown,
    {:rolled_back, :no}
  ]

  @props %{store_id: :app, node: :a@b, nodes: [:a@b, :c@d], clusters: %{a@b: "01"}, why: "why", waits: "for c@d"}
  @names [
    :not_a_tank_store,
    :failed_to_join_remote_node,
    :cluster_has_other_members,
    :members_in_another_cluster,
    :members_missing,
    :quorum_is_there,
    :not_a_member,
    :is_a_witness,
    :other_cluster,
    :no_list_of_nodes,
    :no_cluster_formed,
    :formation_failed
  ]

  test "every reason has a message of its own, which holds no values" do
    for native <- @reasons ++ for(name <- @names, do: {:tank, name, @props}),
        # As the Rust library gives it, and as functions return it.
        reason <- Enum.uniq([native, Error.public(native)]) do
      message = Exception.message(Error.exception(reason))
      assert message != inspect(reason), "#{inspect(reason)} has no message"
      refute message =~ "hunter2"
      refute message =~ "%{", "the message of #{inspect(reason)} is written for programs: #{message}"
    end
  end

  test "every reason that the library makes is one of those, and is documented" do
    {:docs_v1, _line, _language, _format, %{"en" => doc}, _meta, _functions} = Code.fetch_docs(Error)
    sources = Path.wildcard("lib/tank/store/**/*.ex") ++ ["lib/tank/store.ex"]
    text = Enum.map_join(sources, "\n", &File.read!/1)

    for [_all, name] <- Regex.scan(~r/\{:tank, :(\w+), %\{/, text), do: assert(String.to_atom(name) in @names)
    for name <- @names, do: assert(doc =~ "`#{inspect(name)}`")
    for reason <- @reasons, is_atom(reason), do: assert(doc =~ "`#{inspect(reason)}`", inspect(reason))
  end
end
