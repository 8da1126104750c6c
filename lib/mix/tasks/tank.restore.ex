defmodule Mix.Tasks.Tank.Restore do
  @shortdoc "Makes a store's directory of a backup"

  @moduledoc """
  Makes a new directory a store that holds what a backup holds (`Tank.Store.Backup.restore/3`), and shows how far it is.
  Needs no running node.

      mix tank.restore FILE DATA_DIR [--store STORE]

  The directory must be missing or empty. The store's id is that of the backup unless given. It ends with status 1 when there is no
  store afterwards.
  """

  use Mix.Task

  alias Mix.Tasks.Tank.Files
  alias Tank.Store.Backup

  # The tasks of this project compile without the rest of it, which needs what they build.
  @compile {:no_warn_undefined, Backup}

  @impl true
  def run(arguments) do
    case OptionParser.parse!(arguments, strict: [store: :string]) do
      {options, [file, dir]} ->
        if Mix.Project.get(), do: Mix.Task.run("app.config")
        store = if options[:store], do: [store_id: String.to_atom(options[:store])], else: []
        Files.report(Backup.restore(file, dir, store ++ [progress: &Files.bar/2]))

      _other ->
        Mix.raise("usage: mix tank.restore FILE DATA_DIR [--store STORE]")
    end
  end
end
