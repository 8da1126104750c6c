defmodule Tank.Store.Dashboard do
  @moduledoc """
  Shows a store in the browser: members, load, the tree, changes, leases and watches. It only reads.

      children = [
        {Tank.Store.Cluster, store_id: :app, data_dir: "/var/lib/app"},
        {Tank.Store.Dashboard, store_id: :app, port: 4040}
      ]

  It listens on 127.0.0.1 only, and a browser needs its token. `url/1` returns a link with the token, in `iex` or from a
  release:

      bin/app rpc 'IO.puts(Tank.Store.Dashboard.url(:app))'

  From another machine, forward the port: `ssh -L 4040:127.0.0.1:4040 server`. The guide on the dashboard shows its pages.

  The dashboard needs the applications `:inets` and `:crypto` of OTP: name them in the `extra_applications` of your
  application, so that a release contains them. The dashboard makes no requests, and its pages load nothing from other sites.

  Its work is bounded: values are cut, lists have pages, a request that takes too long is aborted, and a client that does not
  read is disconnected. The dashboard also runs while the store does not, and shows that.
  """

  use Supervisor

  alias Tank.Store.{Cluster, Log, Names, Options}
  alias Tank.Store.Dashboard.{Context, Recorder, Sampler, Server}

  @names [:store_id, :store, :port, :token]

  @type option :: {:store_id, atom} | {:port, :inet.port_number()} | {:token, String.t()}

  @doc """
  The child specification of a dashboard. Its id is `{Tank.Store.Dashboard, store_id}`. The token is in it as a function, so
  that no report shows it.

      iex> Tank.Store.Dashboard.child_spec(store_id: :app, port: 4040).id
      {Tank.Store.Dashboard, :app}
  """
  @spec child_spec([option]) :: Supervisor.child_spec()
  def child_spec(opts) do
    id = {__MODULE__, Options.store_id!(opts, Cluster.get_default_store_id())}
    %{id: id, start: {__MODULE__, :start_link, [Context.hide_token(opts)]}, type: :supervisor}
  end

  @doc """
  Starts a dashboard. The store may be started later. A store has one dashboard on a node.

  Options:

    * `:store_id` - the store's id; the default is `Tank.Store.Cluster.get_default_store_id/0`
    * `:port` - the port on 127.0.0.1, 4040 by default. With 0 the system chooses a port, which `url/1` returns
    * `:token` - the token that a browser needs, of at least 16 bytes. By default each start makes a random one

  Returns `{:error, {:listen, reason}}` if the port is not available, such as `{:listen, :eaddrinuse}`. Raises `ArgumentError`
  for an unknown option or an invalid value.

      iex> Tank.Store.Dashboard.start_link(store_id: :app, prot: 4040)
      ** (ArgumentError) unknown option :prot, did you mean :port?

      iex> Tank.Store.Dashboard.start_link(store_id: :app, token: "short")
      ** (ArgumentError) option :token must be a string of at least 16 bytes
  """
  @spec start_link([option]) :: Supervisor.on_start() | {:error, {:listen, :inet.posix()}}
  def start_link(opts) do
    :ok = Options.known!(opts, @names)
    context = Context.new!(opts)
    name = {:via, Registry, {Names, {:dashboard, context.store_id}, context}}

    case Supervisor.start_link(__MODULE__, context, name: name) do
      {:ok, pid} -> {:ok, tap(pid, &announce(context.store_id, &1))}
      {:error, {:shutdown, {:failed_to_start_child, _server, {:listen, _why} = reason}}} -> {:error, reason}
      other -> other
    end
  end

  @doc """
  Returns a link to a store's dashboard, with its token. The browser then keeps the token in a cookie.

      iex> {:ok, dashboard} = Tank.Store.Dashboard.start_link(store_id: :tank, port: 0, token: "sixteen or longer")
      iex> Tank.Store.Dashboard.url(:tank) =~ ~r"^http://127.0.0.1:[0-9]+/.token=sixteen"
      true
      iex> Supervisor.stop(dashboard)
      iex> Tank.Store.Dashboard.url(:tank)
      ** (ArgumentError) no dashboard of the store :tank runs
  """
  @spec url(atom) :: String.t()
  def url(store_id \\ Cluster.get_default_store_id()) do
    with [{dashboard, context}] <- Registry.lookup(Names, {:dashboard, store_id}),
         {:ok, port} <- port(dashboard) do
      "#{address(port)}?" <> URI.encode_query(token: context.token.())
    else
      _none -> raise ArgumentError, "no dashboard of the store #{inspect(store_id)} runs"
    end
  end

  @impl true
  def init(context) do
    # Stopped from the last one to the first: requests that wait for a recorder are answered before the server goes.
    children = [{Sampler, context}, {Server, context}, {Recorder.Supervisor, context}]
    Supervisor.init(children, strategy: :rest_for_one)
  end

  defp announce(store_id, dashboard) do
    with {:ok, port} <- port(dashboard) do
      Log.log(store_id, :info, :dashboard, fn ->
        "store #{inspect(store_id)}: dashboard at #{address(port)}; " <>
          "Tank.Store.Dashboard.url(#{inspect(store_id)}) gives a link with its token"
      end)
    end
  end

  defp port(dashboard) do
    children = Supervisor.which_children(dashboard)

    with {Server, server, _type, _modules} when is_pid(server) <- List.keyfind(children, Server, 0),
         do: Server.port(server)
  catch
    :exit, _stopped -> {:error, :noproc}
  end

  defp address(port), do: "http://127.0.0.1:#{port}/"
end
