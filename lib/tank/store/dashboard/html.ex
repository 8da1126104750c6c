defmodule Tank.Store.Dashboard.Html do
  @moduledoc false
  # HTML as data. All that is text is escaped: markup comes only from here.
  #
  #     el(:p, [class: "note"], ["from ", el(:code, "<script>")])

  @typedoc "Elements; and text, numbers and atoms, which are escaped; nil is nothing."
  @type t :: {:safe, iodata} | String.t() | number | atom | [t]
  @type attributes :: [{atom | String.t(), String.t() | number | atom | boolean | nil}]

  @void [:br, :input, :link, :meta]

  @doc "An element. Attributes that are nil or false are left out."
  @spec el(atom, attributes, t) :: t
  def el(name, attributes \\ [], content)

  def el(name, attributes, _none) when name in @void, do: {:safe, ["<", to_string(name), attributes(attributes), ">"]}

  def el(name, attributes, content) do
    name = to_string(name)
    {:safe, ["<", name, attributes(attributes), ">", to_iodata(content), "</", name, ">"]}
  end

  @doc "Its text."
  @spec to_iodata(t) :: iodata
  def to_iodata(nil), do: []
  def to_iodata({:safe, iodata}), do: iodata
  def to_iodata(text) when is_binary(text), do: escape(text)
  def to_iodata(list) when is_list(list), do: Enum.map(list, &to_iodata/1)
  def to_iodata(other), do: other |> to_string() |> escape()

  defp attributes(attributes) do
    for {name, value} <- attributes, value not in [nil, false] do
      if value == true,
        do: [" ", to_string(name)],
        else: [" ", to_string(name), ~s(="), escape(to_string(value)), ~s(")]
    end
  end

  defp escape(text) do
    for <<byte <- text>>, into: "", do: escape_byte(byte)
  end

  defp escape_byte(?<), do: "&lt;"
  defp escape_byte(?>), do: "&gt;"
  defp escape_byte(?&), do: "&amp;"
  defp escape_byte(?"), do: "&quot;"
  defp escape_byte(?'), do: "&#39;"
  defp escape_byte(byte), do: <<byte>>
end
