defmodule Tank.Store.DashboardCase do
  @moduledoc "For tests of the dashboard: a dashboard of a store, and requests to it over a real socket."

  use ExUnit.CaseTemplate

  alias Tank.Store.{Dashboard, Tree}

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
    request = if method in [:get, :head], do: {url, headers}, else: {url, headers, ~c"text/plain", ""}
    # `ssl`: without it, newer clients look for the certificates of the machine, which may have none.
    options = [timeout: 20_000, connect_timeout: 10_000, autoredirect: false, ssl: []]
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
    supervisor = :httpd_util.make_name(~c"httpd_connection_sup", {127, 0, 0, 1}, port)
    supervisor |> Supervisor.count_children() |> Map.fetch!(:active)
  end

  @doc false
  # What the pictures of the guide show.
  def fill_for_pictures(store) do
    Tree.put!(store, [:deployments], %{owner: "platform", quota: 40})

    for name <- ~w(billing cache gateway mail metrics search web worker) do
      value = %{image: "registry.local/#{name}:1.4.2", replicas: 3, env: %{"REGION" => "eu-1", "LOG" => "info"}}
      Tree.put!(store, [:deployments, name], value)
    end

    for n <- 1..1_200, do: Tree.put!(store, [:users, "user#{n}"], user(n, 0))
    :ok
  end

  @doc false
  # And goes on to write, in a process for each of so many, until the node ends.
  def write_for_pictures(store, count) do
    for first <- 1..count, do: spawn(fn -> write_on(store, first) end)
    :ok
  end

  defp write_on(store, n) do
    Tree.put(store, [:users, "user#{n}"], user(n, n))
    write_on(store, rem(n + 7, 1_200) + 1)
  end

  defp user(n, seen), do: %{mail: "user#{n}@example.org", seen: seen}

  @doc false
  # Plots of a store that was started a moment ago would be empty: samples of ten minutes, as a store has that serves.
  def load_as_of_ten_minutes(store) do
    [{pid, table}] = Registry.lookup(Tank.Store.Names, {:dashboard_samples, store})
    now = System.system_time(:millisecond)
    :rand.seed(:exsss, {1, 2, 3})

    :sys.replace_state(pid, fn state ->
      for n <- 1..595, at = now - (596 - n) * 1_000, do: :ets.insert(table, {n - 1_000, at, sample(at, n)})
      state
    end)

    :ok
  end

  defp sample(at, n) do
    wave = 1 + 0.35 * :math.sin(n / 60) + 0.1 * :rand.normal()
    burst = if n in 380..420, do: 1.8, else: 1.0
    writes = round(330 * wave * burst)
    p50 = round(3_400 * (0.9 + 0.1 * wave) * (0.97 + 0.06 * :rand.uniform()))
    p99 = round(p50 * (2.4 + 0.5 * :rand.uniform()) * burst)

    row = [
      at,
      writes,
      round(110 * wave),
      round(writes * 2.6),
      0,
      p50,
      p99,
      round(p50 * 0.4),
      round(p50 * 0.9),
      round(p50 * 0.6),
      p50
    ]

    "[" <> Enum.join(row, ",") <> "]"
  end
end
