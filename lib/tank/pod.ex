# Tank defines these structs too. With `config :tank_store, define_pod: false` ours are not
# compiled at all, and Tank's are the only ones. The same line guards each of the pod's files.
if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Pod do
    @moduledoc """
    A pod: the desired state of a few containers that run together.

    A pod's containers share one network and can mount the same volumes. It is the unit Tank
    schedules, and the unit `Tank.Store` keeps, under the pod's name.

        {:ok, pod} =
          Tank.Pod.new(
            name: "web",
            containers: [
              [name: "app", image: "nginx:1.27", mounts: [[volume: "site", path: "/srv"]]]
            ],
            volumes: [[name: "site", source: {:host, "/var/www"}]],
            network: [nics: [[name: "eth0", ip: "10.0.0.5/24"]], dns: ["10.0.0.1"]],
            restart: :always
          )

        :ok = Tank.Store.put_pod(pod)

    ## Fields

      * `name` - what the pod is stored under; see *Names*. Required.
      * `containers` - at least one `Tank.Container`, no two of the same name. Required.
      * `network` - a `Tank.Pod.Network`, `:host` to share the host's network, or `:none` for
        a loopback interface and nothing else. Default `:none`.
      * `volumes` - the `Tank.Volume`s that containers may mount, no two of the same name.
        Default `[]`.
      * `restart` - `:always`, `:on_failure` or `:never`. Default `:always`.

    ## Names

    Pods, containers and volumes are named with ASCII letters, digits, `.`, `_` and `-`. The
    first and the last character is a letter or a digit, and 63 bytes is the most: names turn
    into directories, cgroups and host names. A NIC has 15 bytes at most, as Linux has it.

    ## Building and checking

    `new/1` checks the whole tree at once, in the order of the fields, and answers with the
    first thing wrong. It takes maps, keyword lists and structs, mixed at will. Keys are atoms;
    strings that spell a field are taken too, which suits decoded JSON, and never become atoms.
    Values are not converted: `"always"` is not `:always`. A field left out gets its default,
    while a `nil` is a value like any other.

    What it returns, it accepts again unchanged, so checking twice does no harm. A literal
    `%Tank.Pod{}` is not checked by anyone, `Tank.Store` included: the store keeps it as it is.

    ## Reasons

    A reason names the problem, wherever in the tree it was found:

      * `{:invalid_FIELD, value}`, such as `{:invalid_image, nil}`, for a field that cannot have
        this value. A required field that is missing has the value `nil`. Values of `env` are not
        shown, since they may be secrets: `Tank.Container.new/1`.
      * `{:invalid_STRUCT, value}`, such as `{:invalid_container, 7}`, where a struct was expected
        and the value is no map, keyword list or struct of this kind.
      * `:no_containers`
      * `{:unknown_keys, keys}` for keys that are no fields, sorted
      * `{:duplicate_keys, fields}` for fields given twice, as `:name` and as `"name"` for one
      * `{:duplicate_names, names}` of containers, volumes or NICs, sorted
      * `{:duplicate_paths, paths}` of mounts in one container, sorted
      * `{:unknown_volume_refs, [{container, volume}]}` for mounts of volumes the pod lacks

    `new!/1` also says where it is and what to write instead.
    """

    alias Tank.{Container, Volume}
    alias Tank.Pod.{Cast, Check, Network}

    @type restart :: :always | :on_failure | :never

    @type t :: %__MODULE__{
            name: String.t(),
            containers: [Container.t(), ...],
            network: Network.t() | :host | :none,
            volumes: [Volume.t()],
            restart: restart()
          }

    @typedoc "Why a pod was refused; see the section *Reasons* above."
    @type reason ::
            :no_containers
            | {:unknown_keys, [term()]}
            | {:duplicate_keys, [atom()]}
            | {:duplicate_names, [String.t()]}
            | {:duplicate_paths, [String.t()]}
            | {:unknown_volume_refs, [{container :: String.t(), volume :: String.t()}]}
            | {invalid :: atom(), value :: term()}

    # Nothing is enforced: a pattern or a test may need a pod with no more than a name.
    defstruct name: nil, containers: [], network: :none, volumes: [], restart: :always

    @doc """
    Builds a pod and everything in it.

    `input` is a map, a keyword list or a `%Tank.Pod{}`, and so is each struct inside. Any other
    term is answered, not raised on. The reasons are listed in the module's documentation.

        iex> {:ok, pod} = Tank.Pod.new(name: "web", containers: [%{name: "app", image: "nginx"}])
        iex> pod.restart
        :always
        iex> Tank.Pod.new(pod) == {:ok, pod}
        true

        iex> Tank.Pod.new(%{"name" => "web", "containers" => []})
        {:error, :no_containers}

        iex> Tank.Pod.new(name: "web", containers: [[name: "app", image: ""]])
        {:error, {:invalid_image, ""}}

        iex> Tank.Pod.new("web")
        {:error, {:invalid_pod, "web"}}
    """
    @spec new(map() | keyword() | t()) :: {:ok, t()} | {:error, reason()}
    def new(input), do: input |> cast() |> Cast.answer()

    @doc """
    Like `new/1`, but returns the pod itself and raises `ArgumentError` when it is refused.

        iex> Tank.Pod.new!(name: "web", containers: [[name: "app", image: "nginx"]]).name
        "web"

        iex> Tank.Pod.new!(name: "web", containers: [], restart: :always)
        ** (ArgumentError) cannot build Tank.Pod "web": containers: give at least one container, \
    such as %{name: "app", image: "nginx:1.27"}
    """
    @spec new!(map() | keyword() | t()) :: t()
    def new!(input), do: input |> cast() |> Cast.answer!(__MODULE__, input)

    defp cast(input) do
      with {:ok, pod} <- Cast.build(input, __MODULE__, :invalid_pod, fields()) do
        known_volumes(pod)
      end
    end

    defp fields do
      [
        {:name, :invalid_name, &Check.name/1},
        {:containers, :invalid_containers, &containers/1},
        {:network, :invalid_network, &network/1},
        {:volumes, :invalid_volumes, &volumes/1},
        {:restart, :invalid_restart, &Check.one_of(&1, [:always, :on_failure, :never])}
      ]
    end

    defp containers(none) when none in [nil, []], do: Cast.problem(:no_containers)

    defp containers(items) do
      with {:ok, containers} <- Cast.list(items, &Container.cast/1) do
        Cast.unique(containers, & &1.name, :duplicate_names)
      end
    end

    defp volumes(items) do
      with {:ok, volumes} <- Cast.list(items, &Volume.cast/1) do
        Cast.unique(volumes, & &1.name, :duplicate_names)
      end
    end

    defp network(shared) when shared in [:host, :none], do: {:ok, shared}
    defp network(own), do: Network.cast(own)

    # Only the pod sees both its volumes and its containers, so only it can tell.
    defp known_volumes(%{volumes: volumes, containers: containers} = pod) do
      known = MapSet.new(volumes, & &1.name)

      refs =
        for %{name: name, mounts: mounts} <- containers,
            %{volume: volume} <- mounts,
            volume not in known,
            uniq: true,
            do: {name, volume}

      if refs == [], do: {:ok, pod}, else: Cast.problem({:unknown_volume_refs, refs})
    end
  end
end
