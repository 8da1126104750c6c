defmodule Tank.Store.TreePeer do
  @moduledoc "What tests of `Tank.Store.Tree` run on nodes: functions that need code there."

  alias Tank.Store.Tree

  @doc "Adds one to each counter, `times` times, each in a transaction of its own. Gives how many were committed."
  def increment(store, paths, times) do
    for _ <- 1..times, path <- paths, reduce: 0 do
      committed ->
        add = fn tx -> Tree.put!(tx, path, Tree.get!(tx, path) + 1) end
        {:ok, _revision} = Tree.transaction(store, add, retries: 10_000, timeout: 60_000)
        committed + 1
    end
  end

  @doc "Moves one from a path to another, and gives the sum of all accounts as the transaction saw it."
  def move(store, from, to) do
    Tree.transaction(
      store,
      fn tx ->
        {accounts, _revision} = Tree.get_many!(tx, [:accounts, :*])
        Tree.put!(tx, from, Map.fetch!(accounts, from) - 1)
        Tree.put!(tx, to, Tree.get!(tx, to) + 1)
        Enum.sum(Map.values(accounts))
      end,
      retries: 10_000,
      timeout: 60_000
    )
  end

  @doc "Moves from account to account until `stop/0`; then gives every sum that was seen."
  def start_moving(store, accounts) do
    spawn(fn ->
      Process.register(self(), __MODULE__)
      move_on(store, accounts, [])
    end)

    :ok
  end

  @doc "Ends what `start_moving/2` began."
  def stop do
    ref = make_ref()
    send(__MODULE__, {:stop, self(), ref})
    receive do: ({^ref, sums} -> sums)
  end

  defp move_on(store, accounts, sums) do
    receive do
      {:stop, pid, ref} -> send(pid, {ref, sums})
    after
      0 ->
        [from, to] = Enum.take_random(accounts, 2)

        case move(store, from, to) do
          {:ok, sum} -> move_on(store, accounts, [sum | sums])
          {:error, _no_leader_for_now} -> move_on(store, accounts, sums)
        end
    end
  end
end
