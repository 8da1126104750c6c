defmodule Mix.TankNative.Precompiled do
  @moduledoc """
  A library that `mix tank.precompile` has made, from a directory or a URL that the application configures:

      config :tank_store,
        precompiled: "https://files.example.com/tank_store",
        precompiled_checksums: Path.expand("tank_store.sha256", __DIR__)

  The checksum says which file it is. Those of a URL come from a file of the application: what a server sends cannot vouch
  for itself. A directory may have them in its own `checksums.sha256`.
  """

  alias Mix.TankNative.{Failure, Library, Target}

  @checksums "checksums.sha256"
  # Nothing is downloaded twice. A slow line takes a minute for 20 MB.
  @download_ms 600_000

  @typedoc "Where it is, and the checksum that it must have."
  @type t :: {:precompiled, location :: String.t(), file_name :: String.t(), sha256 :: String.t()}

  @doc """
  The library for this machine at `location`, or why there is none, which is no error: it is compiled then. Nothing is
  downloaded yet.
  """
  @spec find(String.t(), Path.t() | nil, String.t(), String.t()) :: t() | {:none, String.t()}
  def find(location, checksums, version, target \\ Target.host()) do
    name = Target.file_name(version, target)
    list = list!(location, checksums)

    case Library.listed_sha256(list, name) do
      nil -> {:none, "#{list} lists no #{name}: compiling the library instead"}
      sha256 -> {:precompiled, location, name, String.downcase(sha256)}
    end
  end

  @doc "Calls `fun` with the file, once its checksum was verified. Says what it does."
  @spec with_file!(t(), (String.t() -> term), (Path.t() -> result)) :: result when result: var
  def with_file!({:precompiled, location, name, sha256}, say, fun) do
    say.("[tank_store] using the precompiled library #{location}/#{name}")

    if url?(location) do
      in_temporary_file(name, fn file ->
        download!("#{location}/#{name}", file)
        fun.(verify!(file, "#{location}/#{name}", sha256, say))
      end)
    else
      file = Path.join(location, name)
      unless File.regular?(file), do: Failure.raise!("#{file} is listed in #{@checksums}, and is not there.")
      fun.(verify!(file, file, sha256, say))
    end
  end

  @doc "Writes the checksum of `file` into the list of its directory, in place of one for the same name."
  @spec list(Path.t()) :: Path.t()
  def list(file) do
    list = Path.join(Path.dirname(file), @checksums)
    name = Path.basename(file)
    others = for line <- lines(list), not String.ends_with?(line, "  " <> name), do: line
    lines = Enum.sort_by(["#{Library.sha256(file)}  #{name}" | others], &String.slice(&1, 66..-1//1))
    File.write!(list, Enum.map(lines, &(&1 <> "\n")))
    list
  end

  defp lines(list) do
    case File.read(list) do
      {:ok, text} -> String.split(text, "\n", trim: true)
      {:error, :enoent} -> []
    end
  end

  defp list!(location, nil) do
    if url?(location),
      do:
        Failure.raise!("""
        `config :tank_store, precompiled: #{inspect(location)}` needs `precompiled_checksums:` as well, the path of a file of your
        application: a server cannot vouch for what it sends. `mix tank.precompile` has written it, next to the library.
        """)

    list!(location, Path.join(location, @checksums))
  end

  defp list!(location, checksums) do
    for path <- [checksums | if(url?(location), do: [], else: [location])], Path.type(path) != :absolute do
      Failure.raise!("`config :tank_store` has #{inspect(path)}: give a full path, as with Path.expand(_, __DIR__).")
    end

    unless File.regular?(checksums),
      do: Failure.raise!("#{checksums}, the list of the precompiled libraries, is not there.")

    checksums
  end

  defp verify!(file, from, sha256, say) do
    case Library.sha256(file) do
      ^sha256 ->
        say.("[tank_store] its checksum is right: #{sha256}")
        file

      other ->
        Failure.raise!("""
        The precompiled library does not have the checksum that it should have.

            file      #{from}
            expected  #{sha256}
            actual    #{other}

        It was damaged or replaced. Nothing was installed.
        """)
    end
  end

  defp url?(location), do: location =~ ~r{^https?://}

  defp in_temporary_file(name, fun) do
    file = Path.join(System.tmp_dir!(), "#{System.pid()}_#{name}")
    fun.(file)
  after
    File.rm(Path.join(System.tmp_dir!(), "#{System.pid()}_#{name}"))
  end

  defp download!(url, file) do
    start!([:inets, :ssl])
    request = {String.to_charlist(url), []}
    http = [timeout: @download_ms, connect_timeout: 30_000, ssl: tls(url)]

    case :httpc.request(:get, request, http, stream: String.to_charlist(file)) do
      {:ok, :saved_to_file} -> :ok
      {:ok, {{_version, status, text}, _headers, _body}} -> not_downloaded!(url, "#{status} #{text}")
      {:error, reason} -> not_downloaded!(url, inspect(reason))
    end
  end

  # The server's certificate must be of an authority that the system trusts, and for this name.
  defp tls("https:" <> _rest) do
    check = [match_fun: :public_key.pkix_verify_hostname_match_fun(:https)]
    [verify: :verify_peer, depth: 5, cacerts: :public_key.cacerts_get(), customize_hostname_check: check]
  end

  defp tls(_http), do: []

  defp not_downloaded!(url, why) do
    Failure.raise!("""
    The precompiled library was not downloaded: #{why}

        #{url}

    Try again, or take `precompiled:` out of `config :tank_store` to compile the library here.
    """)
  end

  # Elixir 1.15 and later take the applications that a project does not need off the code path.
  defp start!(applications) do
    for application <- applications do
      if function_exported?(Mix, :ensure_application!, 1), do: apply(Mix, :ensure_application!, [application])
      {:ok, _started} = Application.ensure_all_started(application)
    end
  end
end
