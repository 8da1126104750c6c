defmodule Mix.Tasks.Tank.Import do
  @shortdoc "Puts the entries of an export, of a store or of Khepri, into a store of a running node"

  @moduledoc """
  Has a running node put the entries of a file into a store (`Tank.Store.Backup.import/3`), and shows how far it is.

      mix tank.import FILE --node tank@10.0.0.1 [--khepri] [--cookie-file FILE] [--store STORE] [--name NAME]

  FILE is a file of that node, with its full path: what `mix tank.export` wrote; with `--khepri`, what `khepri:export/3`
  wrote (`Tank.Store.Backup.import_khepri/3`). The store is `tank` unless given. It ends with status 1 when not all of
  it is imported.
  """

  use Mix.Task

  @impl true
  def run(arguments) do
    {khepri, arguments} = Enum.split_with(arguments, &(&1 == "--khepri"))
    Mix.Tasks.Tank.Files.run("tank.import", if(khepri == [], do: :import, else: :import_khepri), arguments)
  end
end
