defmodule Tank.Khepri.Payload do
  @moduledoc "What a node can have as its payload: nothing, any term, or a stored procedure."

  import Tank.Khepri.Records

  @type t :: :"$__NO_PAYLOAD__" | {:p_data, term} | {:p_sproc, fun, :ro | :rw | false}

  @doc "No payload."
  @spec none :: t
  def none, do: no_payload()

  @doc "Any term."
  @spec data(term) :: t
  def data(term), do: p_data(data: term)

  @doc "A stored procedure."
  @spec sproc(fun) :: t
  def sproc(fun) when is_function(fun), do: p_sproc(sproc: fun, is_valid_as_tx_fun: :rw)

  @doc "A function as a stored procedure, any other term as data; a payload as it is."
  @spec wrap(term) :: t
  def wrap(payload) when is_payload(payload), do: payload
  def wrap(fun) when is_function(fun), do: sproc(fun)
  def wrap(term), do: data(term)

  @doc false
  @spec prepare(t) :: t
  def prepare(payload), do: payload
end
