defmodule Tank.Store.Faults.Workload do
  @moduledoc """
  What the writers of a run do.

  Operation `n` of a writer is a function of its id, `{run, writer, n}`, and so is the pod that it writes: whoever knows
  the ids that were answered knows what must be in the store, to the byte.

  Most pods have a name that no other operation uses, so that losing any one of them shows. Each writer also has a pod
  that it writes again and again, and some pods are written by all writers.
  """

  @type id :: {run :: pos_integer, writer :: pos_integer, n :: non_neg_integer}
  @type kind :: :put | :create | :delete

  @writers 16
  @shared 6

  @doc "Whether a run writes so much beside its writers that the database changes its files all the time."
  @spec filled?(run :: pos_integer) :: boolean
  def filled?(run), do: rem(run, 4) == 0

  @doc "How many writers there are in a run. What a single one writes takes another way to the disk."
  @spec writers(run :: pos_integer) :: pos_integer
  def writers(run), do: if(rem(run, 3) == 0 and not filled?(run), do: 1, else: @writers)

  @doc "What an operation does, and to the pod of which name."
  @spec op(id) :: {kind, String.t()}
  def op({run, writer, n}) do
    case rem(n, 8) do
      1 -> {:create, unique({run, writer, n})}
      2 -> {:delete, unique({run, writer, n - 2})}
      3 -> {:put, "own-#{writer}"}
      4 -> {:put, shared({run, writer, n})}
      5 -> {:create, "own-#{writer}"}
      6 -> if rem(n, 16) == 6, do: {:delete, "own-#{writer}"}, else: {:put, unique({run, writer, n})}
      7 -> if rem(n, 16) == 7, do: {:delete, shared({run, writer, n})}, else: {:create, shared({run, writer, n})}
      _ -> {:put, unique({run, writer, n})}
    end
  end

  @doc "The pod that an operation writes."
  @spec pod(id) :: Tank.Pod.t()
  def pod({run, writer, n} = id) do
    {_kind, name} = op(id)
    env = %{"RUN" => "#{run}", "WRITER" => "#{writer}", "N" => "#{n}"}
    container = %Tank.Container{name: "app", image: "registry.example.com/app:#{n}", env: env, args: [filler(id)]}
    %Tank.Pod{name: name, containers: [container]}
  end

  @doc "The operation that wrote a pod, or nil when none did."
  @spec id(term) :: id | nil
  def id(%Tank.Pod{containers: [%Tank.Container{env: %{"RUN" => run, "WRITER" => writer, "N" => n}}]} = pod) do
    id = {String.to_integer(run), String.to_integer(writer), String.to_integer(n)}
    if pod == pod(id), do: id
  end

  def id(_other), do: nil

  @doc "Whether all writers write the pod of this name."
  @spec shared?(String.t()) :: boolean
  def shared?(name), do: String.starts_with?(name, "shared-")

  defp unique({run, writer, n}), do: "unique-#{run}-#{writer}-#{n}"
  defp shared(id), do: "shared-#{:erlang.phash2(id, @shared)}"

  # A few hundred bytes, now and then a few pages, and sometimes so much that the log has a file for it alone.
  defp filler({_run, writer, n} = id) do
    lines =
      cond do
        :erlang.phash2(id, 800) == 1 -> 250_000
        :erlang.phash2(id, 50) == 0 -> 1_500
        true -> :erlang.phash2(id, 30)
      end

    String.duplicate("#{writer}:#{n};", lines)
  end
end
