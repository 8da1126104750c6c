defmodule Tank.Store.Dashboard.Access do
  @moduledoc false
  # Who may see a dashboard: a browser that shows its token, in a link at first, and then in a cookie.
  #
  # Tokens are compared by their digests, in a time that tells nothing. Wrong ones are logged at most once in ten seconds;
  # after twenty within ten seconds the next ones are answered with 429. The right one always passes.

  alias Tank.Store.Dashboard.{Context, Request}
  alias Tank.Store.Log

  @wrong_max 20
  @window_ms 10_000
  # The cookie ends with the browser's session, or after this.
  @cookie_seconds 7 * 24 * 3600

  @type verdict :: :ok | {:enter, cookie :: String.t()} | :unknown | :wrong | :too_many

  @doc "Whether a request may be answered. `{:enter, cookie}`: it showed the token in its link, and is to keep it as a cookie."
  @spec check(Context.t(), Request.t()) :: verdict
  def check(context, %Request{query: %{"token" => token}} = request) do
    if right?(context, token), do: {:enter, cookie(request, token)}, else: wrong(context)
  end

  def check(context, request) do
    case request.cookies[cookie_name(request)] do
      nil -> :unknown
      token -> if right?(context, decode(token)), do: :ok, else: wrong(context)
    end
  end

  defp right?(context, token), do: :crypto.hash_equals(Context.digest(token), context.digest.())

  defp wrong(context) do
    now = System.monotonic_time(:millisecond)
    log_wrong(context, now)
    if count(context, now) > @wrong_max, do: :too_many, else: :wrong
  end

  # Two processes may begin a window at once: then a few more are let through.
  defp count(%{noted: noted}, now) do
    {since, wrong} = {Context.slot(:wrong_since), Context.slot(:wrong)}

    if :atomics.get(noted, wrong) == 0 or now - :atomics.get(noted, since) >= @window_ms do
      :atomics.put(noted, since, now)
      :atomics.put(noted, wrong, 0)
    end

    :atomics.add_get(noted, wrong, 1)
  end

  defp log_wrong(%{noted: noted, store_id: store_id}, now) do
    slot = Context.slot(:wrong_logged)
    last = :atomics.get(noted, slot)

    # One of those that come at once logs.
    if Log.due?(last, now) and :atomics.compare_exchange(noted, slot, last, now) == :ok do
      Log.log(store_id, :warning, :dashboard, fn ->
        "store #{inspect(store_id)}: somebody showed the dashboard a wrong token"
      end)
    end
  end

  # `Lax`: a link from elsewhere leads to a page that the browser may see. Nothing here changes anything.
  defp cookie(request, token),
    do: "#{cookie_name(request)}=#{encode(token)}; Path=/; Max-Age=#{@cookie_seconds}; HttpOnly; SameSite=Lax"

  # Browsers send the cookies of all ports.
  defp cookie_name(request), do: "tank_dashboard_#{request.port}"

  # A token may hold what a cookie may not.
  defp encode(token), do: Base.url_encode64(token, padding: false)

  defp decode(text) do
    case Base.url_decode64(text, padding: false) do
      {:ok, token} -> token
      :error -> text
    end
  end
end
