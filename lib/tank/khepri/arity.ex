defmodule Tank.Khepri.Arity do
  @moduledoc false
  # The many arities of Khepri's functions. A module defines a function once, with all its arguments, and gets the
  # shorter forms: without options, and without the store's id, which then is the default one.

  alias Tank.Khepri.App

  @doc """
  For each `name: n`, where the function is `name(store, a1, ..., an, opts)`: the forms without the store's id, without
  options, and without either. A form with the last argument only if `:options` says that options may come without an id.
  """
  defmacro shorter(functions, opts \\ []) do
    for {name, n} <- functions do
      args = Macro.generate_arguments(n, __MODULE__)

      quote do
        def unquote(name)(unquote_splicing(args)),
          do: unquote(name)(App.get_default_store_id(), unquote_splicing(args), %{})

        unquote(middle(name, args, Keyword.get(opts, :options, true)))
      end
    end
  end

  defp middle(name, args, options?) do
    {more, last} = {Macro.generate_arguments(length(args) + 1, __MODULE__), length(args)}

    with_id =
      quote do
        def unquote(name)(unquote_splicing(more)) when is_atom(unquote(hd(more))),
          do: unquote(name)(unquote_splicing(more), %{})
      end

    with_options =
      quote do
        def unquote(name)(unquote_splicing(more)) when is_map(unquote(Enum.at(more, last))),
          do: unquote(name)(App.get_default_store_id(), unquote_splicing(more))
      end

    if options?, do: [with_id, with_options], else: [with_id]
  end

  @doc "For each `name: arities`, `name!`, which returns what `name` has in its `ok`, and raises its error."
  defmacro raising(functions) do
    for {name, {:.., _meta, [least, most]}} <- functions, arity <- least..most do
      args = Macro.generate_arguments(arity, __MODULE__)

      quote do
        @doc "As `#{unquote(name)}/#{unquote(arity)}`: returns the value, or raises the error."
        def unquote(:"#{name}!")(unquote_splicing(args)),
          do: Tank.Khepri.Arity.unwrap(unquote(name)(unquote_splicing(args)))
      end
    end
  end

  @doc false
  @spec unwrap(term) :: term
  def unwrap({:ok, value}), do: value
  def unwrap({:error, reason}), do: :erlang.error(reason)
  def unwrap(other), do: other
end
