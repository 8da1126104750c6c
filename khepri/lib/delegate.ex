defmodule Tank.Khepri.Delegate do
  @moduledoc false
  # Makes a module whose functions are those of another one.

  defmacro __using__(to: module) do
    module = Macro.expand(module, __CALLER__)
    Code.ensure_compiled!(module)

    for {name, arity} <- module.__info__(:functions) do
      args = Macro.generate_arguments(arity, __MODULE__)

      quote do
        @doc false
        def unquote(name)(unquote_splicing(args)), do: unquote(module).unquote(name)(unquote_splicing(args))
      end
    end
  end
end
