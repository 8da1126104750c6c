defmodule Tank.Store.Room do
  @moduledoc false
  # Room on the calling process's heap for a large result of about known size.
  #
  # What a NIF makes and the heap has no room for stands beside the heap, and right afterwards the garbage collector
  # copies all of it into a larger one, which takes as long as making it did. So the heap is made large enough before,
  # while there is little on it. Binaries beside the heap count too: many new ones start a collection.

  @doc """
  Calls `fun` with room for `heap_words` on the heap, and for `binary_words` of binaries.

  A caller that bounds its heap (`:max_heap_size`) is left alone: an estimate must not end it.
  """
  @spec with(non_neg_integer, non_neg_integer, (() -> result)) :: result when result: term
  def with(heap_words, binary_words, fun) do
    case Process.info(self(), [:max_heap_size, :heap_size]) do
      [{:max_heap_size, %{size: 0}}, {:heap_size, heap_size}] ->
        # The caller's own, of which nobody knows how much is garbage, needs room too.
        with_flags(heap_words + min(heap_size, heap_words), 2 * binary_words, fun)

      _bounded ->
        fun.()
    end
  end

  defp with_flags(heap_words, binary_words, fun) do
    binaries_before = raise_flag(:min_bin_vheap_size, binary_words)
    heap_before = raise_flag(:min_heap_size, heap_words)

    try do
      # The flags take effect with a collection, which copies only what is new and alive.
      :erlang.garbage_collect(self(), type: :minor)
      fun.()
    after
      Process.flag(:min_heap_size, heap_before)
      Process.flag(:min_bin_vheap_size, binaries_before)
    end
  end

  # Returns what it was, to set it back.
  defp raise_flag(flag, words) do
    before = Process.flag(flag, words)
    if before > words, do: Process.flag(flag, before)
    before
  end
end
