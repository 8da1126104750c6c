defmodule Tank.Store.DashboardCase do
  @moduledoc "For tests of the dashboard: a dashboard of a store, and requests to it over a real socket."

  use ExUnit.CaseTemplate

  alias Tank.Store.Dashboard

  using do
    quote do
      import Tank.Store.{DashboardCase, TankCase}
    end
  end

  defmodule Answer do
    @moduledoc "What a dashboard answered."
    defstruct [:status, :headers, :body]
  end

  @token "a token for tests only"

  @doc "Starts the dashboard of a store under the test's supervisor; its port."
  def start_dashboard(store, opts \\ []) do
    {:ok, _inets} = Application.ensure_all_started(:inets)
    opts = Keyword.merge([store_id: store, port: 0, token: @token], opts)
    ExUnit.Callbacks.start_supervised!({Dashboard, opts})
    port(store)
  end

  @doc "The port of a store's dashboard."
  def port(store), do: URI.parse(Dashboard.url(store)).port

  @doc "Asks with the token as a cookie, unless other headers are given."
  def get(port, path, headers \\ nil), do: request(:get, port, path, headers)

  @doc "The same with another method."
  def request(method, port, path, headers \\ nil) do
    url = String.to_charlist("http://127.0.0.1:#{port}#{path}")
    headers = for {name, value} <- headers || [cookie(port)], do: {to_charlist(name), to_charlist(value)}
    request = if method in [:get, :head], do: {url, headers}, else: {url, headers, 'text/plain', ""}
    options = [timeout: 20_000, connect_timeout: 10_000, autoredirect: false]
    {:ok, {{_version, status, _phrase}, headers, body}} = :httpc.request(method, request, options, body_format: :binary)
    %Answer{status: status, headers: Map.new(headers, fn {n, v} -> {to_string(n), to_string(v)} end), body: body}
  end

  @doc "The header with the token."
  def cookie(port, token \\ @token),
    do: {"cookie", "tank_dashboard_#{port}=" <> Base.url_encode64(token, padding: false)}

  @doc "A socket to the dashboard that was sent `text`; it reads nothing."
  def send_raw(port, text, options \\ []) do
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false] ++ options)
    :ok = :gen_tcp.send(socket, text)
    socket
  end

  @doc "All that comes until the other side closes."
  def read_all(socket, text \\ "") do
    case :gen_tcp.recv(socket, 0, 20_000) do
      {:ok, more} -> read_all(socket, text <> more)
      {:error, :closed} -> text
    end
  end

  @doc "How many connections a dashboard has."
  def connections(port) do
    supervisor = :httpd_util.make_name('httpd_connection_sup', {127, 0, 0, 1}, port)
    supervisor |> Supervisor.count_children() |> Map.fetch!(:active)
  end
end
