defmodule Tank.Khepri.TxAdv do
  @moduledoc "The commands of `Tank.Khepri.Adv` within a transaction."

  alias Tank.Khepri.{Path, Verbs}

  @tx {:tx}

  @type answer :: {:ok, %{Path.native_path() => map}} | {:error, term}

  @doc "As `Tank.Khepri.Adv.get/3`."
  @spec get(Path.pattern(), map) :: answer
  def get(path, opts \\ %{}), do: Verbs.adv_get(@tx, path, opts)

  @doc "As `Tank.Khepri.Adv.get_many/3`."
  @spec get_many(Path.pattern(), map) :: answer
  def get_many(path, opts \\ %{}), do: Verbs.adv_get_many(@tx, path, opts)

  @doc "As `Tank.Khepri.Adv.put/4`."
  @spec put(Path.pattern(), term, map) :: answer
  def put(path, data, opts \\ %{}), do: Verbs.adv_put(@tx, path, data, opts)

  @doc "As `Tank.Khepri.Adv.put_many/4`."
  @spec put_many(Path.pattern(), term, map) :: answer
  def put_many(path, data, opts \\ %{}), do: Verbs.adv_put_many(@tx, path, data, opts)

  @doc "As `Tank.Khepri.Adv.create/4`."
  @spec create(Path.pattern(), term, map) :: answer
  def create(path, data, opts \\ %{}), do: Verbs.adv_create(@tx, path, data, opts)

  @doc "As `Tank.Khepri.Adv.update/4`."
  @spec update(Path.pattern(), term, map) :: answer
  def update(path, data, opts \\ %{}), do: Verbs.adv_update(@tx, path, data, opts)

  @doc "As `Tank.Khepri.Adv.compare_and_swap/5`."
  @spec compare_and_swap(Path.pattern(), term, term, map) :: answer
  def compare_and_swap(path, pattern, data, opts \\ %{}),
    do: Verbs.adv_compare_and_swap(@tx, path, pattern, data, opts)

  @doc "As `Tank.Khepri.Adv.delete/3`."
  @spec delete(Path.pattern(), map) :: answer
  def delete(path, opts \\ %{}), do: Verbs.adv_delete(@tx, path, opts)

  @doc "As `Tank.Khepri.Adv.delete_many/3`."
  @spec delete_many(Path.pattern(), map) :: answer
  def delete_many(path, opts \\ %{}), do: Verbs.adv_delete_many(@tx, path, opts)

  @doc "As `Tank.Khepri.Adv.clear_payload/3`."
  @spec clear_payload(Path.pattern(), map) :: answer
  def clear_payload(path, opts \\ %{}), do: Verbs.adv_clear_payload(@tx, path, opts)

  @doc "As `Tank.Khepri.Tx.clear_many_payloads/2`."
  @spec clear_many_payloads(Path.pattern(), map) :: answer
  def clear_many_payloads(path, opts \\ %{}), do: Verbs.adv_clear_many_payloads(@tx, path, opts)

  @doc false
  # Applications that are extracted by Horus capture it. Nothing is extracted here.
  @spec should_process_function(module, atom, arity, module) :: boolean
  def should_process_function(_module, _name, _arity, _from), do: false
end
