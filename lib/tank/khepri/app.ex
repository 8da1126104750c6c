defmodule Tank.Khepri.App do
  @moduledoc false
  # The environment of the application `khepri`.

  require Logger

  alias Tank.Khepri.Error

  # Khepri's own default is `infinity`; a call that hangs helps nobody.
  @timeout 30_000
  @names [default_timeout: "timeout", default_store_id: "store ID", default_ra_system: "Ra system or data directory"]

  @spec get_default_timeout :: timeout
  def get_default_timeout do
    env(:default_timeout, @timeout, :invalid_default_timeout_value, fn timeout ->
      timeout == :infinity or (is_integer(timeout) and timeout >= 0)
    end)
  end

  @spec get_default_store_id :: atom
  def get_default_store_id, do: env(:default_store_id, :khepri, :invalid_default_store_id_value, &is_atom/1)

  @spec get_default_ra_system_or_data_dir :: atom | charlist | binary
  def get_default_ra_system_or_data_dir do
    default = String.to_charlist("khepri##{node()}")
    env(:default_ra_system, default, :invalid_default_ra_system_value, &(is_list(&1) or is_binary(&1) or is_atom(&1)))
  end

  defp env(key, default, error, valid?) do
    value = Application.get_env(:khepri, key, default)

    if valid?.(value) do
      value
    else
      Logger.error("Invalid #{@names[key]} set in `#{key}`, of the application khepri: #{inspect(value)}")
      Error.misuse(error, %{key => value})
    end
  end
end
