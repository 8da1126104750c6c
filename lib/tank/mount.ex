if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Mount do
    @moduledoc """
    Where a container sees a volume of its pod.

    ## Fields

      * `volume` - the name of a `Tank.Volume` of the pod. `Tank.Pod.new/1` checks that there is
        one; a mount alone cannot. Required.
      * `path` - where it appears inside the container, absolute and without `..`. Repeated and
        trailing slashes are dropped. Required.
      * `read_only` - whether the container may only read. Default `false`.
    """

    alias Tank.Pod.{Cast, Check}

    @type t :: %__MODULE__{volume: String.t(), path: Path.t(), read_only: boolean()}

    defstruct volume: nil, path: nil, read_only: false

    @doc """
    Builds a mount from a map, a keyword list or a `%Tank.Mount{}`.

    Reasons: `{:invalid_mount, v}`, `{:invalid_volume, v}`, `{:invalid_path, v}`,
    `{:invalid_read_only, v}`, `{:unknown_keys, keys}` and `{:duplicate_keys, keys}`.

        iex> Tank.Mount.new(volume: "data", path: "/var/lib/data/")
        {:ok, %Tank.Mount{volume: "data", path: "/var/lib/data", read_only: false}}

        iex> Tank.Mount.new(volume: "data", path: "/data/../etc")
        {:error, {:invalid_path, "/data/../etc"}}
    """
    @spec new(map() | keyword() | t()) :: {:ok, t()} | {:error, Tank.Pod.reason()}
    def new(input), do: input |> cast() |> Cast.answer()

    @doc """
    Like `new/1`, but returns the mount itself and raises `ArgumentError` when it is refused.

        iex> Tank.Mount.new!(volume: "data", path: "/data", read_only: true).read_only
        true
    """
    @spec new!(map() | keyword() | t()) :: t()
    def new!(input), do: input |> cast() |> Cast.answer!(__MODULE__, input)

    @doc false
    @spec cast(term()) :: Cast.built()
    def cast(input), do: Cast.build(input, __MODULE__, :invalid_mount, fields())

    defp fields do
      [
        {:volume, :invalid_volume, &Check.name/1},
        {:path, :invalid_path, &Check.path/1},
        {:read_only, :invalid_read_only, &Check.boolean/1}
      ]
    end
  end
end
