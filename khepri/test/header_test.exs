defmodule Khepri.HeaderTest do
  # Applications compile the records of the header in: those of the code must be the same.
  use ExUnit.Case, async: true

  require Record

  @header Path.expand("../include/khepri.hrl", __DIR__)

  for {name, record} <- [
        if_name_matches: quote(do: Tank.Khepri.Records.if_name_matches()),
        if_path_matches: quote(do: Tank.Khepri.Records.if_path_matches()),
        if_has_payload: quote(do: Tank.Khepri.Records.if_has_payload()),
        if_has_data: quote(do: Tank.Khepri.Records.if_has_data()),
        if_has_sproc: quote(do: Tank.Khepri.Records.if_has_sproc()),
        if_data_matches: quote(do: Tank.Khepri.Records.if_data_matches()),
        if_node_exists: quote(do: Tank.Khepri.Records.if_node_exists()),
        if_payload_version: quote(do: Tank.Khepri.Records.if_payload_version()),
        if_child_list_version: quote(do: Tank.Khepri.Records.if_child_list_version()),
        if_child_list_length: quote(do: Tank.Khepri.Records.if_child_list_length()),
        if_not: quote(do: Tank.Khepri.Records.if_not()),
        if_all: quote(do: Tank.Khepri.Records.if_all()),
        if_any: quote(do: Tank.Khepri.Records.if_any()),
        khepri_trigger: quote(do: Tank.Khepri.Records.khepri_trigger())
      ] do
    test "the record #{name} is that of the header" do
      require Tank.Khepri.Records
      fields = Record.extract(unquote(name), from: @header)
      assert List.to_tuple([unquote(name) | Keyword.values(fields)]) == unquote(record)
    end
  end

  test "a module of Erlang compiles with the header" do
    source = """
    -module(khepri_header_user).
    -export([pattern/0, is_path/1]).
    -include("include/khepri.hrl").
    pattern() -> [?KHEPRI_ROOT_NODE, ?KHEPRI_WILDCARD_STAR, ?KHEPRI_WILDCARD_STAR_STAR].
    is_path(Term) when ?IS_KHEPRI_PATH_PATTERN_OR_COMPAT(Term) andalso not ?IS_KHEPRI_CONDITION(Term) -> true;
    is_path(_) -> false.
    """

    dir = Path.join(System.tmp_dir!(), "khepri_header_#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    file = Path.join(dir, "khepri_header_user.erl")
    File.write!(file, source)
    options = [:binary, :return, :warnings_as_errors, i: String.to_charlist(Path.expand("..", __DIR__))]
    assert {:ok, module, binary, []} = :compile.file(String.to_charlist(file), options)
    {:module, ^module} = :code.load_binary(module, 'khepri_header_user', binary)
    assert module.pattern() == [?/, {:if_name_matches, :any, :undefined}, {:if_path_matches, :any, :undefined}]
    assert module.is_path([:foo]) and module.is_path("/:foo") and module.is_path('/:foo') and not module.is_path(:foo)
  end
end
