defmodule Tank.Khepri.Adv do
  @moduledoc """
  Khepri's advanced API: the commands of `Tank.Khepri`, with answers `{:ok, %{path => props}}`.

  Reading gives the present properties. Writing gives, for each node that was written, its former payload and its new
  versions; for each one that was deleted, its last properties with the reason.
  """

  import Tank.Khepri.Arity, only: [shorter: 1, shorter: 2]

  alias Tank.Khepri.{App, Path, Projections, Verbs}

  @type store :: atom
  @type answer :: {:ok, %{Path.native_path() => map}} | :ok | {:error, term}

  @doc "The properties of a node."
  @spec get(store, Path.pattern(), map) :: answer
  def get(store, path, opts), do: Verbs.adv_get(store, path, opts)

  @doc "The properties of all nodes that a pattern matches."
  @spec get_many(store, Path.pattern(), map) :: answer
  def get_many(store, path, opts), do: Verbs.adv_get_many(store, path, opts)

  @doc "As `Tank.Khepri.put/4`."
  @spec put(store, Path.pattern(), term, map) :: answer
  def put(store, path, data, opts), do: Verbs.adv_put(store, path, data, opts)

  @doc "As `Tank.Khepri.put_many/4`."
  @spec put_many(store, Path.pattern(), term, map) :: answer
  def put_many(store, path, data, opts), do: Verbs.adv_put_many(store, path, data, opts)

  @doc "As `Tank.Khepri.create/4`."
  @spec create(store, Path.pattern(), term, map) :: answer
  def create(store, path, data, opts), do: Verbs.adv_create(store, path, data, opts)

  @doc "As `Tank.Khepri.update/4`."
  @spec update(store, Path.pattern(), term, map) :: answer
  def update(store, path, data, opts), do: Verbs.adv_update(store, path, data, opts)

  @doc "As `Tank.Khepri.compare_and_swap/5`."
  @spec compare_and_swap(store, Path.pattern(), term, term, map) :: answer
  def compare_and_swap(store, path, pattern, data, opts),
    do: Verbs.adv_compare_and_swap(store, path, pattern, data, opts)

  @doc "As `Tank.Khepri.delete/3`."
  @spec delete(store, Path.pattern(), map) :: answer
  def delete(store, path, opts), do: Verbs.adv_delete(store, path, opts)

  @doc "As `Tank.Khepri.delete_many/3`."
  @spec delete_many(store, Path.pattern(), map) :: answer
  def delete_many(store, path, opts), do: Verbs.adv_delete_many(store, path, opts)

  @doc "As `Tank.Khepri.clear_payload/3`."
  @spec clear_payload(store, Path.pattern(), map) :: answer
  def clear_payload(store, path, opts), do: Verbs.adv_clear_payload(store, path, opts)

  @doc "As `Tank.Khepri.clear_many_payloads/3`."
  @spec clear_many_payloads(store, Path.pattern(), map) :: answer
  def clear_many_payloads(store, path, opts), do: Verbs.adv_clear_many_payloads(store, path, opts)

  @doc "As `Tank.Khepri.unregister_projections/3`, with the patterns of those that were there, by name."
  @spec unregister_projections(store, :all | [atom], map) :: {:ok, map} | :ok | {:error, term}
  def unregister_projections(store, names, opts) when names == :all or is_list(names),
    do: Projections.unregister(store, names, opts)

  def unregister_projections(names), do: unregister_projections(App.get_default_store_id(), names, %{})

  def unregister_projections(names, opts) when is_map(opts),
    do: unregister_projections(App.get_default_store_id(), names, opts)

  def unregister_projections(store, names), do: unregister_projections(store, names, %{})

  shorter(get: 1, get_many: 1, delete: 1, delete_many: 1)

  shorter(
    [put: 2, put_many: 2, create: 2, update: 2, compare_and_swap: 3, clear_payload: 1, clear_many_payloads: 1],
    options: false
  )
end
