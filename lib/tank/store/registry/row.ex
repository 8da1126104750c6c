defmodule Tank.Store.Registry.Row do
  @moduledoc false
  # What the registry says about one store on one node.

  @modes [:single, :cluster]
  @timeout 5_000

  @type t :: %{
          store_id: atom,
          node: node,
          mode: :single | :cluster,
          data_dir: String.t(),
          timeout: timeout,
          registered_at: integer
        }

  @doc "The row of a store of this node, from what it was announced with. Raises `ArgumentError` for what is wrong."
  @spec new(atom, map | keyword | struct) :: t
  def new(store_id, config) do
    config = config |> fields!() |> Map.new()

    %{
      store_id: store_id,
      node: node(),
      mode: mode!(Map.get(config, :mode)),
      data_dir: data_dir!(Map.get(config, :data_dir)),
      timeout: timeout!(Map.get(config, :timeout)),
      registered_at: System.system_time(:millisecond)
    }
  end

  @doc "Whether both say the same, whenever they were registered."
  @spec same?(t, t) :: boolean
  def same?(one, other), do: %{one | registered_at: 0} == %{other | registered_at: 0}

  @doc "Whether `value`, which came from another node, is a row of that node."
  @spec of_node?(term, node) :: boolean
  def of_node?(%{store_id: _id, node: node, mode: _mode, data_dir: _dir, timeout: _timeout, registered_at: at}, node),
    do: is_integer(at)

  def of_node?(_other, _node), do: false

  defp fields!(%_struct{} = config), do: Map.from_struct(config)
  defp fields!(config) when is_map(config), do: config

  defp fields!(config) do
    if Keyword.keyword?(config),
      do: config,
      else: raise(ArgumentError, "a config is a map, a keyword list or a struct, got: #{inspect(config)}")
  end

  defp mode!(nil), do: :single
  defp mode!(mode) when mode in @modes, do: mode
  defp mode!(other), do: raise(ArgumentError, "mode must be :single or :cluster, got: #{inspect(other)}")

  defp data_dir!(dir) when is_binary(dir), do: dir
  defp data_dir!([_first | _rest] = dir), do: List.to_string(dir)
  defp data_dir!(other), do: raise(ArgumentError, "data_dir must be a directory, got: #{inspect(other)}")

  defp timeout!(nil), do: @timeout
  defp timeout!(:infinity), do: :infinity
  defp timeout!(timeout) when is_integer(timeout) and timeout >= 0, do: timeout
  defp timeout!(other), do: raise(ArgumentError, "timeout must be in milliseconds, got: #{inspect(other)}")
end
