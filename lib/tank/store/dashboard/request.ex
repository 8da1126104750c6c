defmodule Tank.Store.Dashboard.Request do
  @moduledoc false
  # A request of a browser, as far as a dashboard looks at it.

  defstruct [:method, :path, :port, query: %{}, cookies: %{}]

  @type t :: %__MODULE__{
          method: String.t(),
          path: String.t(),
          port: :inet.port_number(),
          query: %{String.t() => String.t()},
          cookies: %{String.t() => String.t()}
        }

  @doc "Of what httpd gives; nil for one that makes no sense."
  @spec new(charlist, charlist, [{charlist, charlist}], :inet.port_number()) :: t | nil
  def new(method, uri, headers, port) do
    {path, query} = split(IO.iodata_to_binary(uri))

    with {:ok, query} <- decode(query) do
      %__MODULE__{method: List.to_string(method), path: path, port: port, query: query, cookies: cookies(headers)}
    end
  end

  @doc "A parameter, which is a string of UTF-8."
  @spec param(t, String.t(), default) :: String.t() | default when default: term
  def param(request, name, default \\ nil), do: Map.get(request.query, name, default)

  @doc "A parameter that is a number."
  @spec number(t, String.t()) :: integer
  def number(request, name) do
    case Integer.parse(param(request, name, "0")) do
      {number, ""} -> number
      _no_number -> 0
    end
  end

  defp split(uri) do
    case :binary.split(uri, "?") do
      [path] -> {path, ""}
      [path, query] -> {path, query}
    end
  end

  defp decode(query) do
    query = URI.decode_query(query)
    if Enum.all?(query, fn {name, value} -> String.valid?(name) and String.valid?(value) end), do: {:ok, query}
  rescue
    ArgumentError -> nil
  end

  defp cookies(headers) do
    for {~c"cookie", line} <- headers,
        cookie <- line |> IO.iodata_to_binary() |> String.split(";"),
        [name, value] <- [String.split(cookie, "=", parts: 2)],
        into: %{},
        do: {String.trim(name), String.trim(value)}
  end
end
