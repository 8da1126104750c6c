defmodule Tank.Store.Backend.Failure do
  @moduledoc false
  # The store's reasons as errors of the backend, whose callers know nothing of the store.

  alias Tank.Store.Backend.{DatastoreError, ValidationError}
  alias Tank.Store.Error

  @spec new(Error.reason(), [String.t()] | nil) :: DatastoreError.t() | ValidationError.t()
  def new({:too_large, :value, _limit} = reason, _key), do: validation(:value, :too_large, reason)
  def new({:too_large, _path, _limit} = reason, key), do: validation(:key, key, reason)
  def new({:invalid_path, _why} = reason, key), do: validation(:key, key, reason)
  def new(reason, key), do: %DatastoreError{reason: kind(reason), key: key, message: message(reason)}

  defp kind(reason) when reason in [:noproc, :no_quorum, :store_stopped, :lease_ended], do: :unavailable
  defp kind(reason) when reason in [:overloaded, :timeout], do: reason
  defp kind({:compacted, _min}), do: :compacted
  defp kind({:future_revision, _current}), do: :future
  defp kind(_fault), do: :failed

  defp validation(field, value, reason), do: %ValidationError{field: field, value: value, why: ": " <> message(reason)}

  defp message(:store_stopped), do: message(:noproc)
  defp message({:compacted, min}), do: "the history begins at revision #{min}"
  defp message(reason), do: reason |> Error.from_native() |> Exception.message()
end
