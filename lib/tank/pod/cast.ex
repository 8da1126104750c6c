if Application.compile_env(:tank_store, :define_pod, true) do
  defmodule Tank.Pod.Cast do
    @moduledoc false
    # Turns what a person writes (maps, keyword lists, structs, nested as they like) into one of
    # the pod structs. A struct says which fields it has and how each is checked; how fields are
    # found, which defaults hold and where a problem lies is the same for all and lives here.

    alias Tank.Pod.Problem

    @typedoc "`:error` means the value itself is wrong; a problem says what is wrong inside it."
    @type checked(value) :: {:ok, value} | :error | {:error, Problem.t()}

    @typedoc "A field, the tag of the reason when its value is wrong, and the check."
    @type field :: {atom(), atom(), (term() -> checked(term()))}

    @type built :: {:ok, struct()} | {:error, Problem.t()}

    @doc "Builds a struct of `module`; `{tag, input}` is the reason when `input` has no fields."
    @spec build(term(), module(), atom(), [field()]) :: built()
    def build(input, module, tag, fields) do
      known = for {field, _tag, _check} <- fields, do: field

      with {:ok, pairs} <- pairs(input, module, tag),
           {:ok, given} <- known_only(pairs, known) do
        check_all(fields, Map.merge(module.__struct__(), given))
      end
    end

    @doc "The public answer of `new/1`."
    @spec answer(built()) :: {:ok, struct()} | {:error, term()}
    def answer({:ok, struct}), do: {:ok, struct}
    def answer({:error, %Problem{reason: reason}}), do: {:error, reason}

    @doc "The public answer of `new!/1`."
    @spec answer!(built(), module(), term()) :: struct()
    def answer!({:ok, struct}, _module, _input), do: struct

    def answer!({:error, problem}, module, input) do
      raise ArgumentError, Problem.message(problem, module, input)
    end

    @doc "A proper list, every element built by `cast`."
    @spec list(term(), (term() -> built())) :: checked([struct()])
    def list(items, cast) when is_list(items) do
      if List.improper?(items), do: :error, else: each(items, 0, cast, [])
    end

    def list(_other, _cast), do: :error

    @doc "Refuses items that share what `key` gives, with the reason `{tag, shared}`, sorted."
    @spec unique([struct()], (struct() -> term()), atom()) :: checked([struct()])
    def unique(items, key, tag) do
      keys = Enum.map(items, key)

      case Enum.uniq(keys -- Enum.uniq(keys)) do
        [] -> {:ok, items}
        shared -> problem({tag, Enum.sort(shared)})
      end
    end

    @doc "A problem found right here."
    @spec problem(term()) :: {:error, Problem.t()}
    def problem(reason), do: {:error, %Problem{reason: reason}}

    # A struct is taken apart and checked like any map: it may have been put together by hand.
    defp pairs(%{__struct__: module} = struct, module, _tag) do
      {:ok, struct |> Map.delete(:__struct__) |> Map.to_list()}
    end

    defp pairs(%{__struct__: _other} = struct, _module, tag), do: problem({tag, struct})
    defp pairs(map, _module, _tag) when is_map(map), do: {:ok, Map.to_list(map)}

    defp pairs(input, _module, tag) do
      if Keyword.keyword?(input), do: {:ok, input}, else: problem({tag, input})
    end

    defp known_only(pairs, known) do
      named = for {key, value} <- pairs, do: {field(key, known), key, value}
      unknown = for {nil, key, _value} <- named, do: key
      fields = for {{:field, field}, _key, _value} <- named, do: field
      twice = Enum.uniq(fields -- Enum.uniq(fields))

      cond do
        unknown != [] -> unknown_keys(unknown, known)
        twice != [] -> problem({:duplicate_keys, Enum.sort(twice)})
        true -> {:ok, for({{:field, field}, _key, value} <- named, into: %{}, do: {field, value})}
      end
    end

    defp unknown_keys(unknown, known) do
      keys = unknown |> Enum.uniq() |> Enum.sort()
      {:error, %Problem{reason: {:unknown_keys, keys}, known: known}}
    end

    # Strings are compared with the fields there are, so that no input ever becomes an atom.
    defp field(key, known) when is_atom(key), do: if(key in known, do: {:field, key})

    defp field(key, known) when is_binary(key) do
      Enum.find_value(known, &if(Atom.to_string(&1) == key, do: {:field, &1}))
    end

    defp field(_key, _known), do: nil

    defp check_all([], struct), do: {:ok, struct}

    defp check_all([{field, tag, check} | rest], struct) do
      value = Map.fetch!(struct, field)

      case check.(value) do
        {:ok, checked} -> check_all(rest, Map.put(struct, field, checked))
        :error -> {:error, %Problem{reason: {tag, value}, path: [field]}}
        {:error, problem} -> {:error, Problem.at(problem, field)}
      end
    end

    defp each([], _index, _cast, done), do: {:ok, Enum.reverse(done)}

    defp each([item | rest], index, cast, done) do
      case cast.(item) do
        {:ok, struct} -> each(rest, index + 1, cast, [struct | done])
        {:error, problem} -> {:error, Problem.at(problem, {index, item})}
      end
    end
  end
end
