if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Pod.Problem do
    @moduledoc false
    # What is wrong with a pod, and where. `new/1` answers with the bare `reason`, which programs
    # match on; `new!/1` spends the rest on a message for the person who wrote the pod.

    defstruct reason: nil, path: [], known: []

    @typedoc "A field, or an element of a list: its index and what was given there."
    @type step :: atom() | {non_neg_integer(), term()}
    @type t :: %__MODULE__{reason: term(), path: [step()], known: [atom()]}

    @build "a map, a keyword list or the struct itself"
    @path ~s(an absolute path without "..")
    @address "an IPv4 or IPv6 address as a string"

    @expected %{
      invalid_name:
        "letters, digits, '.', '_' and '-', first and last a letter or digit, " <>
          "at most 63 bytes (15 for a NIC)",
      invalid_pod: @build,
      invalid_container: @build,
      invalid_containers: "a list of containers",
      invalid_image: "a non-empty string such as \"nginx:1.27\", or {:rootfs, absolute_path}",
      invalid_command: "a list of strings",
      invalid_args: "a list of strings",
      invalid_env: "a map of strings to strings; no name may be empty or hold '='",
      invalid_working_dir: @path <> ", or nil",
      invalid_user: "a non-empty string such as \"1000:1000\", or nil",
      invalid_limits: "a map of numbers, atoms, strings, and maps, tuples and lists of these",
      invalid_tty: "true or false",
      invalid_mounts: "a list of mounts",
      invalid_mount: @build,
      invalid_volume: "for a mount the name of a volume, for a pod's volume " <> @build,
      invalid_path: @path,
      invalid_read_only: "true or false",
      invalid_volumes: "a list of volumes",
      invalid_source: ":managed, :empty_dir, :tmpfs, {:tmpfs, bytes_max} or {:host, path}",
      invalid_network: ":host, :none, or a map such as %{nics: [...], dns: [...]}",
      invalid_restart: ":always, :on_failure or :never",
      invalid_nics: "a list of NICs",
      invalid_nic: @build,
      invalid_dns: "a list, each " <> @address,
      invalid_mode: ":bridge, :macvlan, :ipvlan or :veth",
      invalid_parent: "the name of an interface of the host, or :auto",
      invalid_ip: "{address, prefix_length}, \"address/prefix_length\", {:ipam, pool} or :dhcp",
      invalid_gateway: @address <> ", or nil"
    }

    @doc "Puts `step` in front: the problem was found one level further down."
    @spec at(t(), step()) :: t()
    def at(%__MODULE__{path: path} = problem, step), do: %{problem | path: [step | path]}

    @doc "The message of the `ArgumentError`: what was built, where it went wrong, what to do."
    @spec message(t(), module(), term()) :: String.t()
    def message(%__MODULE__{path: path} = problem, module, input) do
      "cannot build " <> inspect(module) <> label(input) <> ": " <> where(path) <> what(problem)
    end

    defp where([]), do: ""
    defp where(path), do: render(path) <> ": "

    defp render([field, {index, item} | rest]) do
      join("#{field}[#{index}]" <> label(item), rest)
    end

    defp render([field | rest]), do: join("#{field}", rest)

    defp join(step, []), do: step
    defp join(step, rest), do: step <> ", " <> render(rest)

    # Containers are found by name sooner than by index, so the name is shown when there is one.
    defp label(%{name: name}) when is_binary(name), do: " " <> show(name)
    defp label(%{"name" => name}) when is_binary(name), do: " " <> show(name)
    defp label([{:name, name} | _]) when is_binary(name), do: " " <> show(name)
    defp label([{key, _} | rest]) when is_atom(key), do: label(rest)
    defp label(_unnamed), do: ""

    defp what(%{reason: :no_containers}) do
      "give at least one container, such as %{name: \"app\", image: \"nginx:1.27\"}"
    end

    defp what(%{reason: {:unknown_keys, keys}, known: known}) do
      fields = Enum.map_join(known, ", ", &inspect/1)
      "unknown keys #{show(keys)}; remove them, or choose from #{fields}"
    end

    defp what(%{reason: {:duplicate_keys, keys}}) do
      "#{show(keys)} given more than once; keep one of each"
    end

    defp what(%{reason: {:duplicate_names, names}}) do
      "#{show(names)} named more than once; give each a name of its own"
    end

    defp what(%{reason: {:duplicate_paths, paths}}) do
      "#{show(paths)} mounted more than once; give each mount a path of its own"
    end

    defp what(%{reason: {:unknown_volume_refs, refs}}) do
      missing = Enum.map_join(refs, ", ", fn {who, what} -> "#{show(what)} of #{show(who)}" end)
      "no such volume: #{missing}; add it to the pod's volumes, or correct the mount"
    end

    # Environments hold passwords, and messages end up in logs.
    defp what(%{reason: {:invalid_env, _secret}}) do
      "not acceptable (not shown, it may hold secrets), expected " <> @expected.invalid_env
    end

    defp what(%{reason: {tag, value}}) do
      "got #{show(value)}, expected #{Map.fetch!(@expected, tag)}"
    end

    # What was passed may be anything, of any size, even a struct that its own Inspect
    # implementation cannot print: it is shown short, and structs as the maps they are.
    defp show(value), do: inspect(value, limit: 8, printable_limit: 80, structs: false)
  end
end
