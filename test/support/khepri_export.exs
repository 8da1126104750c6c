# Makes real exports of Khepri: runs in a Debian root that has it, not in this project's VM.
#
#     elixir khepri_export.exs PLUGINS_DIR DATA_DIR TEXT_FILE STREAM_FILE COUNT
[plugins, data_dir, text, stream, count] = System.argv()

for app <- ~w(khepri ra aten gen_batch_server horus seshat),
    dir <- Path.wildcard("#{plugins}/#{app}-*/ebin"),
    do: :code.add_patha(String.to_charlist(dir))

{:ok, _apps} = Application.ensure_all_started(:ra)
File.rm_rf!(data_dir)
{:ok, store} = :khepri.start(String.to_charlist(data_dir))

for n <- 1..String.to_integer(count) do
  value = %{name: "pod-#{n}", number: n, tags: [:a, {n, "ü"}], spec: String.duplicate("x", rem(n, 300))}
  :ok = :khepri.put(store, [:pods, "group-#{rem(n, 100)}", "pod-#{n}"], value)
end

:ok = :khepri.export(store, :khepri_export_erlang, String.to_charlist(text))
{:ok, _file} = :khepri.export(store, :mnesia_backup, String.to_charlist(stream))
:ok = :khepri.stop(store)
