defmodule Reconciler do
  # Makes a machine run what the store says, level-triggered: it looks at all pods, compares them with what runs, and
  # acts on the difference. It need not hear of each change, and a missed one costs nothing.
  #
  # This one only prints what it would do.

  use GenServer

  @poll_ms 200
  # More lines of one round are summed up.
  @lines_max 14

  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Looks at the store now, and returns when all is done."
  def sync, do: GenServer.call(__MODULE__, :sync, 30_000)

  @impl true
  def init([]) do
    # The store answers: it is up before this child of the supervisor starts.
    {:ok, reconcile(%{}), @poll_ms}
  end

  @impl true
  def handle_call(:sync, _from, running), do: {:reply, :ok, reconcile(running), @poll_ms}

  @impl true
  def handle_info(:timeout, running), do: {:noreply, reconcile(running), @poll_ms}

  defp reconcile(running) do
    desired = Map.new(Tank.Store.list_pods(), &{&1.name, &1})
    running |> actions(desired) |> print()
    desired
  end

  defp actions(running, desired) do
    stops = for {name, pod} <- running, not is_map_key(desired, name), do: {:stop, pod, nil}
    starts = for {name, pod} <- desired, not is_map_key(running, name), do: {:start, pod, nil}
    restarts = for {name, pod} <- desired, %{^name => old} when old != pod <- [running], do: {:restart, pod, old}
    Enum.flat_map([stops, restarts, starts], &Enum.sort_by(&1, fn {_action, pod, _old} -> pod.name end))
  end

  defp print(actions) do
    {shown, rest} = if length(actions) > @lines_max, do: Enum.split(actions, 5), else: {actions, []}
    Enum.each(shown, &IO.puts(line(&1)))
    if rest != [], do: IO.puts("      ... and #{length(rest)} more")
  end

  defp line({action, pod, old}) do
    verb = String.pad_trailing("#{action}", 8)
    IO.ANSI.format(["      ", color(action), verb, :reset, String.pad_trailing(pod.name, 18), change(old, pod)])
  end

  defp change(nil, pod), do: images(pod)
  defp change(old, pod), do: "#{images(old)} -> #{images(pod)}"

  defp images(pod), do: Enum.map_join(pod.containers, ", ", &image(&1.image))

  defp image({:rootfs, path}), do: path
  # The digest of an image says nothing to a reader.
  defp image(image), do: image |> String.split("@") |> hd()

  defp color(:start), do: :green
  defp color(:restart), do: :yellow
  defp color(:stop), do: :red
end
