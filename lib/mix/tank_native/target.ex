defmodule Mix.TankNative.Target do
  @moduledoc """
  For which machines a library is: the processor, the operating system, and on Linux the C library.
  """

  @doc "The machine that runs this VM, such as `x86_64-linux-gnu`."
  @spec host :: String.t()
  def host, do: :erlang.system_info(:system_architecture) |> List.to_string() |> name()

  @doc """
  The name of a target as Erlang or Rust writes it, without the vendor and the version of the system.

      iex> Mix.TankNative.Target.name("x86_64-pc-linux-gnu")
      "x86_64-linux-gnu"
      iex> Mix.TankNative.Target.name("aarch64-unknown-linux-musl")
      "aarch64-linux-musl"
      iex> Mix.TankNative.Target.name("aarch64-apple-darwin23.1.0")
      "aarch64-darwin"
  """
  @spec name(String.t()) :: String.t()
  def name(triple) do
    [processor | rest] = String.split(triple, "-")
    Enum.join([processor(processor) | system(rest)], "-")
  end

  @doc "The file that holds the library of a release for a target."
  @spec file_name(version :: String.t(), target :: String.t()) :: String.t()
  def file_name(version, target), do: "tank_nif-#{version}-#{target}.so"

  defp processor("arm64"), do: "aarch64"
  defp processor("amd64"), do: "x86_64"
  defp processor(name), do: name

  # Erlang writes "pc-linux-gnu", "linux-gnu" or "apple-darwin23.1.0".
  defp system([<<"darwin", _version::binary>> | _rest]), do: ["darwin"]
  defp system(["linux" | rest]), do: ["linux" | rest]
  defp system([_vendor | rest]) when rest != [], do: system(rest)
  defp system(rest), do: rest
end
