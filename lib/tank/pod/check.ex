if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Pod.Check do
    @moduledoc false
    # Checks of single values, shared by the pod structs. Each takes any term and answers
    # `{:ok, value}`, normalised where one thing has several spellings, or `:error`.

    # A name becomes a path component, a directory, a cgroup and a host name; the last takes 63.
    @name ~r/\A[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\z/

    # Linux keeps 16 bytes for the name of an interface, the last one a zero.
    @interface ~r/\A[A-Za-z0-9]([A-Za-z0-9._-]{0,13}[A-Za-z0-9])?\z/

    @type checked(value) :: {:ok, value} | :error

    @doc "The name of a pod, container or volume."
    @spec name(term()) :: checked(String.t())
    def name(value), do: matching(value, @name)

    @doc "The name of a network interface."
    @spec interface(term()) :: checked(String.t())
    def interface(value), do: matching(value, @interface)

    @doc "A string that is not empty."
    @spec filled(term()) :: checked(String.t())
    def filled(""), do: :error
    def filled(value), do: text(value)

    @doc "Any string. A zero byte ends a string in the kernel, so it cannot be part of one."
    @spec text(term()) :: checked(String.t())
    def text(value) when is_binary(value) do
      ok_if(String.valid?(value) and not String.contains?(value, <<0>>), value)
    end

    def text(_other), do: :error

    @doc "A proper list of strings."
    @spec texts(term()) :: checked([String.t()])
    def texts(value), do: all(value, &text/1)

    @doc "A proper list whose elements all pass `check`."
    @spec all(term(), (term() -> checked(term()))) :: checked([term()])
    def all(list, check) when is_list(list) do
      ok_if(not List.improper?(list) and Enum.all?(list, &(check.(&1) != :error)), list)
    end

    def all(_other, _check), do: :error

    @doc "An absolute path that never walks up, in its shortest spelling: `/a//b/` is `/a/b`."
    @spec path(term()) :: checked(String.t())
    def path("/" <> _ = value) do
      parts = value |> String.split("/", trim: true) |> Enum.reject(&(&1 == "."))
      if ".." in parts, do: :error, else: text("/" <> Enum.join(parts, "/"))
    end

    def path(_other), do: :error

    @doc "An IPv4 or IPv6 address, kept as it was written."
    @spec address(term()) :: checked(String.t())
    def address(value), do: ok_if(prefix_max(value) != :error, value)

    @doc "An address with the length of its network prefix."
    @spec network_address(term(), term()) :: checked({String.t(), non_neg_integer()})
    def network_address(address, prefix) do
      max = prefix_max(address)
      ok_if(max != :error and is_integer(prefix) and prefix in 0..max, {address, prefix})
    end

    @doc "How many bits an address has, which is its longest prefix."
    @spec prefix_max(term()) :: 32 | 128 | :error
    def prefix_max(value) when is_binary(value) do
      case :inet.parse_strict_address(:erlang.binary_to_list(value)) do
        {:ok, address} when tuple_size(address) == 4 -> 32
        {:ok, _ipv6} -> 128
        {:error, _} -> :error
      end
    end

    def prefix_max(_other), do: :error

    @doc "One of a few values."
    @spec one_of(term(), [term()]) :: checked(term())
    def one_of(value, values), do: ok_if(value in values, value)

    @doc "True or false."
    @spec boolean(term()) :: checked(boolean())
    def boolean(value), do: ok_if(is_boolean(value), value)

    @doc "Nil, or what passes `check`."
    @spec optional(term(), (term() -> checked(term()))) :: checked(term())
    def optional(nil, _check), do: {:ok, nil}
    def optional(value, check), do: check.(value)

    defp matching(value, regex), do: ok_if(is_binary(value) and value =~ regex, value)

    defp ok_if(true, value), do: {:ok, value}
    defp ok_if(false, _value), do: :error
  end
end
