defmodule Tank.Store.HideState do
  @moduledoc false
  # Keeps values of a store, which may be secrets, out of the reports of a process: when it crashes, and in `:sys.get_status/1`.
  #
  #     use Tank.Store.HideState, show: [:store, :revision]
  #
  # Of the state only those fields are shown, and of messages only that there was one.

  defmacro __using__(show: fields) do
    # Elixir knows the callback from 1.17 on; Erlang/OTP from 25 on.
    impl = if {:format_status, 1} in GenServer.behaviour_info(:callbacks), do: quote(do: @impl(true))

    quote do
      @doc false
      unquote(impl)
      def format_status(status), do: Tank.Store.HideState.format(status, unquote(fields))
    end
  end

  @doc "A status without what is not to be shown."
  @spec format(map, [atom]) :: map
  def format(status, fields) do
    Map.new(status, fn
      {:state, %{} = state} -> {:state, Map.take(state, fields)}
      {:message, message} -> {:message, kind(message)}
      {:log, _events} -> {:log, []}
      other -> other
    end)
  end

  defp kind(message) when is_tuple(message) and tuple_size(message) > 0, do: {elem(message, 0), :hidden}
  defp kind(message) when is_atom(message), do: message
  defp kind(_message), do: :hidden
end
