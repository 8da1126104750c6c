defmodule Tank.Store.MetricsTest do
  use Tank.Store.TankCase, async: true

  alias Tank.Store.{Cluster, Metrics, Status, Tree}

  @moduletag :tmp_dir

  # A strict reader of the text format, version 0.0.4: {name, labels} => value, and the types.
  defp parse(text) do
    # Without a store there is nothing to say.
    assert text == "" or String.ends_with?(text, "\n")

    text
    |> String.split("\n", trim: true)
    |> Enum.reduce(%{samples: %{}, types: %{}, family: nil}, &line/2)
  end

  defp line("# HELP " <> rest, acc) do
    [name, help] = String.split(rest, " ", parts: 2)
    assert name =~ ~r/^[a-z_]+$/ and help != ""
    refute Map.has_key?(acc.types, name), "#{name} comes twice"
    %{acc | family: name}
  end

  defp line("# TYPE " <> rest, acc) do
    [name, type] = String.split(rest, " ")
    assert name == acc.family and type in ["counter", "gauge", "histogram"]
    if type == "counter", do: assert(String.ends_with?(name, "_total"))
    put_in(acc.types[name], type)
  end

  defp line(sample, acc) do
    assert [_all, name, labels, value] =
             Regex.run(~r/^([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+)\} (\S+)$/, sample)

    assert String.starts_with?(name, acc.family), "#{name} is not of the family #{acc.family}"

    labels =
      for [_all, label, text] <- Regex.scan(~r/([a-z_]+)="((?:[^"\\]|\\.)*)"/, labels), into: %{}, do: {label, text}

    {number, ""} = Float.parse(value)
    refute Map.has_key?(acc.samples, {name, labels}), "#{name} #{inspect(labels)} comes twice"
    put_in(acc.samples[{name, labels}], number)
  end

  defp of(parsed, store, name, labels \\ %{}),
    do: parsed.samples[{"tank_store_" <> name, Map.put(labels, "store_id", escape(store))}]

  defp escape(store), do: store |> to_string() |> String.replace("\\", "\\\\") |> String.replace("\"", "\\\"")

  test "the text is what Prometheus reads, and says what was done", %{tmp_dir: dir} do
    store = start_store(dir, value_bytes_max: 100)
    for n <- 1..20, do: Tree.put!(store, [:a, n |> to_string()], n)
    {:error, {:too_large, _what, _limit}} = Tree.put(store, [:a], String.duplicate("x", 1_000))
    parsed = parse(Metrics.prometheus())

    assert of(parsed, store, "up") == 1
    assert of(parsed, store, "leader") == 1
    assert of(parsed, store, "quorum") == 1
    assert of(parsed, store, "failed") == 0
    assert of(parsed, store, "entries") == 20
    assert of(parsed, store, "revision") == 20
    assert of(parsed, store, "members") == 1
    assert of(parsed, store, "calls_total", %{"kind" => "write", "result" => "ok"}) == 20
    assert of(parsed, store, "calls_total", %{"kind" => "write", "result" => "refused"}) == 1
    assert of(parsed, store, "call_duration_seconds_count", %{"kind" => "write"}) == 21
    assert of(parsed, store, "call_duration_seconds_sum", %{"kind" => "write"}) > 0
    assert of(parsed, store, "sync_duration_seconds_count") >= 20
    assert of(parsed, store, "apply_duration_seconds_count") >= 20

    # Cumulative, and the last one has all.
    for name <- ["sync_duration_seconds", "apply_duration_seconds"] do
      buckets =
        for {{"tank_store_" <> bucket, labels}, count} <- parsed.samples,
            bucket == name <> "_bucket" and labels["store_id"] == escape(store),
            do: {bound(labels["le"]), count}

      counts = buckets |> Enum.sort() |> Enum.map(&elem(&1, 1))
      assert counts == Enum.sort(counts) and length(counts) == 17
      assert List.last(counts) == of(parsed, store, name <> "_count")
    end
  end

  defp bound("+Inf"), do: :infinity
  defp bound(text), do: text |> Float.parse() |> elem(0)

  test "ids of stores are escaped, and alarms and failures are told", %{tmp_dir: dir} do
    store = start_store(dir, store_id: :"a\"b\\c")
    File.rename!(dir, dir <> "_away")

    eventually("the alarm", fn ->
      parsed = parse(Metrics.prometheus())
      of(parsed, store, "alarm", %{"alarm" => "directory_lost"}) == 1 and of(parsed, store, "failed") == 1
    end)

    File.rename!(dir <> "_away", dir)
    eventually("the end of the alarm", fn -> of(parse(Metrics.prometheus()), store, "failed") == 0 end)
  end

  test "a scrape while stores crash, open and close gives a text each time", %{tmp_dir: dir} do
    stores = for n <- 1..3, do: start_store(Path.join(dir, "#{n}"))
    scraper = Task.async(fn -> for _n <- 1..100, do: parse(Metrics.prometheus()) end)

    for store <- stores do
      kill_server(store)
      :ok = Cluster.stop(store)
    end

    assert length(Task.await(scraper, 60_000)) == 100
    refute Metrics.prometheus() =~ to_string(hd(stores))
  end

  test "the status is a struct", %{tmp_dir: dir} do
    store = start_store(dir)
    assert {:ok, %Status{role: :leader, store_id: ^store, members: [%{lag: 0}]} = status} = Cluster.status(store)
    assert Map.keys(Map.from_struct(status)) -- Map.keys(%Status{}) == []
  end

  test "the dashboard and the alert rules use metrics that exist", %{tmp_dir: dir} do
    start_store(dir)
    {:docs_v1, _line, _language, _format, %{"en" => doc}, _meta, _functions} = Code.fetch_docs(Metrics)
    files = Path.wildcard("ops/*")
    assert length(files) >= 2

    for file <- files, [_all, name] <- Regex.scan(~r/tank_store_([a-z_]+)/, File.read!(file)) do
      name = String.replace(name, ~r/_(bucket|sum|count)$/, "")
      assert doc =~ "`#{name}`", "#{file}: there is no metric tank_store_#{name}"
    end

    {names, []} = Enum.split_with(Map.keys(parse(Metrics.prometheus()).types), &String.starts_with?(&1, "tank_store_"))
    for "tank_store_" <> name <- names, do: assert(doc =~ "`#{name}`", "#{name} is not documented")
  end
end
