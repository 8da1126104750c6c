defmodule Tank.Store.Layers do
  @moduledoc false
  # Reads docs/layers.txt, finds the imports in the sources, and reports those that point upward.

  defstruct [:kind, :root, units: [], except: []]

  @type t :: %__MODULE__{
          kind: :rust | :elixir,
          root: Path.t(),
          units: [String.t()],
          except: [{String.t(), String.t()}]
        }
  @type import :: {from :: String.t(), to :: String.t(), place :: String.t()}

  @doc "The sections of docs/layers.txt."
  @spec parse(String.t()) :: [t]
  def parse(text) do
    text
    |> String.split("\n")
    |> Enum.reject(&(String.trim(&1) == "" or String.starts_with?(&1, "#")))
    |> Enum.reduce([], &add_line/2)
    |> Enum.map(&%{&1 | units: Enum.reverse(&1.units)})
    |> Enum.reverse()
  end

  defp add_line("  except " <> rest, [section | sections]) do
    [_all, from, to] = Regex.run(~r/^(\S+) -> (\S+): \S/, rest)
    [%{section | except: [{from, to} | section.except]} | sections]
  end

  defp add_line("  " <> unit, [section | sections]) do
    [unit | _about] = String.split(unit)
    [%{section | units: [unit | section.units]} | sections]
  end

  defp add_line(section, sections) do
    [kind, root] = String.split(section)
    [%__MODULE__{kind: String.to_existing_atom(kind), root: root} | sections]
  end

  @doc "What is wrong with a section's imports, a line each."
  @spec problems(t, [import]) :: [String.t()]
  def problems(section, imports) do
    order = section.units |> Enum.with_index() |> Map.new()
    known = Enum.filter(imports, fn {from, to, _place} -> is_map_key(order, from) and is_map_key(order, to) end)
    upward = Enum.filter(known, fn {from, to, _place} -> order[to] > order[from] end)

    unlisted =
      for unit <- imports |> Enum.flat_map(&[elem(&1, 0), elem(&1, 1)]) |> Enum.uniq(),
          not is_map_key(order, unit),
          do: "#{section.root}: #{unit} is not in docs/layers.txt"

    refused =
      for {from, to, place} <- upward, {from, to} not in section.except do
        "#{place}: #{from} imports #{to}, which is above it in the layers"
      end

    needless =
      for {from, to} <- section.except, not Enum.any?(upward, &match?({^from, ^to, _place}, &1)) do
        "docs/layers.txt: #{from} does not import #{to} any more; remove the exception"
      end

    Enum.sort(unlisted ++ refused ++ needless)
  end

  @doc "The imports between the modules of a crate, below its folder `root`."
  @spec rust_imports(Path.t()) :: [import]
  def rust_imports(root) do
    aliases = root |> Path.join("lib.rs") |> File.read!() |> reexports()

    for file <- Path.wildcard(Path.join(root, "**/*.rs")),
        module = module(file, root),
        module != ["lib"] and "tests" not in module,
        {line, number} <- file |> File.read!() |> code_lines() |> Enum.with_index(1),
        name <- names(line, module),
        do: {hd(module), Map.get(aliases, name, name), "#{file}:#{number}"}
  end

  # `pub use tree::{entry, key};` in lib.rs: `crate::key` is in `tree`.
  defp reexports(lib) do
    for [_all, unit, names] <- Regex.scan(~r/^pub use (\w+)::\{?([^;}]*)\}?;/m, lib),
        name <- String.split(names, ~r/[\s,]+/, trim: true),
        into: %{},
        do: {name, unit}
  end

  defp module(file, root) do
    path = file |> Path.relative_to(root) |> Path.rootname() |> Path.split()
    if List.last(path) == "mod", do: Enum.drop(path, -1), else: path
  end

  # Without the file's own tests, and without comments.
  defp code_lines(text) do
    [code | _tests] = String.split(text, "#[cfg(test)]\nmod tests {")
    code |> String.split("\n") |> Enum.map(&String.replace(&1, ~r{//.*}, ""))
  end

  # The top modules that a line names: `crate::x`, `crate::{x, y::Z}`, and `super::x` where that leaves the unit.
  defp names(line, module) do
    direct = for [_all, name] <- Regex.scan(~r/\bcrate::([a-z_]\w*)/, line), do: name
    grouped = for [_all, group] <- Regex.scan(~r/\bcrate::\{(.*)\}/, line), name <- group(group), do: name

    above =
      for [supers, _last] <- Regex.scan(~r/\b(super::)+/, line),
          length(module) == supers |> String.split("::", trim: true) |> length(),
          [_all, name] <- Regex.scan(~r/#{supers}([a-z_]\w*)/, line),
          name != "super",
          do: name

    (direct ++ grouped ++ above) |> Enum.uniq() |> Enum.reject(&(&1 in ["self", hd(module)]))
  end

  defp group(names) do
    names
    |> String.replace(~r/\{[^}]*\}/, "")
    |> String.split(",", trim: true)
    |> Enum.map(&(&1 |> String.trim() |> String.split("::") |> hd()))
  end

  @doc "The imports between the files of lib/ that `mix xref graph` printed."
  @spec elixir_imports(String.t(), Path.t()) :: [import]
  def elixir_imports(graph, root) do
    {imports, _file} =
      graph
      |> String.split("\n", trim: true)
      |> Enum.reduce({[], nil}, fn line, {imports, file} ->
        case Regex.run(~r/^([|`]-- )?(\S+\.ex)/, line) do
          [_all, "", file] -> {imports, file}
          [_all, _branch, to] -> {[{unit(file, root), unit(to, root), "#{file} (#{to})"} | imports], file}
          nil -> {imports, file}
        end
      end)

    for {from, to, _place} = import <- imports, from != nil and to != nil, do: import
  end

  # lib/tank/store/watch/feed.ex and lib/tank/store/watch.ex are of the unit `watch`. Files elsewhere are of none.
  defp unit(file, root) do
    if String.starts_with?(file, root <> "/"),
      do: file |> Path.relative_to(root) |> Path.split() |> hd() |> Path.rootname()
  end
end
