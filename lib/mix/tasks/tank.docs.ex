defmodule Mix.Tasks.Tank.Docs do
  @shortdoc "Writes the documentation as HTML, without a network"

  @moduledoc """
  Writes the documentation of this project as HTML.

      mix tank.docs [--output DIRECTORY] [--without-ex-doc]

  It needs no network, no dependency and no server: it reads the compiled documentation, and the files that it writes can be
  opened in a browser. DIRECTORY is `doc` unless given; what it held is replaced. Where ExDoc is installed, as an archive or a
  dependency, ExDoc makes the documentation instead (`mix docs`), from the same settings (`docs:` in mix.exs).
  """

  use Mix.Task

  alias Mix.TankDocs.Site

  @switches [output: :string, without_ex_doc: :boolean]

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)
    if rest != [], do: Mix.raise("tank.docs takes no argument #{inspect(hd(rest))}")
    Mix.Task.run("compile")
    output = Keyword.get(options, :output, "doc")

    if Mix.Task.get("docs") && !options[:without_ex_doc],
      do: Mix.Task.run("docs", ["--output", output]),
      else: write(output, Mix.Project.config())
  end

  defp write(output, config) do
    {:ok, modules} = load_modules(config[:app])
    count = Site.write(output, "Tank.Store #{config[:version]}", modules, config[:docs])
    Mix.shell().info("* wrote #{count} pages, open #{Path.expand(Path.join(output, "index.html"))}")
  end

  defp load_modules(app) do
    with {:error, {:already_loaded, ^app}} <- Application.load(app), do: :ok
    :application.get_key(app, :modules)
  end
end
