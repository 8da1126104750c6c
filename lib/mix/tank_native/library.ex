defmodule Mix.TankNative.Library do
  @moduledoc """
  The library in `priv/native/`: whether it is current, where it comes from, how it gets there.

  Beside each library lies a stamp that says what it was made from. It is in `priv` and not in `_build` since that is
  where the library is: the environments of a project, and those that depend on it, share both.
  """

  alias Mix.TankNative.Failure

  @typedoc "Built by Cargo with these features; prebuilt: its path, and the checksum it must have; or precompiled."
  @type source :: {:cargo, [String.t()]} | {:prebuilt, Path.t(), String.t() | nil} | Mix.TankNative.Precompiled.t()

  # Settings from outside of the sources that change what Cargo builds.
  @environment ~w(RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET)

  @doc "What the library would be made from now: a digest of the sources' content and of all that changes the build."
  @spec stamp(Path.t(), source()) :: String.t()
  def stamp(root, source) do
    digest = :crypto.hash_init(:sha256)

    {inputs(root, source), source, Enum.map(@environment, &System.get_env/1)}
    |> :erlang.term_to_binary()
    |> then(&:crypto.hash_update(digest, &1))
    |> :crypto.hash_final()
    |> Base.encode16(case: :lower)
  end

  @doc "Whether the installed library was made from what `stamp` stands for."
  @spec current?(Path.t(), String.t(), String.t()) :: boolean()
  def current?(root, name, stamp) do
    with {:ok, %{size: size}} <- File.stat(library_path(root, name)),
         {:ok, content} <- File.read(stamp_path(root, name)) do
      content == stamp_content(stamp, size)
    else
      {:error, _reason} -> false
    end
  end

  @doc """
  Puts `file` into `priv/native/` under `name`, and the stamp beside it.

  A library with the same content stays untouched. Another one takes its place by a rename: a running VM has the old
  file mapped, and overwriting it in place would crash that VM.
  """
  @spec install(Path.t(), String.t(), Path.t(), String.t()) :: :ok | :noop
  def install(root, name, file, stamp) do
    target = library_path(root, name)
    File.mkdir_p!(Path.dirname(target))
    status = if same_content?(file, target), do: :noop, else: replace(file, target, stamp_path(root, name))
    write(stamp_path(root, name), stamp_content(stamp, File.stat!(target).size))
    status
  rescue
    error in [File.Error, File.CopyError, File.RenameError] ->
      Failure.raise!("The Rust library was built but not installed: " <> Exception.message(error))
  end

  @doc "Checks a prebuilt library against its checksum, when one is known, and returns its path."
  @spec verify!(Path.t(), Path.t(), String.t() | nil) :: Path.t()
  def verify!(root, path, sha256) do
    unless File.regular?(path), do: Failure.raise!("TANK_STORE_NIF_PATH names #{path}, which is not a file.")
    expected = sha256 || listed_sha256(checksums_path(root), Path.basename(path))
    actual = sha256(path)

    if expected && String.downcase(expected) != actual do
      Failure.raise!("""
      The library that TANK_STORE_NIF_PATH names does not have the checksum it should have.

          file      #{path}
          expected  #{String.downcase(expected)}
          actual    #{actual}

      It was damaged, or was built for another version. Fetch or build it again, or unset TANK_STORE_NIF_PATH to
      compile it here.
      """)
    end

    path
  end

  @doc "The checksum that a file in the format of `sha256sum` lists for a name, or nil."
  @spec listed_sha256(Path.t(), String.t()) :: String.t() | nil
  def listed_sha256(list, name) do
    with {:ok, content} <- File.read(list),
         [_line, sha256] <- Regex.run(~r/^([0-9a-fA-F]{64}) [ *]#{Regex.escape(name)}$/m, content) do
      sha256
    else
      _absent -> nil
    end
  end

  @doc "The checksum of a file, in lower case."
  @spec sha256(Path.t()) :: String.t()
  def sha256(path) do
    path
    |> File.open!([:read], &hash(IO.binstream(&1, 1_048_576)))
    |> Base.encode16(case: :lower)
  end

  @doc "Removes what was installed."
  @spec remove(Path.t()) :: :ok
  def remove(root) do
    File.rm_rf!(directory(root))
    :ok
  end

  defp inputs(root, {:cargo, _features}) do
    for path <- ~w(native .cargo Cargo.toml Cargo.lock rust-toolchain.toml rust-toolchain),
        file <- files(Path.join(root, path)),
        do: {Path.relative_to(file, root), File.read!(file)}
  end

  defp inputs(root, {:prebuilt, path, _sha256}), do: [stat(path), stat(checksums_path(root))]
  # The checksum says all.
  defp inputs(_root, {:precompiled, _location, _name, _sha256}), do: []

  defp files(path) do
    case File.ls(path) do
      {:ok, names} -> names |> Enum.sort() |> Enum.flat_map(&files(Path.join(path, &1)))
      {:error, :enotdir} -> [path]
      {:error, :enoent} -> []
    end
  end

  defp stat(path) do
    case File.stat(path, time: :posix) do
      {:ok, %{size: size, mtime: mtime}} -> {size, mtime}
      {:error, reason} -> reason
    end
  end

  defp same_content?(file, target), do: File.regular?(target) and sha256(file) == sha256(target)

  # The stamp goes first: what lies there with a stamp is whole and is what the stamp says.
  defp replace(file, target, stamp_path) do
    temporary = temporary(target)
    File.rm(stamp_path)
    File.cp!(file, temporary)
    File.rename!(temporary, target)
    :ok
  after
    File.rm(temporary(target))
  end

  defp write(path, content) do
    File.write!(temporary(path), content)
    File.rename!(temporary(path), path)
  end

  # Two builds at once must not write to one file.
  defp temporary(path), do: "#{path}.#{System.pid()}.tmp"

  defp stamp_content(stamp, size), do: "#{stamp} #{size}\n"

  defp hash(parts) do
    parts |> Enum.reduce(:crypto.hash_init(:sha256), &:crypto.hash_update(&2, &1)) |> :crypto.hash_final()
  end

  defp directory(root), do: Path.join([root, "priv", "native"])
  defp library_path(root, name), do: Path.join(directory(root), name <> ".so")
  defp stamp_path(root, name), do: Path.join(directory(root), name <> ".stamp")
  defp checksums_path(root), do: Path.join([root, "native", "checksums.sha256"])
end
