defmodule Tank.Store.Dashboard.Response do
  @moduledoc false
  # What a dashboard answers, with the headers of all its answers: nothing is kept, nothing comes from elsewhere, and no
  # other site shows it.

  alias Tank.Store.Dashboard.Html

  @enforce_keys [:status, :type, :body]
  defstruct [:status, :type, :body, headers: []]

  @type t :: %__MODULE__{
          status: pos_integer,
          type: String.t(),
          body: iodata,
          headers: [{String.t(), String.t()}]
        }

  @policy "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " <>
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

  @headers [
    {"cache-control", "no-store"},
    {"content-security-policy", @policy},
    {"cross-origin-opener-policy", "same-origin"},
    {"cross-origin-resource-policy", "same-origin"},
    {"referrer-policy", "no-referrer"},
    {"x-content-type-options", "nosniff"},
    {"x-frame-options", "DENY"}
  ]

  @doc "A page, or a part of one."
  @spec html(Html.t(), pos_integer, [{String.t(), String.t()}]) :: t
  def html(html, status \\ 200, headers \\ []),
    do: %__MODULE__{status: status, type: "text/html; charset=utf-8", body: Html.to_iodata(html), headers: headers}

  @doc "Something else."
  @spec new(String.t(), iodata, pos_integer) :: t
  def new(type, body, status \\ 200), do: %__MODULE__{status: status, type: type, body: body}

  @doc "Sends the browser to another page."
  @spec redirect(String.t(), [{String.t(), String.t()}]) :: t
  def redirect(to, headers),
    do: %__MODULE__{status: 303, type: "text/plain", body: "", headers: [{"location", to} | headers]}

  @doc "What httpd sends: a status with headers, and a body; without that for a `HEAD`."
  @spec to_httpd(t, head? :: boolean) :: {:response, keyword, iodata}
  def to_httpd(%__MODULE__{} = response, head?) do
    body = IO.iodata_to_binary(response.body)
    length = Integer.to_string(byte_size(body))
    headers = [{"content-type", response.type}, {"content-length", length}] ++ response.headers ++ @headers
    headers = for {name, value} <- headers, do: {String.to_charlist(name), String.to_charlist(value)}
    {:response, [{:code, response.status} | headers], if(head?, do: "", else: body)}
  end
end
