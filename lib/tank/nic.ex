if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Nic do
    @moduledoc """
    A network interface of a pod.

    ## Fields

      * `name` - as the containers see it, such as `"eth0"`: letters, digits, `.`, `_` and `-`,
        first and last a letter or a digit, at most 15 bytes. Required.
      * `mode` - how it reaches the host's network: `:bridge` joins a bridge of the host,
        `:macvlan` and `:ipvlan` share an interface of the host, `:veth` is a cable whose other
        end the host routes. Default `:macvlan`.
      * `parent` - the bridge or interface of the host, or `:auto` for the one that has the
        default route. Default `:auto`.
      * `ip` - the address; see below. Required.
      * `gateway` - the address of the default route, or `nil`. Default `nil`.

    ## Addresses

    `{"10.0.0.5", 24}` is an address with the length of its prefix, IPv4 or IPv6. `"10.0.0.5/24"`
    is the same and becomes the tuple; without a length the address stands alone, as in `ip addr
    add`: `"10.0.0.5"` is `{"10.0.0.5", 32}`. `{:ipam, pool}` draws a free one from a pool, a
    network such as `"10.0.0.0/24"` or a name, when the pod starts; `:dhcp` asks the network.
    """

    alias Tank.Pod.{Cast, Check}

    @type mode :: :bridge | :macvlan | :ipvlan | :veth
    @type ip :: {address :: String.t(), prefix_bits :: 0..128} | {:ipam, String.t()} | :dhcp

    @type t :: %__MODULE__{
            name: String.t(),
            mode: mode(),
            parent: String.t() | :auto,
            ip: ip(),
            gateway: String.t() | nil
          }

    defstruct name: nil, mode: :macvlan, parent: :auto, ip: nil, gateway: nil

    @doc """
    Builds a NIC from a map, a keyword list or a `%Tank.Nic{}`.

    Reasons: `{:invalid_nic, v}`, `{:invalid_name, v}`, `{:invalid_mode, v}`,
    `{:invalid_parent, v}`, `{:invalid_ip, v}`, `{:invalid_gateway, v}`, `{:unknown_keys, keys}`
    and `{:duplicate_keys, keys}`.

        iex> {:ok, nic} = Tank.Nic.new(name: "eth0", ip: "10.0.0.5/24", gateway: "10.0.0.1")
        iex> nic.ip
        {"10.0.0.5", 24}

        iex> Tank.Nic.new(name: "eth0", ip: {"10.0.0.5", 33})
        {:error, {:invalid_ip, {"10.0.0.5", 33}}}
    """
    @spec new(map() | keyword() | t()) :: {:ok, t()} | {:error, Tank.Pod.reason()}
    def new(input), do: input |> cast() |> Cast.answer()

    @doc """
    Like `new/1`, but returns the NIC itself and raises `ArgumentError` when it is refused.

        iex> Tank.Nic.new!(name: "eth0", ip: :dhcp).parent
        :auto
    """
    @spec new!(map() | keyword() | t()) :: t()
    def new!(input), do: input |> cast() |> Cast.answer!(__MODULE__, input)

    @doc false
    @spec cast(term()) :: Cast.built()
    def cast(input), do: Cast.build(input, __MODULE__, :invalid_nic, fields())

    defp fields do
      [
        {:name, :invalid_name, &Check.interface/1},
        {:mode, :invalid_mode, &Check.one_of(&1, [:bridge, :macvlan, :ipvlan, :veth])},
        {:parent, :invalid_parent, &parent/1},
        {:ip, :invalid_ip, &ip/1},
        {:gateway, :invalid_gateway, &Check.optional(&1, fn ip -> Check.address(ip) end)}
      ]
    end

    defp parent(:auto), do: {:ok, :auto}
    defp parent(name), do: Check.interface(name)

    defp ip(:dhcp), do: {:ok, :dhcp}

    defp ip({:ipam, pool}) do
      with {:ok, pool} <- Check.filled(pool), do: {:ok, {:ipam, pool}}
    end

    defp ip({address, prefix}), do: Check.network_address(address, prefix)

    defp ip(text) when is_binary(text) do
      case :binary.split(text, "/") do
        [address] -> Check.network_address(address, Check.prefix_max(address))
        [address, prefix] -> Check.network_address(address, prefix_bits(prefix))
      end
    end

    defp ip(_other), do: :error

    # Digits alone: `Integer.parse/1` would take "+24" as well.
    defp prefix_bits(text) do
      if text =~ ~r/\A[0-9]{1,3}\z/, do: String.to_integer(text), else: :error
    end
  end
end
