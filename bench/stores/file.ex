defmodule Tank.Bench.Store.File do
  @moduledoc """
  The least that a durable store on the BEAM does, for context: callers encode a pod, and one process appends what has
  come meanwhile to a file, syncs once, and answers all of them.

  It orders nothing, keeps nothing in memory and cannot be read, so there is no cheaper put than its put.
  """

  @behaviour Tank.Bench.Store

  # Written again and again: where a file grows, the file system's journal has to be synced too.
  @file_bytes 64 * 1024 * 1024

  @impl true
  def version, do: "a file"

  @impl true
  def start(dir) do
    File.mkdir_p!(dir)
    parent = self()
    spawn(fn -> own(Path.join(dir, "appended"), parent) end)
    receive do: ({__MODULE__, :ready} -> :ok)
  end

  @impl true
  def stop, do: Tank.Bench.Store.stop_process(__MODULE__)

  @impl true
  def put(pod) do
    ref = make_ref()
    send(__MODULE__, {:put, self(), ref, :erlang.term_to_binary(pod)})
    receive do: (^ref -> :ok)
  end

  @impl true
  def reads, do: []

  @impl true
  def lists, do: []

  @impl true
  def syncs do
    ref = make_ref()
    send(__MODULE__, {:syncs, self(), ref})
    receive do: ({^ref, syncs} -> syncs)
  end

  defp own(path, parent) do
    Process.register(self(), __MODULE__)
    {:ok, file} = :file.open(path, [:raw, :binary, :read, :write])
    megabyte = :binary.copy(<<0>>, 1024 * 1024)
    for _megabyte <- 1..div(@file_bytes, byte_size(megabyte)), do: :ok = :file.write(file, megabyte)
    :ok = :file.sync(file)
    send(parent, {__MODULE__, :ready})
    serve(file, 0, 0)
  end

  defp serve(file, position, syncs) do
    receive do
      {:put, caller, ref, bytes} ->
        {callers, batch} = gather([{caller, ref}], [bytes])
        position = if position + IO.iodata_length(batch) > @file_bytes, do: 0, else: position
        :ok = :file.pwrite(file, position, batch)
        :ok = :file.datasync(file)
        for {caller, ref} <- callers, do: send(caller, ref)
        serve(file, position + IO.iodata_length(batch), syncs + 1)

      {:syncs, caller, ref} ->
        send(caller, {ref, syncs})
        serve(file, position, syncs)

      :stop ->
        :file.close(file)
    end
  end

  defp gather(callers, batch) do
    receive do
      {:put, caller, ref, bytes} -> gather([{caller, ref} | callers], [bytes | batch])
    after
      0 -> {callers, batch}
    end
  end
end
