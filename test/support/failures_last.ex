defmodule Tank.Store.FailuresLast do
  @moduledoc """
  A formatter of ExUnit that names the failed tests once more at the end: where they failed, they stand among thousands
  of lines.
  """

  use GenServer

  @impl true
  def init(_options), do: {:ok, []}

  @impl true
  def handle_cast({:test_finished, %{state: {:failed, failures}} = test}, failed),
    do: {:noreply, [line(test, failures) | failed]}

  def handle_cast({:suite_finished, _times}, failed) do
    if failed != [], do: IO.puts(["\nFailed:\n" | Enum.reverse(failed)])
    {:noreply, failed}
  end

  def handle_cast(_event, failed), do: {:noreply, failed}

  defp line(test, failures) do
    {kind, reason, _stacktrace} = hd(failures)
    # A few words: the whole of it stands above.
    why = kind |> Exception.format_banner(reason) |> String.replace(~r/\s+/, " ") |> String.slice(0, 300)
    "  #{Path.relative_to_cwd(test.tags.file)}:#{test.tags.line} #{test.name}: #{why}\n"
  end
end
