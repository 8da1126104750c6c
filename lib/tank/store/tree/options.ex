defmodule Tank.Store.Tree.Options do
  @moduledoc false
  # The options of the functions of `Tank.Store.Tree`: what is unknown or makes no sense raises `ArgumentError`.

  alias Tank.Store.Options, as: StoreOptions
  alias Tank.Store.Tree.KeepWhile

  @timeout 5_000
  @read [timeout: @timeout, favor: :consistency]
  @write [timeout: @timeout]

  @doc "Those of a function that reads, and the defaults of those that it has besides."
  @spec read(keyword, keyword) :: keyword
  def read(opts, more \\ []) do
    opts = checked(opts, more ++ @read)

    if opts[:favor] not in [:consistency, :low_latency],
      do: raise(ArgumentError, "favor: is :consistency or :low_latency, got: #{inspect(opts[:favor])}")

    opts
  end

  @doc "Those of a function that writes."
  @spec write(keyword, keyword) :: keyword
  def write(opts, more \\ []), do: checked(opts, more ++ @write)

  @doc "The condition that `:if_revision` stands for."
  @spec condition(nil | non_neg_integer) :: nil | {:revision, non_neg_integer}
  def condition(nil), do: nil
  def condition(revision) when is_integer(revision) and revision >= 0, do: {:revision, revision}
  def condition(other), do: raise(ArgumentError, "if_revision: is a revision, got: #{inspect(other)}")

  @doc "Whether a put is to be left out when it would change nothing."
  @spec unless_same!(keyword) :: boolean
  def unless_same!(opts) do
    case {opts[:unless_same], opts[:if_revision]} do
      {same?, nil} when is_boolean(same?) -> same?
      {false, _revision} -> false
      {true, _revision} -> raise ArgumentError, "unless_same: and if_revision: cannot be given together"
      {other, _revision} -> raise ArgumentError, "unless_same: is true or false, got: #{inspect(other)}"
    end
  end

  @doc "How a value is written: its kind, whether an equal one is left, the conditions that keep it, whether it answers."
  @spec how(keyword, byte) :: {:ok, tuple} | {:error, {:invalid_pattern, String.t()}}
  def how(opts, kind \\ 1) do
    with {:ok, keep_while} <- KeepWhile.encode(opts[:keep_while]),
         do: {:ok, {kind, opts[:unless_same] || false, keep_while, flag!(opts, :return_previous)}}
  end

  @doc "A boolean."
  @spec flag!(keyword, atom) :: boolean
  def flag!(opts, name) do
    case opts[name] do
      flag when is_boolean(flag) -> flag
      nil -> false
      other -> raise ArgumentError, "#{name}: is true or false, got: #{inspect(other)}"
    end
  end

  @doc "Whether nodes without a value are asked for, too."
  @spec all_nodes?(keyword) :: boolean
  def all_nodes?(opts) do
    case opts[:nodes] do
      :all -> true
      :with_value -> false
      other -> raise ArgumentError, "nodes: is :all or :with_value, got: #{inspect(other)}"
    end
  end

  @doc "Those of a list."
  @spec range(keyword) :: {keyword, map}
  def range(opts) do
    range = [depth: 1, limit: :infinity, after: nil, reverse: false, keys_only: false]
    opts = read(opts, [{:nodes, :with_value} | range])
    range = Map.new(Keyword.take(opts, Keyword.keys(range)))
    check_range!(range)
    {opts, range}
  end

  # Nothing to check. Most calls have none, and some are made hundreds of thousands of times a second.
  defp checked([], known), do: known

  defp checked(opts, known) do
    opts = StoreOptions.with_defaults!(opts, known)
    _timeout = StoreOptions.timeout!(opts[:timeout])
    opts
  end

  defp check_range!(range) do
    for name <- [:depth, :limit], value = Map.fetch!(range, name), least = if(name == :depth, do: 1, else: 0) do
      unless value == :infinity or (is_integer(value) and value >= least),
        do: raise(ArgumentError, "#{name}: is an integer from #{least} on or :infinity, got: #{inspect(value)}")
    end

    for name <- [:reverse, :keys_only],
        value = Map.fetch!(range, name),
        not is_boolean(value),
        do: raise(ArgumentError, "#{name}: is true or false, got: #{inspect(value)}")
  end
end
