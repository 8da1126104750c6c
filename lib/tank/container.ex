if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Container do
    @moduledoc """
    A container of a pod: what to run, from which image, with what around it.

    ## Fields

      * `name` - unique in the pod; the rules are in `Tank.Pod`. Required.
      * `image` - a reference such as `"nginx:1.27"`, or `{:rootfs, path}` for a root file system
        that is already on the host, by its absolute path. Required.
      * `command` - the program and its first arguments, a list of strings. `[]`, the default,
        runs what the image says.
      * `args` - arguments after the command, a list of strings. Default `[]`.
      * `env` - environment variables, a map of strings to strings. A name is not empty and has
        no `=`. Default `%{}`. `inspect/1` leaves it out: it may hold secrets.
      * `working_dir` - an absolute path in the container, or `nil` for the image's. Default
        `nil`.
      * `user` - such as `"www-data"` or `"1000:1000"`, or `nil` for the image's. Default `nil`.
      * `mounts` - the `Tank.Mount`s, no two at one path. Default `[]`.
      * `limits` - what it may use; see below. Default `%{}`.
      * `tty` - whether its main process gets a terminal. Default `false`.

    Strings are UTF-8 without zero bytes, since they are handed to the kernel.

    ## Limits

    A map the runtime reads; this module only keeps to what every runtime and every member of a
    store can read: keys are atoms or strings, values are numbers, atoms, strings, and maps,
    tuples and lists of these, to any depth.

        %{
          memory: 512 * 1024 * 1024,
          cpu: {50_000, 100_000},
          io: %{"8:0" => %{rbps: 10_000_000, wiops: :max}}
        }

    Processes, functions and references mean nothing elsewhere and are refused. So are structs,
    and `nil`: a limit that could not be read from somewhere must not turn into no limit.
    """

    alias Tank.Mount
    alias Tank.Pod.{Cast, Check}

    @type image :: String.t() | {:rootfs, Path.t()}
    @type limits :: %{optional(atom() | String.t()) => term()}

    @type t :: %__MODULE__{
            name: String.t(),
            image: image(),
            command: [String.t()],
            args: [String.t()],
            env: %{optional(String.t()) => String.t()},
            working_dir: Path.t() | nil,
            user: String.t() | nil,
            mounts: [Mount.t()],
            limits: limits(),
            tty: boolean()
          }

    # Its environment may hold secrets, and structs are printed into logs and error reports.
    @derive {Inspect, except: [:env]}
    defstruct name: nil,
              image: nil,
              command: [],
              args: [],
              env: %{},
              working_dir: nil,
              user: nil,
              mounts: [],
              limits: %{},
              tty: false

    @doc """
    Builds a container from a map, a keyword list or a `%Tank.Container{}`.

    Reasons: `{:invalid_container, v}`, `{:invalid_FIELD, v}` for each of the fields,
    `{:duplicate_paths, paths}`, `{:unknown_keys, keys}`, `{:duplicate_keys, keys}`, and those of
    `Tank.Mount.new/1`. `{:invalid_env, names}` has the names of the variables that are refused,
    without what an `=` separates from them, and no values; `:not_a_map` in their place.

        iex> {:ok, container} = Tank.Container.new(name: "app", image: {:rootfs, "/srv/alpine"})
        iex> {container.image, container.env}
        {{:rootfs, "/srv/alpine"}, %{}}

        iex> Tank.Container.new(name: "app", image: "alpine", env: %{"PORT" => 80})
        {:error, {:invalid_env, ["PORT"]}}
    """
    @spec new(map() | keyword() | t()) :: {:ok, t()} | {:error, Tank.Pod.reason()}
    def new(input), do: input |> cast() |> Cast.answer()

    @doc """
    Like `new/1`, but returns the container itself and raises `ArgumentError` when it is refused.

        iex> Tank.Container.new!(name: "app", image: "alpine", args: ["sleep", "60"]).args
        ["sleep", "60"]
    """
    @spec new!(map() | keyword() | t()) :: t()
    def new!(input), do: input |> cast() |> Cast.answer!(__MODULE__, input)

    @doc false
    @spec cast(term()) :: Cast.built()
    def cast(input), do: Cast.build(input, __MODULE__, :invalid_container, fields())

    defp fields do
      [
        {:name, :invalid_name, &Check.name/1},
        {:image, :invalid_image, &image/1},
        {:command, :invalid_command, &Check.texts/1},
        {:args, :invalid_args, &Check.texts/1},
        {:env, :invalid_env, &env/1},
        {:working_dir, :invalid_working_dir, &Check.optional(&1, fn dir -> Check.path(dir) end)},
        {:user, :invalid_user, &Check.optional(&1, fn user -> Check.filled(user) end)},
        {:mounts, :invalid_mounts, &mounts/1},
        {:limits, :invalid_limits, &limits/1},
        {:tty, :invalid_tty, &Check.boolean/1}
      ]
    end

    defp image({:rootfs, path}) do
      with {:ok, path} <- Check.path(path), do: {:ok, {:rootfs, path}}
    end

    defp image(reference), do: Check.filled(reference)

    defp env(env) when is_map(env) do
      case for {name, _value} = variable <- Map.to_list(env), not variable?(variable), do: name do
        [] -> {:ok, env}
        names -> Cast.problem({:invalid_env, names |> Enum.map(&shown/1) |> Enum.sort()})
      end
    end

    defp env(_other), do: Cast.problem({:invalid_env, :not_a_map})

    # What comes after the `=` was meant as a value.
    defp shown(name) when is_binary(name), do: name |> :binary.split("=") |> hd()
    defp shown(name), do: name

    defp variable?({name, value}) do
      Check.filled(name) != :error and not String.contains?(name, "=") and
        Check.text(value) != :error
    end

    defp mounts(items) do
      with {:ok, mounts} <- Cast.list(items, &Mount.cast/1) do
        Cast.unique(mounts, & &1.path, :duplicate_paths)
      end
    end

    defp limits(limits) when is_map(limits) do
      if limit?(limits), do: {:ok, limits}, else: :error
    end

    defp limits(_other), do: :error

    defp limit?(nil), do: false
    defp limit?(%{__struct__: _}), do: false
    defp limit?(value) when is_number(value) or is_atom(value), do: true
    defp limit?(value) when is_binary(value), do: String.valid?(value)
    defp limit?(value) when is_tuple(value), do: value |> Tuple.to_list() |> limit?()

    defp limit?(value) when is_list(value) do
      not List.improper?(value) and Enum.all?(value, &limit?/1)
    end

    defp limit?(value) when is_map(value) do
      Enum.all?(value, fn {key, limit} -> limit_key?(key) and limit?(limit) end)
    end

    defp limit?(_other), do: false

    defp limit_key?(nil), do: false
    defp limit_key?(key), do: is_atom(key) or (is_binary(key) and String.valid?(key))
  end
end
