defmodule Tank.Store.Build.PackageTest do
  # `mix hex.build` needs Hex and its registry; this checks what it would check, and that a build finds its files.
  use ExUnit.Case, async: true

  test "the package has what Hex asks for" do
    config = Mix.Project.config()
    package = config[:package]
    assert is_binary(config[:description]) and String.length(config[:description]) <= 300
    assert package[:licenses] == ["Apache-2.0"]
    assert is_map(package[:links])
    assert {:ok, _version} = Version.parse(config[:version])
    # Hex takes no dependency that is a path.
    assert config[:deps] == []
    for file <- package[:files], do: assert(File.exists?(file), "#{file} is not there")
  end

  test "what git tracks and a build reads is in the package" do
    package = Mix.Project.config()[:package]
    {tracked, 0} = System.cmd("git", ~w(ls-files lib native priv .cargo Cargo.toml Cargo.lock mix.exs bin))

    missing =
      for file <- String.split(tracked, "\n", trim: true),
          not Enum.any?(package[:files], &(file == &1 or String.starts_with?(file, &1 <> "/"))),
          do: file

    assert missing == []
  end
end
