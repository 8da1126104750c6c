defmodule Tank.PodPropertyTest do
  use ExUnit.Case, async: true

  import :proper_types,
    only: [any: 0, atom: 0, binary: 0, bitstring: 0, boolean: 0, integer: 0, list: 1, oneof: 1]

  alias Tank.{Container, Mount, Nic, Pod, Volume}
  alias Tank.Pod.Network

  @modules [Pod, Container, Network, Nic, Mount, Volume]

  # A pod is lists in lists in lists: larger ones take PropEr long and teach nothing new.
  @size_max 8

  # PropEr cannot be given a seed, so a failure prints the shrunk input itself.
  defp check(generator, numtests, property) do
    test = :proper.forall(generator, property)

    case :proper.counterexample(test, [:quiet, numtests: numtests, max_size: @size_max]) do
      true -> :ok
      [input] -> flunk("does not hold for\n\n    " <> show(input))
      other -> flunk("PropEr gave up: " <> inspect(other))
    end
  end

  defp show(input), do: inspect(input, limit: :infinity, structs: false)

  test "new/1 answers and new!/1 returns or raises ArgumentError, for any term" do
    check(oneof([any(), junk(), broken(pod())]), 2_000, fn input ->
      Enum.all?(@modules, &answers?(&1, input))
    end)
  end

  test "new/1 builds every pod that keeps the rules, and returns it unchanged the next time" do
    check(pod(), 500, fn input ->
      {:ok, pod} = Pod.new(input)
      Pod.new(pod) == {:ok, pod} and Pod.new(Map.from_struct(pod)) == {:ok, pod}
    end)
  end

  test "a pod with a random fault is refused, or is a pod that passes again" do
    check(broken(pod()), 2_000, fn input ->
      case Pod.new(input) do
        {:ok, pod} -> Pod.new(pod) == {:ok, pod}
        {:error, reason} -> reason == :no_containers or match?({tag, _} when is_atom(tag), reason)
      end
    end)
  end

  test "string keys build the same pod as atom keys" do
    check(pod(), 200, fn input -> Pod.new(strings(input)) == Pod.new(input) end)
  end

  defp answers?(module, input) do
    case module.new(input) do
      {:ok, struct} -> module.new!(input) == struct and module.new(struct) == {:ok, struct}
      {:error, _reason} -> raises?(module, input)
    end
  end

  defp raises?(module, input) do
    module.new!(input)
    false
  rescue
    error in ArgumentError -> String.valid?(error.message)
  end

  # PropEr's any/0 makes no maps, improper lists or structs, and seldom hits a field.
  defp junk do
    fields = ~w(name containers network volumes restart image mounts path ip nics __struct__)a
    key = oneof([atom(), binary(), oneof(fields), oneof(Enum.map(fields, &Atom.to_string/1))])
    value = oneof([any(), bitstring(), nil, [], %{}, %Mount{}, [:a | :b]])
    pairs = list({key, oneof([value, list({key, value})])})

    oneof([
      pairs,
      map(pairs, &Map.new/1),
      map({oneof(@modules), pairs}, fn {module, pairs} ->
        Map.merge(struct(module), Map.new(pairs))
      end),
      map({pairs, value}, fn {pairs, tail} -> pairs ++ tail end)
    ])
  end

  # Somewhere in the tree, one thing is replaced by another.
  defp broken(generator) do
    map({generator, list(:proper_types.non_neg_integer()), junk_or_value()}, fn {tree, at, value} ->
      replace(tree, at, value)
    end)
  end

  defp junk_or_value, do: oneof([any(), junk(), binary(), integer(), nil, "", []])

  defp replace(_tree, [], value), do: value

  defp replace(tree, [at | rest], value) when is_map(tree) and map_size(tree) > 0 do
    key = tree |> Map.keys() |> Enum.sort() |> pick(at)
    Map.update!(tree, key, &replace(&1, rest, value))
  end

  defp replace([_ | _] = tree, [at | rest], value) do
    List.update_at(tree, rem(at, length(tree)), &replace(&1, rest, value))
  end

  defp replace(_leaf, _at, value), do: value

  defp pick(list, at), do: Enum.at(list, rem(at, length(list)))

  # Pods that keep the rules, as nested maps.
  defp pod do
    parts = {containers(), name(), oneof([:host, :none, network()]), restart()}

    map(parts, fn {containers, name, network, restart} ->
      used = for %{mounts: mounts} <- containers, %{volume: volume} <- mounts, do: volume
      volumes = for volume <- Enum.uniq(used), do: %{name: volume, source: source(volume)}
      %{name: name, containers: containers, network: network, volumes: volumes, restart: restart}
    end)
  end

  defp restart, do: oneof([:always, :on_failure, :never])

  defp source(volume) do
    pick(
      [:managed, :empty_dir, :tmpfs, {:tmpfs, 4096}, {:host, "/srv//" <> volume}],
      byte_size(volume)
    )
  end

  defp containers do
    first = container()
    map({first, list(first)}, fn {one, more} -> Enum.uniq_by([one | more], & &1.name) end)
  end

  defp container do
    image = oneof([name(), {:rootfs, "/srv/rootfs"}])
    parts = {name(), image, list(text()), mounts(), limits(), boolean()}

    map(parts, fn {name, image, texts, mounts, limits, tty} ->
      env = Map.new(texts, &{"VAR_" <> String.replace(&1, "=", ""), &1})
      %{name: name, image: image, args: texts, env: env, mounts: mounts, limits: limits, tty: tty}
    end)
  end

  defp mounts do
    map(list({name(), name(), boolean()}), fn mounts ->
      mounts =
        for {volume, path, ro} <- mounts,
            do: %{volume: volume, path: "/m/" <> path, read_only: ro}

      Enum.uniq_by(mounts, & &1.path)
    end)
  end

  defp limits do
    leaf = oneof([integer(), :proper_types.float(), :max, text()])
    nested = map(list({text(), leaf}), &Map.new/1)

    map(
      list({oneof([:memory, :cpu, :io, text()]), oneof([leaf, {leaf, leaf}, nested])}),
      &Map.new/1
    )
  end

  defp network do
    map(list({text_of(?a..?z, 15), oneof([:dhcp, "10.0.0.1/8", {"::1", 128}])}), fn nics ->
      nics = for {name, ip} <- Enum.uniq_by(nics, &elem(&1, 0)), do: %{name: name, ip: ip}
      %{nics: nics, dns: ["1.1.1.1"]}
    end)
  end

  defp name, do: text_of(?a..?z, 63)
  defp text, do: map(list(oneof(Enum.to_list(~c" aZ0=/ä中"))), &List.to_string/1)

  defp text_of(first..last, bytes_max) do
    letter = :proper_types.integer(first, last)

    map({letter, list(letter)}, fn {a, more} ->
      [a | Enum.take(more, bytes_max - 1)] |> to_string()
    end)
  end

  # PropEr's ?LET.
  defp map(generator, fun), do: :proper_types.bind(generator, fun, false)

  # Environments and limits have keys of their own, which are not fields.
  defp strings(%{} = fields) do
    Map.new(fields, fn
      {key, value} when key in [:env, :limits] -> {Atom.to_string(key), value}
      {key, value} -> {Atom.to_string(key), strings(value)}
    end)
  end

  defp strings(list) when is_list(list), do: Enum.map(list, &strings/1)
  defp strings(value), do: value
end
