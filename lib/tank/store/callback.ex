defmodule Tank.Store.Callback do
  @moduledoc false
  # Functions of users that this library's processes call with what happened: a function of one argument, or
  # `{module, function, arguments}`, which is called with that before the arguments, and survives an upgrade of its module.

  @type t :: (term -> term) | {module, atom, [term]}

  @doc "Raises `ArgumentError` for what cannot be called."
  @spec check!(term, atom) :: t
  def check!(fun, _option) when is_function(fun, 1), do: fun
  def check!({module, name, args} = mfa, _option) when is_atom(module) and is_atom(name) and is_list(args), do: mfa

  def check!(other, option) do
    raise ArgumentError,
          "option #{inspect(option)} must be a function of one argument or {module, function, arguments}, got: " <>
            inspect(other)
  end

  @spec run(t, term) :: term
  def run(fun, what) when is_function(fun, 1), do: fun.(what)
  def run({module, name, args}, what), do: apply(module, name, [what | args])
end
