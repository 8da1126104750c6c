if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Volume do
    @moduledoc """
    A volume: files that outlive a container, or that several containers of a pod share.

    A pod lists its volumes; a container uses one by a `Tank.Mount` with the volume's name.

    ## Fields

      * `name` - unique in the pod; the rules are in `Tank.Pod`. Required.
      * `source` - where the files are. Default `:managed`.

    ## Sources

      * `:managed` - a directory the host makes and keeps as long as the pod exists, through
        every restart. What databases want.
      * `:empty_dir` - a directory that is empty whenever the pod starts and gone when it stops.
        What containers exchange files through.
      * `:tmpfs` or `{:tmpfs, bytes_max}` - the same in memory, for secrets and sockets.
      * `{:host, path}` - a directory or file of the host that is already there, by its absolute
        path. It ties the pod to that host.
    """

    alias Tank.Pod.{Cast, Check}

    @type source :: :managed | :empty_dir | :tmpfs | {:tmpfs, pos_integer()} | {:host, Path.t()}
    @type t :: %__MODULE__{name: String.t(), source: source()}

    defstruct name: nil, source: :managed

    @doc """
    Builds a volume from a map, a keyword list or a `%Tank.Volume{}`.

    Reasons: `{:invalid_volume, v}`, `{:invalid_name, v}`, `{:invalid_source, v}`,
    `{:unknown_keys, keys}` and `{:duplicate_keys, keys}`.

        iex> Tank.Volume.new(name: "data")
        {:ok, %Tank.Volume{name: "data", source: :managed}}

        iex> Tank.Volume.new(name: "data", source: {:host, "relative"})
        {:error, {:invalid_source, {:host, "relative"}}}
    """
    @spec new(map() | keyword() | t()) :: {:ok, t()} | {:error, Tank.Pod.reason()}
    def new(input), do: input |> cast() |> Cast.answer()

    @doc """
    Like `new/1`, but returns the volume itself and raises `ArgumentError` when it is refused.

        iex> Tank.Volume.new!(name: "run", source: {:tmpfs, 1_048_576}).source
        {:tmpfs, 1048576}
    """
    @spec new!(map() | keyword() | t()) :: t()
    def new!(input), do: input |> cast() |> Cast.answer!(__MODULE__, input)

    @doc false
    @spec cast(term()) :: Cast.built()
    def cast(input), do: Cast.build(input, __MODULE__, :invalid_volume, fields())

    defp fields do
      [
        {:name, :invalid_name, &Check.name/1},
        {:source, :invalid_source, &source/1}
      ]
    end

    defp source(kind) when kind in [:managed, :empty_dir, :tmpfs], do: {:ok, kind}

    defp source({:tmpfs, bytes_max} = source) when is_integer(bytes_max) and bytes_max > 0 do
      {:ok, source}
    end

    defp source({:host, path}) do
      with {:ok, path} <- Check.path(path), do: {:ok, {:host, path}}
    end

    defp source(_other), do: :error
  end
end
