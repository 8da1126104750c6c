defmodule Tank.Store.Dashboard.Server do
  @moduledoc false
  # The HTTP server of a dashboard: an instance of OTP's httpd of its own, on 127.0.0.1.
  #
  # httpd answers a request in the process of its connection, and waits in `gen_tcp:send/2` for a client that does not read,
  # for ever unless told otherwise. So there is a time for sending, answers are of bounded size, and a connection is closed
  # after one: pages ask again and again instead of holding a stream open. A crash of that process would be reported with
  # the cookies of its request: nothing that could crash is called outside of `Bounded` and a `try`.

  require Record

  alias Tank.Store.Dashboard.{Bounded, Context, Pages, Request, Response}
  alias Tank.Store.Log

  @compile {:no_warn_undefined, [:inets, :httpd_util]}

  # The record that httpd gives to its modules: inets/include/httpd.hrl.
  Record.defrecordp(:mod, [
    :init_data,
    :data,
    :socket_type,
    :socket,
    :config_db,
    :method,
    :absolute_uri,
    :request_uri,
    :http_version,
    :request_line,
    :parsed_header,
    :entity_body,
    :connection
  ])

  # A browser may have several requests at a time.
  @clients_max 600
  # A path of a kilobyte, twice, with all of its bytes as `%41`.
  @uri_bytes_max 8 * 1024
  @header_bytes_max 16 * 1024
  # No request that is answered has a body; httpd wants a number above 0.
  @body_bytes_max 1
  # A request that comes in more slowly, or not at all, is given up: httpd looks from the third second on, also while it waits
  # for a body, and not at a request that is being answered.
  @bytes_per_second_min 100
  # For an answer to go out.
  @send_ms 5_000

  @page_ms 5_000
  @page_megawords 32

  @spec child_spec(Context.t()) :: Supervisor.child_spec()
  def child_spec(context),
    do: %{id: __MODULE__, start: {__MODULE__, :start_link, [context]}, type: :supervisor, shutdown: 10_000}

  @doc "Starts the server. The process is a supervisor of httpd."
  @spec start_link(Context.t()) :: {:ok, pid} | {:error, {:listen, term}}
  def start_link(context) do
    # httpd would report at length that it cannot listen.
    with :ok <- try_port(context.port) do
      case :inets.start(:httpd, config(context), :stand_alone) do
        {:ok, pid} -> listening(pid)
        {:error, reason} -> {:error, {:listen, reason}}
      end
    end
  end

  # httpd starts also when it takes its configuration for wrong, which it logs: as a supervisor without children.
  defp listening(pid) do
    with {:error, :noproc} <- port(pid) do
      :ok = Supervisor.stop(pid)
      {:error, {:listen, :refused}}
    else
      {:ok, _port} -> {:ok, pid}
    end
  end

  @doc "The port that a server listens on."
  @spec port(pid) :: {:ok, :inet.port_number()} | {:error, :noproc}
  def port(server) do
    case Supervisor.which_children(server) do
      [{{:httpd_instance_sup, _address, port, _profile}, pid, _type, _modules}] when is_pid(pid) -> {:ok, port}
      _ends -> {:error, :noproc}
    end
  end

  # The callback of httpd's modules.
  @doc false
  def unquote(:do)(mod() = request) do
    [context] = for {:tank_dashboard, context} <- :ets.lookup(mod(request, :config_db), :tank_dashboard), do: context
    _closed_or_ok = :inet.setopts(mod(request, :socket), send_timeout: @send_ms, send_timeout_close: true)
    response = context |> respond(request) |> Response.to_httpd(mod(request, :method) == ~c"HEAD")
    {:break, [response: response]}
  end

  defp respond(context, mod(method: method)) when method not in [~c"GET", ~c"HEAD"],
    do: %{Pages.error(context, 405) | headers: [{"allow", "GET, HEAD"}]}

  defp respond(context, request) do
    {port, _name} = request |> mod(:init_data) |> elem(2)

    case Request.new(mod(request, :method), mod(request, :request_uri), mod(request, :parsed_header), port) do
      nil -> Pages.error(context, 400)
      request -> answer(context, request)
    end
  end

  # What waits, waits in this process; what works, in one that can be given up.
  defp answer(context, request) do
    with :ok <- Pages.wait(context, request),
         {:ok, response} <- Bounded.run(fn -> Pages.respond(context, request) end, @page_ms, @page_megawords) do
      response
    else
      {:error, why} -> failed(context, request, why)
    end
  end

  defp failed(%{store_id: store_id, noted: noted} = context, request, why) do
    {now, slot} = {System.monotonic_time(:millisecond), Context.slot(:failure_logged)}
    last = :atomics.get(noted, slot)

    if Log.due?(last, now) and :atomics.compare_exchange(noted, slot, last, now) == :ok do
      Log.log(store_id, :warning, :dashboard, fn ->
        "store #{inspect(store_id)}: the dashboard gave up #{request.path}: #{why(why)}"
      end)
    end

    Pages.error(context, 503)
  end

  defp why(:timeout), do: "it took more than #{@page_ms} ms"
  defp why(:memory), do: "it took too much memory"
  defp why({:crash, why}), do: why

  defp try_port(0), do: :ok

  defp try_port(port) do
    case :gen_tcp.listen(port, ip: {127, 0, 0, 1}, reuseaddr: true) do
      {:ok, socket} -> :gen_tcp.close(socket)
      {:error, reason} -> {:error, {:listen, reason}}
    end
  end

  defp config(context) do
    # It wants directories to serve, which no module of ours does.
    dir = :tank_store |> Application.app_dir() |> String.to_charlist()

    [
      bind_address: {127, 0, 0, 1},
      port: context.port,
      server_name: ~c"tank_store",
      server_root: dir,
      document_root: dir,
      modules: [__MODULE__],
      server_tokens: :none,
      keep_alive: false,
      minimum_bytes_per_second: @bytes_per_second_min,
      max_clients: @clients_max,
      max_uri_size: @uri_bytes_max,
      max_header_size: @header_bytes_max,
      max_body_size: @body_bytes_max,
      max_content_length: @body_bytes_max,
      tank_dashboard: context
    ]
  end
end
