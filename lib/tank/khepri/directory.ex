defmodule Tank.Khepri.Directory do
  @moduledoc false
  # Where a store lives: below a directory, or below that of a Ra system.

  alias Tank.Khepri.Error
  alias Tank.Store.Server

  @spec of(atom | charlist | binary, atom) :: {:ok, String.t()} | {:error, term}
  def of(dir, store) when is_list(dir) or is_binary(dir) do
    dir = dir |> IO.chardata_to_string() |> Path.expand()
    with :ok <- refuse_khepri(dir, store), do: {:ok, Path.join(dir, "tank-#{store}")}
  end

  def of(system, store) when is_atom(system) do
    case ra_dir(system) do
      nil -> beside(system)
      dir -> of(dir, store)
    end
  end

  # `ra` is an optional application.
  defp ra_dir(system) do
    with {:module, :ra_system} <- Code.ensure_loaded(:ra_system),
         %{data_dir: dir} <- apply(:ra_system, :fetch, [system]) do
      dir
    else
      _no_such_system -> nil
    end
  end

  defp beside(system) do
    case Server.data_dir(system) do
      {:ok, dir} -> {:ok, dir}
      {:error, _noproc} -> {:error, :system_not_started}
    end
  end

  # Ra keeps a file `config` in the directory of each of its servers.
  defp refuse_khepri(dir, store) do
    configs = Path.wildcard(Path.join(dir, "*/config"))

    if Enum.any?(configs, &khepri?(&1, store)) do
      advice =
        "this directory holds the store #{inspect(store)} of Khepri itself: export it there (khepri:export/3), and " <>
          "import the file here into a store in another directory (khepri:import/3)"

      {:error, Error.new(:data_of_another_khepri, %{store_id: store, data_dir: dir, advice: advice})}
    else
      :ok
    end
  end

  defp khepri?(file, store) do
    case :file.consult(String.to_charlist(file)) do
      {:ok, [%{cluster_name: ^store, machine: machine}]} -> match?({:module, :khepri_machine, _config}, machine)
      _another_or_unreadable -> false
    end
  end
end
