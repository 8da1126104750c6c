defmodule Tank.Khepri.Export do
  @moduledoc false
  # Export and import by callback modules, such as `Tank.Khepri.ExportErlang` and `mnesia_backup`. An item is
  # `{put, path, payload, options}`: what Khepri writes, and reads.

  import Tank.Khepri.Records

  alias Tank.Khepri.{Access, Core, Engine, Error, Path, Verbs}

  @spec export(atom, Path.pattern(), module, term) :: :ok | {:ok, term} | {:error, term}
  def export(store, path, module, private) when is_atom(module) do
    pattern = Access.pattern(path)

    with {:ok, view} <- Access.view_to_read(store, %{favor: :consistency}),
         {:ok, private} <- module.open_write(private),
         {:ok, private} <- write_all(view, pattern, module, private) do
      module.commit_write(private)
    end
  end

  defp write_all(view, pattern, module, private) do
    write = fn path, node, private -> write(view, module, path, node, private) end
    Core.fold(view, pattern, %{include_root_props: true}, private, write)
  catch
    :throw, {__MODULE__, error} -> error
  end

  defp write(view, module, path, {key, _props} = node, private) do
    payload = Engine.payload_of(node)
    options = if conditions = Engine.keep_while(view, key), do: %{keep_while: conditions}, else: %{}

    if payload == no_payload() and options == %{},
      do: private,
      else: written(module, private, {:put, path, payload, options})
  end

  defp written(module, private, item) do
    case guarded(fn -> module.write(private, [item]) end, fn -> module.abort_write(private) end) do
      {:ok, private} ->
        private

      {:error, _reason} = error ->
        _aborted = module.abort_write(private)
        throw({__MODULE__, error})
    end
  end

  # What a callback raises reaches the caller, once the other has cleaned up.
  defp guarded(fun, clean_up) do
    fun.()
  catch
    class, reason ->
      stacktrace = __STACKTRACE__
      quietly(clean_up)
      :erlang.raise(class, reason, stacktrace)
  end

  defp quietly(fun) do
    fun.()
  catch
    _class, _reason -> :ok
  end

  @spec import(atom, module, term) :: :ok | {:ok, term} | {:error, term}
  def import(store, module, private) when is_atom(store) and is_atom(module) do
    with {:ok, private} <- module.open_read(private), do: read(store, module, private)
  end

  defp read(store, module, private) do
    case guarded(fn -> module.read(private) end, fn -> module.close_read(private) end) do
      {:ok, [], private} ->
        module.close_read(private)

      {:ok, items, private} ->
        case put_all(store, items) do
          :ok -> read(store, module, private)
          error -> closed(module, private, error)
        end

      {:error, _reason} = error ->
        closed(module, private, error)
    end
  end

  defp closed(module, private, error) do
    _closed = module.close_read(private)
    error
  end

  defp put_all(store, items) do
    Enum.reduce_while(items, :ok, fn item, :ok ->
      case put(store, item) do
        {:ok, _written} -> {:cont, :ok}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  # A function that Khepri extracted is bytecode, which only Khepri runs.
  defp put(_store, {:put, path, p_sproc(sproc: sproc), _options}) when not is_function(sproc),
    do: {:error, Error.new(:sproc_of_another_khepri, %{path: path})}

  defp put(store, {:put, path, payload, options}) when is_payload(payload),
    do: Verbs.adv_put_many(store, path, payload, Map.put(options, :props_to_return, []))

  defp put(_store, other), do: {:error, Error.new(:unknown_backup_item, %{item: other})}
end
