if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Pod.Network do
    @moduledoc """
    The network of a pod: its interfaces, and the name servers its containers ask.

    All containers of a pod share one network namespace. Its loopback interface is always there
    and is not listed. A pod that has no network of its own says `:host` or `:none` instead.

    ## Fields

      * `nics` - the `Tank.Nic`s, no two of the same name. Default `[]`.
      * `dns` - addresses of name servers, as strings, asked in this order. Default `[]`.
    """

    alias Tank.Nic
    alias Tank.Pod.{Cast, Check}

    @type t :: %__MODULE__{nics: [Nic.t()], dns: [String.t()]}

    defstruct nics: [], dns: []

    @doc """
    Builds a network from a map, a keyword list or a `%Tank.Pod.Network{}`.

    Reasons: `{:invalid_network, v}`, `{:invalid_nics, v}`, `{:duplicate_names, names}`,
    `{:invalid_dns, v}`, `{:unknown_keys, keys}`, `{:duplicate_keys, keys}`, and those of
    `Tank.Nic.new/1`.

        iex> {:ok, network} = Tank.Pod.Network.new(nics: [[name: "eth0", ip: :dhcp]])
        iex> Enum.map(network.nics, & &1.name)
        ["eth0"]

        iex> Tank.Pod.Network.new(dns: ["one.one.one.one"])
        {:error, {:invalid_dns, ["one.one.one.one"]}}
    """
    @spec new(map() | keyword() | t()) :: {:ok, t()} | {:error, Tank.Pod.reason()}
    def new(input), do: input |> cast() |> Cast.answer()

    @doc """
    Like `new/1`, but returns the network itself and raises `ArgumentError` when it is refused.

        iex> Tank.Pod.Network.new!(dns: ["1.1.1.1"])
        %Tank.Pod.Network{nics: [], dns: ["1.1.1.1"]}
    """
    @spec new!(map() | keyword() | t()) :: t()
    def new!(input), do: input |> cast() |> Cast.answer!(__MODULE__, input)

    @doc false
    @spec cast(term()) :: Cast.built()
    def cast(input), do: Cast.build(input, __MODULE__, :invalid_network, fields())

    defp fields do
      [
        {:nics, :invalid_nics, &nics/1},
        {:dns, :invalid_dns, &Check.all(&1, fn server -> Check.address(server) end)}
      ]
    end

    defp nics(items) do
      with {:ok, nics} <- Cast.list(items, &Nic.cast/1) do
        Cast.unique(nics, & &1.name, :duplicate_names)
      end
    end
  end
end
