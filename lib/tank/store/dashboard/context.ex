defmodule Tank.Store.Dashboard.Context do
  @moduledoc false
  # What the parts of a dashboard share: whose it is, and its token. That is in functions, which nothing prints.

  alias Tank.Store.{Cluster, Options}

  @derive {Inspect, only: [:store_id, :port]}
  @enforce_keys [:store_id, :port, :token, :digest, :noted]
  defstruct @enforce_keys

  @token_bytes_min 16
  @token_bytes 32

  # Slots of `noted`.
  @slots [:wrong_since, :wrong, :wrong_logged, :failure_logged]

  @type t :: %__MODULE__{
          store_id: atom,
          port: :inet.port_number(),
          token: (() -> String.t()),
          digest: (() -> binary),
          noted: :atomics.atomics_ref()
        }
  @type slot :: :wrong_since | :wrong | :wrong_logged | :failure_logged

  @doc "Of options that are known. Raises `ArgumentError` for a value that none of them may have."
  @spec new!(keyword) :: t
  def new!(opts) do
    token = token!(opts[:token])
    digest = digest(token)

    %__MODULE__{
      store_id: Options.store_id!(opts, Cluster.get_default_store_id()),
      port: port!(Keyword.get(opts, :port, 4040)),
      token: fn -> token end,
      digest: fn -> digest end,
      noted: :atomics.new(length(@slots), signed: true)
    }
  end

  @doc "Options in which the token is a function."
  @spec hide_token(keyword) :: keyword
  def hide_token(opts) do
    case Keyword.fetch(opts, :token) do
      {:ok, token} when is_binary(token) -> Keyword.put(opts, :token, fn -> token end)
      _none_or_hidden -> opts
    end
  end

  @doc "What is kept of a token to compare others with."
  @spec digest(binary) :: binary
  def digest(token), do: :crypto.hash(:sha256, token)

  @doc "The atomic of a slot."
  @spec slot(slot) :: pos_integer
  for {slot, i} <- Enum.with_index(@slots, 1), do: def(slot(unquote(slot)), do: unquote(i))

  defp token!(nil), do: @token_bytes |> :crypto.strong_rand_bytes() |> Base.url_encode64(padding: false)
  defp token!(token) when is_function(token, 0), do: token!(token.())
  defp token!(token) when is_binary(token) and byte_size(token) >= @token_bytes_min, do: token

  defp token!(_secret),
    do: raise(ArgumentError, "option :token must be a string of at least #{@token_bytes_min} bytes")

  defp port!(port) when port in 0..65_535, do: port
  defp port!(other), do: raise(ArgumentError, "option :port must be a port, from 0 to 65535, got: #{inspect(other)}")
end
