defmodule Tank.Khepri.Props do
  @moduledoc false
  # The properties of nodes that a caller asked for.

  import Tank.Khepri.Records

  alias Tank.Khepri.Engine

  @default [:payload, :payload_version, :delete_reason]
  @of_children [:child_list_version, :child_list_length, :child_names]

  @doc "What is returned unless a caller asks for something else."
  @spec default :: [atom]
  def default, do: @default

  @doc "What a transaction relies on that reads them."
  @spec need([atom]) :: Engine.need()
  def need(wanted) do
    cond do
      Enum.any?(wanted, &(&1 in @of_children)) -> :all
      wanted == [] -> :exists
      true -> :payload
    end
  end

  @doc "The wanted ones of a node."
  @spec gather(Engine.source(), Engine.t(), [atom]) :: map
  def gather(source, node, wanted), do: gather_with(node, wanted, fn -> Engine.child_names(source, node) end)

  defp gather_with(node, wanted, child_names), do: Enum.reduce(wanted, %{}, &put(&1, &2, node, child_names))

  @doc "Those that stand in an error."
  @spec for_error(Engine.t()) :: map
  def for_error({_key, props}), do: Map.take(props, [:data, :sproc, :payload_version])

  @doc "Those of a node that was written: its former payload, and what else it has now."
  @spec of_written(Engine.t() | nil, Engine.t(), [atom], (() -> Engine.source())) :: map
  def of_written(old, new, wanted, read) do
    before = if old, do: gather_with(old, wanted -- [:child_names], fn -> [] end), else: %{}
    now = gather_with(new, wanted, fn -> Engine.child_names(read.(), new) end)
    Map.merge(before, Map.drop(now, [:data, :sproc]))
  end

  @doc "The versions of a node, with its payload."
  @spec with_payload(map, Tank.Khepri.Payload.t()) :: map
  def with_payload(props, p_data(data: data)), do: Map.put(props, :data, data)
  def with_payload(props, p_sproc(sproc: fun)), do: Map.put(props, :sproc, fun)
  def with_payload(props, no_payload()), do: props

  @doc "Those of a node that was deleted."
  @spec of_deleted(Engine.t(), atom, [atom | binary], [atom]) :: map
  def of_deleted(node, reason, child_names, wanted) do
    props = gather_with(node, wanted, fn -> child_names end)
    if :delete_reason in wanted, do: Map.put(props, :delete_reason, reason), else: props
  end

  defp put(:payload, acc, {_key, %{data: data}}, _names), do: Map.put(acc, :data, data)
  defp put(:payload, acc, {_key, %{sproc: fun}}, _names), do: Map.put(acc, :sproc, fun)
  defp put(:has_payload, acc, {_key, %{data: _}}, _names), do: Map.put(acc, :has_data, true)
  defp put(:has_payload, acc, {_key, %{sproc: _}}, _names), do: Map.put(acc, :is_sproc, true)
  defp put(:raw_payload, acc, node, _names), do: Map.put(acc, :raw_payload, Engine.payload_of(node))
  defp put(:child_names, acc, _node, names), do: Map.put(acc, :child_names, names.())

  defp put(name, acc, {_key, props}, _names) when name in [:payload_version, :child_list_version, :child_list_length],
    do: Map.put(acc, name, Map.fetch!(props, name))

  defp put(_unknown, acc, _node, _names), do: acc
end
