defmodule Tank.Store.Browser do
  @moduledoc """
  A headless Chromium, driven by its DevTools protocol over a pipe: for tests of the dashboard.

  A browser belongs to the process that started it, and ends with the test. It resolves no names: nothing but addresses of this
  machine can be reached.
  """

  alias Tank.Store.Json

  # Starting it takes a second, and much longer while others compile.
  @timeout_ms 120_000
  @programs ~w(/usr/lib/chromium/chromium /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome)

  @options ~w(
    --headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --mute-audio
    --no-first-run --no-default-browser-check --disable-background-networking --disable-component-update --disable-sync
    --disable-extensions --disable-default-apps --disable-domain-reliability --disable-client-side-phishing-detection
    --metrics-recording-only --password-store=basic --use-mock-keychain --force-color-profile=srgb --lang=en-US
  )

  @doc "Where Chromium is; nil if it is not installed."
  def program do
    Enum.find(if(named = System.get_env("CHROMIUM"), do: [named], else: @programs), &File.exists?/1)
  end

  @doc "Why tests with a browser are skipped; nil when they are not."
  def missing do
    unless program(),
      do: "Chromium is not installed: apt-get install -y --no-install-recommends chromium (or name it in CHROMIUM)"
  end

  @doc "Starts a browser with its files in `dir`, and opens an empty page."
  def start(dir) do
    resolver = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    args = @options ++ [resolver, "--user-data-dir=#{Path.expand(dir)}", "about:blank"]
    # Its protocol is on the file descriptors 3 and 4, which is where a port without standard input and output talks.
    # It complains at length of what a machine without a screen has not.
    quiet = ["-c", ~s(exec "$0" "$@" 2>/dev/null), program() | args]
    port = Port.open({:spawn_executable, "/bin/sh"}, [:binary, :nouse_stdio, :exit_status, args: quiet])
    {:os_pid, os_pid} = Port.info(port, :os_pid)

    ExUnit.Callbacks.on_exit(fn -> stop(os_pid, Path.expand(dir)) end)

    Process.put(__MODULE__, %{port: port, session: nil, number: 0, text: "", events: []})

    %{"targetInfos" => targets} = call("Target.getTargets")
    %{"targetId" => target} = Enum.find(targets, &(&1["type"] == "page"))
    %{"sessionId" => session} = call("Target.attachToTarget", %{targetId: target, flatten: true})
    put(:session, session)
    for domain <- ~w(Page Runtime Network Log), do: call("#{domain}.enable")
    :ok
  end

  @doc "Opens an address, and waits until all of the page is loaded. Gives how long that took, in milliseconds."
  def open(address) do
    began = System.monotonic_time(:millisecond)
    clear_events()
    answer = call("Page.navigate", %{url: address})
    if answer["errorText"], do: raise("#{address}: #{answer["errorText"]}")
    await_event("Page.loadEventFired")
    System.monotonic_time(:millisecond) - began
  end

  @doc "Follows a link that a selector finds, and waits for its page. Gives how long that took, in milliseconds."
  def follow(selector) do
    began = System.monotonic_time(:millisecond)
    clear_events()

    true =
      js("(() => { const link = document.querySelector(#{Json.encode(selector)}); link?.click(); return !!link; })()")

    await_event("Page.loadEventFired")
    System.monotonic_time(:millisecond) - began
  end

  @doc "What an expression gives in the page; a promise is waited for."
  def js(expression) do
    answer = call("Runtime.evaluate", evaluation(expression))
    if answer["exceptionDetails"], do: raise("#{expression}: #{inspect(answer["exceptionDetails"])}")
    answer["result"]["value"]
  end

  @doc "Begins the same, and gives what `await_js/1` waits for."
  def begin_js(expression), do: send_command("Runtime.evaluate", evaluation(expression))

  @doc "What `begin_js/1` comes to."
  def await_js(number), do: number |> await_answer() |> get_in(["result", "value"])

  defp evaluation(expression), do: %{expression: expression, awaitPromise: true, returnByValue: true}

  @doc "Waits until an expression is true in the page, and gives its value."
  def await(expression) do
    Tank.Store.Testing.eventually(
      "#{expression} in the page",
      fn -> js(expression) || {:not_yet, js("document.body.innerText")} end,
      60_000
    )
  end

  @doc "Presses a key."
  def press(key) do
    for type <- ["keyDown", "keyUp"],
        do: call("Input.dispatchKeyEvent", %{type: type, key: key, code: key, windowsVirtualKeyCode: code(key)})

    :ok
  end

  defp code(key), do: Map.fetch!(%{"Tab" => 9, "Enter" => 13, "ArrowLeft" => 37, "Escape" => 27}, key)

  @doc "How wide and high the page is, and whether it is dark."
  def look(width, height, scheme) do
    call("Emulation.setDeviceMetricsOverride", %{
      width: width,
      height: height,
      deviceScaleFactor: 1,
      mobile: width < 600
    })

    features = [%{name: "prefers-color-scheme", value: scheme}, %{name: "prefers-reduced-motion", value: "reduce"}]
    call("Emulation.setEmulatedMedia", %{features: features})
    :ok
  end

  @doc "Writes a picture of what is seen."
  def screenshot(file) do
    %{"data" => data} = call("Page.captureScreenshot", %{format: "png"})
    File.write!(file, Base.decode64!(data))
  end

  @doc "The addresses that were asked for since the page was opened."
  def requests do
    for %{"method" => "Network.requestWillBeSent", "params" => %{"request" => %{"url" => url}}} <- events(), do: url
  end

  @doc "What the page complained about since it was opened: exceptions, and what its policy forbids."
  def complaints do
    Enum.flat_map(events(), fn
      %{"method" => "Runtime.exceptionThrown", "params" => params} -> [inspect(params["exceptionDetails"])]
      %{"method" => "Log.entryAdded", "params" => %{"entry" => %{"level" => "error"} = entry}} -> [entry["text"]]
      _other -> []
    end)
  end

  # -- The protocol: JSON, with a zero behind each message

  @doc "Calls a method of the protocol."
  def call(method, params \\ %{}), do: method |> send_command(params) |> await_answer()

  defp send_command(method, params) do
    %{port: port, session: session, number: number} = Process.get(__MODULE__)
    message = %{id: number, method: method, params: params}
    message = if session, do: Map.put(message, :sessionId, session), else: message
    Port.command(port, [Json.encode(message), 0])
    put(:number, number + 1)
    number
  end

  defp await_answer(number) do
    case await_message(&(&1["id"] == number), "an answer") do
      %{"result" => result} -> result
      %{"error" => error} -> raise "the browser: #{inspect(error)}"
    end
  end

  defp await_event(method), do: await_message(&(&1["method"] == method), method)

  defp await_message(wanted?, what) do
    case Enum.find(events(), wanted?) do
      nil ->
        receive_more(what)
        await_message(wanted?, what)

      message ->
        if message["id"], do: put(:events, List.delete(events(), message))
        message
    end
  end

  defp receive_more(what) do
    %{port: port, text: text} = Process.get(__MODULE__)

    receive do
      {^port, {:data, more}} ->
        {messages, [rest]} = (text <> more) |> :binary.split(<<0>>, [:global]) |> Enum.split(-1)
        put(:text, rest)
        put(:events, events() ++ Enum.map(messages, &Json.decode/1))

      {^port, {:exit_status, status}} ->
        raise "the browser ended with #{status}"
    after
      @timeout_ms -> raise "waited for #{what} of the browser"
    end
  end

  # It may have ended by itself, and its pid be another process's by now.
  defp stop(os_pid, dir) do
    with {:ok, command_line} <- File.read("/proc/#{os_pid}/cmdline"),
         true <- command_line =~ dir,
         do: System.cmd("kill", ["-9", "#{os_pid}"], stderr_to_stdout: true)
  end

  # What has come so far, also while nobody waited.
  defp events, do: Process.get(__MODULE__).events
  defp clear_events, do: put(:events, [])
  defp put(key, value), do: Process.put(__MODULE__, Map.put(Process.get(__MODULE__), key, value))
end
