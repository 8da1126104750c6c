defmodule Tank.Bench.Pods do
  @moduledoc """
  The values: pods of 1.6 KB in external term format, with two containers, as Tank has them.

  They are made without the library's structs, so that a VM that has only a peer store makes the same ones.
  """

  @doc "The name of pod number `i`."
  @spec name(non_neg_integer) :: String.t()
  def name(i), do: "pod-" <> String.pad_leading(Integer.to_string(i), 7, "0")

  @doc "The names of pods 1 to `n`."
  @spec names(pos_integer) :: tuple
  def names(n) do
    # Where processes share it: a copy for each of a hundred clients, and its collection, would be measured too.
    with nil <- :persistent_term.get({__MODULE__, n}, nil) do
      names = List.to_tuple(for i <- 1..n, do: name(i))
      :persistent_term.put({__MODULE__, n}, names)
      names
    end
  end

  @doc "A pod with strings of its own, as a caller has that built or received it."
  @spec pod(String.t()) :: map
  def pod(name) do
    pod = %{
      __struct__: Tank.Pod,
      name: name,
      containers: [
        container("web", name, ["/usr/bin/dumb-init", "--", "/srv/web/bin/server", "start"], 3),
        container("sidecar", name, ["/usr/bin/envoy", "-c", "/etc/envoy/envoy.yaml", "--concurrency", "1"], 2)
      ],
      network: %{
        __struct__: Tank.Pod.Network,
        nics: [
          %{__struct__: Tank.Nic, name: "eth0", mode: :macvlan, parent: :auto, ip: "10.77.12.34/16", gateway: nil}
        ],
        dns: ["10.77.0.1", "10.77.0.2"]
      },
      volumes: [%{__struct__: Tank.Volume, name: "data", source: {:host, "/var/lib/tank/#{name}"}}],
      restart: :always
    }

    :erlang.binary_to_term(:erlang.term_to_binary(pod))
  end

  @doc "A pod of another size: `:small` is 0.1 KB in external term format, `:short` 0.3 KB, `:usual` 1.6 KB, `:large` 64 KB."
  @spec sized(:small | :short | :usual | :large, String.t()) :: map
  def sized(:usual, name), do: pod(name)
  def sized(:short, name), do: %{pod(name) | containers: [], volumes: []}
  def sized(:small, name), do: %{pod(name) | containers: [], network: nil, volumes: []}

  def sized(:large, name) do
    pod = pod(name)
    %{pod | containers: pod.containers ++ [container("large", name, ["/srv/large"], 1_340)]}
  end

  @doc "`pod` under another name, with another value than in the calls with another `number`: a store may skip a put that changes nothing."
  @spec named(map, String.t(), integer) :: map
  def named(pod, name, number), do: %{pod | name: name, restart: {:on_failure, number}}

  defp container(container, pod, command, variables) do
    %{
      __struct__: Tank.Container,
      name: container,
      image: "registry.local:5000/tank/#{container}@sha256:" <> hash(container <> pod),
      command: command,
      env: for(i <- 1..variables, into: %{}, do: {"VARIABLE_#{i}", binary_part(hash("#{pod}#{i}"), 0, 24)}),
      mounts: [%{__struct__: Tank.Mount, volume: "data", path: "/srv/data", read_only: false}],
      args: [],
      working_dir: "/srv",
      user: "1000:1000",
      limits: %{memory: 268_435_456, cpu: 500},
      tty: false
    }
  end

  defp hash(text), do: Base.encode16(:crypto.hash(:sha256, text), case: :lower)
end
