defmodule Tank.Store.Tree.Bang do
  @moduledoc false
  # The forms that raise: `name!` gives what `name` has in its `:ok`, and raises its error.

  @doc "Defines `name!` for each `name: arguments`, with and without options at the end."
  defmacro defbang(functions) do
    for {name, arguments} <- functions, with_options? <- [false, true] do
      arguments = Enum.map(arguments ++ if(with_options?, do: [:opts], else: []), &Macro.var(&1, __MODULE__))
      arity = length(arguments)
      bang = :"#{name}!"
      doc = "As `#{name}/#{arity}`: gives what it has in its `:ok`, and raises `Tank.Store.Error` for an error."

      quote do
        @doc unquote(doc)
        @spec unquote(bang)(unquote_splicing(Enum.map(arguments, fn _argument -> {:term, [], []} end))) :: term
        def unquote(bang)(unquote_splicing(arguments)),
          do: Tank.Store.Tree.Bang.unwrap(unquote(name)(unquote_splicing(arguments)))
      end
    end
  end

  @doc "What an `:ok` has, or the exception of an error."
  @spec unwrap(:ok | {:ok, term} | {:ok, term, term} | {:error, term}) :: term
  def unwrap(:ok), do: :ok
  def unwrap({:ok, value}), do: value
  def unwrap({:ok, value, revision}), do: {value, revision}
  def unwrap({:error, reason}) when is_atom(reason) or is_tuple(reason), do: raise(Tank.Store.Error, reason)
  # A transaction may be rolled back for any reason.
  def unwrap({:error, reason}), do: raise(Tank.Store.Error, {:rolled_back, reason})
end
