defmodule Tank.Khepri.Error do
  @moduledoc false
  # The two shapes of Khepri's errors: those that are returned, and those that are raised for a misuse.

  @type t :: {:khepri, atom, map}

  @doc "What is returned in `{:error, _}`."
  @spec new(atom, map) :: t
  def new(name, props), do: {:khepri, name, props}

  @doc "Raises a misuse, as an Erlang error."
  @spec misuse(atom, map) :: no_return
  def misuse(name, props), do: :erlang.error({:khepri_ex, name, props})
end
