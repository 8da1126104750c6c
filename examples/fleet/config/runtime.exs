import Config

# The environment of a node says where its data is and which nodes there are.
nodes = "FLEET_NODES" |> System.get_env("") |> String.split(",", trim: true) |> Enum.map(&String.to_atom/1)

config :fleet,
  data_dir: System.get_env("FLEET_DATA", "fleet_data"),
  nodes: nodes,
  dashboard_port: "FLEET_DASHBOARD_PORT" |> System.get_env("4040") |> String.to_integer()
