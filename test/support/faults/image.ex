defmodule Tank.Store.Faults.Image do
  @moduledoc """
  A small ext4 file system in a file, mounted for one test: its power can be cut, and it can be filled up.

  It goes with the test. Needs root, and a machine that lets it mount: `lacks/0`.
  """

  alias Tank.Store.Faults.Command
  import Bitwise, only: [<<<: 2]
  import Tank.Store.TankCase, only: [eventually: 3]

  defstruct [:file, :loop, :mount]

  @type t :: %__MODULE__{file: String.t(), loop: String.t(), mount: String.t()}

  @tools ~w(losetup mkfs.ext4 mount umount python3)

  @doc "Why there can be no images here, or nil. Tries it once."
  @spec lacks :: String.t() | nil
  def lacks do
    with nil <- Command.lacks(@tools) do
      dir = Path.join(System.tmp_dir!(), "tank_store_image_#{System.unique_integer([:positive])}")
      File.mkdir_p!(dir)

      try do
        dir |> make(4) |> remove()
        nil
      rescue
        error -> Exception.message(error)
      after
        File.rm_rf!(dir)
      end
    end
  end

  @doc "Makes an image of some MiB in `dir`, and mounts it until the test ends."
  @spec create(String.t(), pos_integer) :: t
  def create(dir, mebibytes) do
    image = make(dir, mebibytes)
    ExUnit.Callbacks.on_exit(fn -> remove(image) end)
    image
  end

  @doc """
  Gets ready to cut the power, and returns the function that does it, at once: what was written and not synced is gone.
  """
  @spec power_switch(t) :: (() -> :ok)
  def power_switch(image) do
    args = [Path.join(__DIR__, "power_cut.py"), image.mount]
    python = System.find_executable("python3")
    port = Port.open({:spawn_executable, python}, [:binary, {:line, 100}, :exit_status, args: args])
    await_line(port, "ready")

    fn ->
      Port.command(port, "\n")
      await_line(port, "cut")
      receive do: ({^port, {:exit_status, 0}} -> :ok)
    end
  end

  @doc """
  Syncs a file of the image over and over until the power is cut.

  Each sync writes the file system's journal, and so makes the lengths of all files durable, also of those whose data
  is only on its way.
  """
  @spec keep_syncing(String.t()) :: port
  def keep_syncing(path) do
    args = ["-c", "while sync \"$1\"; do :; done", "sh", path]
    Port.open({:spawn_executable, System.find_executable("sh")}, [:binary, :exit_status, :stderr_to_stdout, args: args])
  end

  @doc "Mounts the image again, as after a power cut. Nothing may use it."
  @spec remount(t) :: :ok
  def remount(image) do
    unmount(image)
    eventually("#{image.mount} to come up anew", fn -> mounted_anew?(image) end, 300_000)
    :ok
  end

  @doc "Takes up all space but `bytes`. The function that it returns gives the space back."
  @spec fill(t, non_neg_integer) :: (() -> :ok)
  def fill(image, bytes \\ 0) do
    ballast = Path.join(image.mount, "ballast")
    write_until_full(ballast)
    size = File.stat!(ballast).size
    Command.run!("truncate", ["-s", "#{max(size - bytes, 0)}", ballast])
    Command.run!("sync", ["-f", image.mount])
    fn -> File.rm!(ballast) end
  end

  defp make(dir, mebibytes) do
    name = "disk_#{System.unique_integer([:positive])}"
    image = %__MODULE__{file: Path.join(dir, name <> ".img"), mount: Path.join(dir, name)}
    File.mkdir_p!(image.mount)
    Command.run!("truncate", ["-s", "#{mebibytes}M", image.file])
    # No blocks kept for root, who is the one to fill it.
    Command.run!("mkfs.ext4", ["-q", "-F", "-m", "0", image.file])
    image = %{image | loop: String.trim(Command.run!("losetup", ["-f", "--show", image.file]))}

    try do
      mount(image)
      image
    rescue
      error ->
        detach(image)
        reraise error, __STACKTRACE__
    end
  end

  defp remove(image) do
    unmount(image)
    detach(image)
    File.rm!(image.file)
  end

  defp mount(image) do
    Command.run!("mount", [image.loop, image.mount])
    :ok
  end

  # A process in a mount namespace of its own, such as those of `ip netns exec`, keeps the file system as it was when the
  # power went, until it ends.
  defp mounted_anew?(image) do
    mount(image)
    probe = Path.join(image.mount, "probe")

    case File.write(probe, "") do
      :ok -> File.rm!(probe) == :ok
      {:error, _still_down} -> unmount(image) && nil
    end
  end

  # A process that was killed lets go of its files a moment after it is gone.
  defp unmount(image) do
    eventually(
      "#{image.mount} to be unmounted",
      fn -> match?({_out, 0}, Command.run("umount", [image.mount])) end,
      30_000
    )
  end

  defp detach(image), do: Command.run!("losetup", ["-d", image.loop])

  defp write_until_full(path) do
    File.open!(path, [:write, :raw, :append], fn file ->
      Enum.each([1 <<< 20, 1 <<< 12], &write_until_full(file, String.duplicate("\xFF", &1)))
    end)
  end

  defp write_until_full(file, chunk) do
    with :ok <- :file.write(file, chunk), do: write_until_full(file, chunk)
  end

  defp await_line(port, line) do
    receive do
      {^port, {:data, {:eol, ^line}}} -> :ok
      {^port, {:exit_status, status}} -> raise "the power switch ended with status #{status}"
    after
      30_000 -> raise "the power switch did not say #{inspect(line)} within 30 s"
    end
  end
end
