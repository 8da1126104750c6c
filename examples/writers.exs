# Run by demo.exs as an operating system process of its own, which is then killed. Arguments: a store's directory, and how
# many writers. Each puts pods as fast as it can, and prints the name of each when the store has acknowledged it.

# Of what the store logs (guides/logs.md), only warnings and errors.
Application.put_env(:logger, :level, :warning)
:ok = :logger.set_primary_config(:level, :warning)

[dir, writers] = System.argv()

{:ok, _apps} = Application.ensure_all_started(:tank_store)
{:ok, _supervisor} = Supervisor.start_link([{Tank.Store, data_dir: dir}], strategy: :one_for_one)

write = fn writer, n ->
  name = "job-#{writer}-#{n}"
  :ok = Tank.Store.put_pod(Tank.Pod.new!(name: name, containers: [[name: "job", image: "job:#{writer}.#{n}"]]))
  IO.puts(name)
end

for writer <- 1..String.to_integer(writers) do
  spawn_link(fn -> Enum.each(Stream.iterate(1, &(&1 + 1)), &write.(writer, &1)) end)
end

# Ends with whoever started it.
IO.read(:stdio, :line)
System.halt()
