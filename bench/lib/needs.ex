defmodule Tank.Bench.Needs do
  @moduledoc "Whether the library has what a case calls: cases may be here before it."

  @doc "`:ok`, or which function is missing."
  @spec check([mfa]) :: :ok | {:skip, String.t()}
  def check(functions) do
    missing =
      for {module, function, arity} <- functions,
          not (Code.ensure_loaded?(module) and function_exported?(module, function, arity)),
          do: Exception.format_mfa(module, function, arity)

    if missing == [], do: :ok, else: {:skip, "there is no #{Enum.join(missing, ", ")}"}
  end
end
