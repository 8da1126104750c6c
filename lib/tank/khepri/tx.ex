defmodule Tank.Khepri.Tx do
  @moduledoc """
  The commands of `Tank.Khepri` within a transaction: without the store's id, with options that may be left out.
  """

  alias Tank.Khepri.{Machine, Path, Running, Transaction, Verbs}

  @tx {:tx}

  @type error :: {:error, term}

  @doc "As `Tank.Khepri.is_empty/2`."
  @spec is_empty(map) :: boolean | error
  def is_empty(opts \\ %{}), do: Verbs.is_empty(@tx, opts)

  @doc "As `Tank.Khepri.get/3`."
  @spec get(Path.pattern(), map) :: {:ok, term} | error
  def get(path, opts \\ %{}), do: Verbs.get(@tx, path, opts)

  @doc "As `Tank.Khepri.get_or/4`."
  @spec get_or(Path.pattern(), term, map) :: {:ok, term} | error
  def get_or(path, default, opts \\ %{}), do: Verbs.get_or(@tx, path, default, opts)

  @doc "As `Tank.Khepri.get_many/3`."
  @spec get_many(Path.pattern(), map) :: {:ok, map} | error
  def get_many(path, opts \\ %{}), do: Verbs.get_many_or(@tx, path, :undefined, opts)

  @doc "As `Tank.Khepri.get_many_or/4`."
  @spec get_many_or(Path.pattern(), term, map) :: {:ok, map} | error
  def get_many_or(path, default, opts \\ %{}), do: Verbs.get_many_or(@tx, path, default, opts)

  @doc "As `Tank.Khepri.exists/3`."
  @spec exists(Path.pattern(), map) :: boolean | error
  def exists(path, opts \\ %{}), do: Verbs.exists(@tx, path, opts)

  @doc "As `Tank.Khepri.has_data/3`."
  @spec has_data(Path.pattern(), map) :: boolean | error
  def has_data(path, opts \\ %{}), do: Verbs.has_data(@tx, path, opts)

  @doc "As `Tank.Khepri.is_sproc/3`."
  @spec is_sproc(Path.pattern(), map) :: boolean | error
  def is_sproc(path, opts \\ %{}), do: Verbs.is_sproc(@tx, path, opts)

  @doc "As `Tank.Khepri.count/3`."
  @spec count(Path.pattern(), map) :: {:ok, non_neg_integer} | error
  def count(path, opts \\ %{}), do: Verbs.count(@tx, path, opts)

  @doc "As `Tank.Khepri.fold/5`."
  @spec fold(Path.pattern(), (list, map, acc -> acc), acc, map) :: {:ok, acc} | error when acc: term
  def fold(path, fun, acc, opts \\ %{}), do: Verbs.fold(@tx, path, fun, acc, opts)

  @doc "As `Tank.Khepri.foreach/4`."
  @spec foreach(Path.pattern(), (list, map -> term), map) :: :ok | error
  def foreach(path, fun, opts \\ %{}), do: Verbs.foreach(@tx, path, fun, opts)

  @doc "As `Tank.Khepri.map/4`."
  @spec map(Path.pattern(), (list, map -> term), map) :: {:ok, map} | error
  def map(path, fun, opts \\ %{}), do: Verbs.map(@tx, path, fun, opts)

  @doc "As `Tank.Khepri.filter/4`."
  @spec filter(Path.pattern(), (list, map -> boolean), map) :: {:ok, map} | error
  def filter(path, fun, opts \\ %{}), do: Verbs.filter(@tx, path, fun, opts)

  @doc "As `Tank.Khepri.put/4`."
  @spec put(Path.pattern(), term, map) :: :ok | error
  def put(path, data, opts \\ %{}), do: Verbs.simple(&Verbs.adv_put(@tx, path, data, &1), opts)

  @doc "As `Tank.Khepri.put_many/4`."
  @spec put_many(Path.pattern(), term, map) :: :ok | error
  def put_many(path, data, opts \\ %{}), do: Verbs.simple(&Verbs.adv_put_many(@tx, path, data, &1), opts)

  @doc "As `Tank.Khepri.create/4`."
  @spec create(Path.pattern(), term, map) :: :ok | error
  def create(path, data, opts \\ %{}), do: Verbs.simple(&Verbs.adv_create(@tx, path, data, &1), opts)

  @doc "As `Tank.Khepri.update/4`."
  @spec update(Path.pattern(), term, map) :: :ok | error
  def update(path, data, opts \\ %{}), do: Verbs.simple(&Verbs.adv_update(@tx, path, data, &1), opts)

  @doc "As `Tank.Khepri.compare_and_swap/5`."
  @spec compare_and_swap(Path.pattern(), term, term, map) :: :ok | error
  def compare_and_swap(path, pattern, data, opts \\ %{}),
    do: Verbs.simple(&Verbs.adv_compare_and_swap(@tx, path, pattern, data, &1), opts)

  @doc "As `Tank.Khepri.delete/3`."
  @spec delete(Path.pattern(), map) :: :ok | error
  def delete(path, opts \\ %{}), do: Verbs.simple(&Verbs.adv_delete(@tx, path, &1), opts)

  @doc "As `Tank.Khepri.delete_many/3`."
  @spec delete_many(Path.pattern(), map) :: :ok | error
  def delete_many(path, opts \\ %{}), do: Verbs.simple(&Verbs.adv_delete_many(@tx, path, &1), opts)

  @doc "As `Tank.Khepri.clear_payload/3`."
  @spec clear_payload(Path.pattern(), map) :: :ok | error
  def clear_payload(path, opts \\ %{}), do: Verbs.simple(&Verbs.adv_clear_payload(@tx, path, &1), opts)

  @doc "As `Tank.Khepri.clear_many_payloads/3`, and a node that is named and missing is made."
  @spec clear_many_payloads(Path.pattern(), map) :: :ok | error
  def clear_many_payloads(path, opts \\ %{}), do: Verbs.simple(&Verbs.adv_clear_many_payloads(@tx, path, &1), opts)

  @doc "Ends the transaction, which returns `{error, reason}`; nothing is written."
  @spec abort(term) :: no_return
  def abort(reason), do: Transaction.abort(reason)

  @doc "Whether the calling process runs a transaction."
  @spec is_transaction :: boolean
  def is_transaction, do: Running.get() != nil

  @doc "Whether the store behaves as a later version of Khepri's state machine does."
  @spec does_api_comply_with(atom) :: boolean
  def does_api_comply_with(behaviour), do: Machine.has_behaviour?(behaviour)
end
