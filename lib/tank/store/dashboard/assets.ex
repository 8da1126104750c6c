defmodule Tank.Store.Dashboard.Assets do
  @moduledoc false
  # The files of priv/dashboard, compiled into this module. They hold no secrets, and are shown without a token.

  @types %{".css" => "text/css; charset=utf-8", ".js" => "text/javascript; charset=utf-8", ".svg" => "image/svg+xml"}

  files = Path.wildcard(Path.join([__DIR__, "../../../../priv/dashboard/*"]))

  for file <- files do
    @external_resource file
    def fetch(unquote(Path.basename(file))),
      do: {:ok, unquote(Map.fetch!(@types, Path.extname(file))), unquote(File.read!(file))}
  end

  @doc "The type and the content of a file."
  @spec fetch(String.t()) :: {:ok, type :: String.t(), content :: binary} | :error
  def fetch(_unknown), do: :error
end
