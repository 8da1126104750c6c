defmodule Tank.Store.Cluster.Arguments do
  @moduledoc false
  # What callers of `Tank.Store.Cluster` give, in all the forms that it takes: checked, and in one form. What only a wrong
  # program gives raises `ArgumentError`.

  require Logger

  alias Tank.Store.Cluster
  alias Tank.Store.{Deadline, Error, Formation, Join, Options, Server}

  @timeout 5_000
  @ready_timeout 30_000

  # What a cluster is formed with.
  @forming [:cluster, :role, :forming]

  defguardp is_timeout(timeout) when timeout == :infinity or (is_integer(timeout) and timeout >= 0)

  @doc "A store id or a config: the id, the options of the store, and what the cluster is formed with."
  @spec config!(term) :: {atom, map, Formation.t() | nil}
  def config!(store_id) when is_atom(store_id) and store_id != nil, do: {store_id, %{}, nil}

  def config!(%{cluster_name: store_id} = config) when is_atom(store_id) and store_id != nil do
    if Map.has_key?(config, :initial_members) do
      Logger.warning("initial_members is ignored: members are added with join")
    end

    options = Options.validate!(config, [:cluster_name, :initial_members | @forming])
    {store_id, options, formation!(config)}
  end

  def config!(%{store_id: _id} = config),
    do: config |> Map.put(:cluster_name, Options.store_id!(config)) |> Map.delete(:store_id) |> config!()

  def config!(other) do
    raise ArgumentError, "expected a store id or a map with :store_id, got: #{inspect(other)}"
  end

  @doc """
  The options of a store that is a child of a supervisor: as in a config, with its directory and a timeout. `others` are the
  caller's own.
  """
  @spec child!(keyword, [atom]) :: map
  def child!(options, others \\ []) do
    native = Options.validate!(options, [:store_id, :data_dir, :timeout | @forming] ++ others)

    %{
      store_id: Options.store_id!(options, Cluster.get_default_store_id()),
      data_dir: Keyword.get(options, :data_dir),
      timeout: options |> Keyword.get(:timeout, @ready_timeout) |> Options.timeout!(),
      options: native,
      formation: formation!(options)
    }
  end

  @doc "What to form a cluster with, of options; nil without a list of nodes."
  @spec formation!(keyword | map) :: Formation.t() | nil
  def formation!(options) do
    formation = %{nodes: nodes!(options[:cluster]), role: role!(options), founding: founding!(options)}
    if formation.nodes, do: formation
  end

  defp founding!(options) do
    case Access.get(options, :forming, :all) do
      founding when founding in [:all, :majority] -> founding
      other -> raise ArgumentError, "option :forming must be :all or :majority, got: #{inspect(other)}"
    end
  end

  defp nodes!(nodes) when nodes == nil or is_function(nodes, 0), do: nodes

  defp nodes!(nodes) do
    if is_list(nodes) and Enum.all?(nodes, &is_atom/1),
      do: nodes,
      else: raise(ArgumentError, "option :cluster must be a list of nodes or a function, got: #{inspect(nodes)}")
  end

  @doc "What to join as, of options."
  @spec role!(keyword | map) :: Join.role()
  def role!(options) do
    case Access.get(options, :role, :voter) do
      role when role in [:voter, :learner, :witness] -> role
      other -> raise ArgumentError, "option :role must be :voter, :learner or :witness, got: #{inspect(other)}"
    end
  end

  @doc "The timeout of a call, which is given as it is, or as the option `:timeout`."
  @spec timeout!(timeout | [timeout: timeout]) :: timeout
  def timeout!(options) when is_list(options),
    do: timeout!(Options.with_defaults!(options, timeout: @timeout)[:timeout])

  def timeout!(timeout), do: Options.timeout!(timeout)

  @doc "The deadline that it stands for."
  @spec deadline!(timeout | [timeout: timeout]) :: Deadline.t()
  def deadline!(timeout), do: timeout |> timeout!() |> Deadline.in_ms()

  @doc "A timeout, or options of a query."
  @spec query!(term) :: {:consistency | :low_latency, timeout}
  def query!(timeout) when is_timeout(timeout), do: {:consistency, timeout}

  def query!(options) when is_map(options) or is_list(options) do
    options = options |> Enum.to_list() |> Options.with_defaults!(favor: :consistency, timeout: @timeout)

    case {options[:favor], options[:timeout]} do
      {favor, timeout} when favor in [:consistency, :low_latency] and is_timeout(timeout) -> {favor, timeout}
      _other -> no_query(options)
    end
  end

  def query!(other), do: no_query(other)

  @doc "A directory, or that of a running store."
  @spec dir(term) :: {:ok, String.t()} | {:error, :system_not_started | Error.t()}
  def dir(system) when is_atom(system) do
    with {:error, :noproc} <- Server.data_dir(system), do: {:error, :system_not_started}
  end

  def dir(dir) when is_list(dir) and dir != [], do: dir |> List.to_string() |> dir()

  def dir(dir) when is_binary(dir) and dir != "" do
    # The Rust library reports paths as text.
    if String.valid?(dir), do: {:ok, Path.expand(dir)}, else: no_path(dir)
  end

  def dir(dir), do: no_path(dir)

  defp no_query(options) do
    raise ArgumentError, "expected :timeout and favor: :consistency | :low_latency, got: #{inspect(options)}"
  end

  defp no_path(dir), do: {:error, Error.from_native({:invalid_option, :data_dir, "#{inspect(dir)} is not a path"})}
end
