# Khepri's modules. Each has the functions of the one that it names, where they are documented.

defmodule :khepri do
  @moduledoc "See `Tank.Khepri`."
  use Tank.Khepri.Delegate, to: Tank.Khepri
end

defmodule :khepri_adv do
  @moduledoc "See `Tank.Khepri.Adv`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Adv
end

defmodule :khepri_tx do
  @moduledoc "See `Tank.Khepri.Tx`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Tx
end

defmodule :khepri_tx_adv do
  @moduledoc "See `Tank.Khepri.TxAdv`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.TxAdv
end

defmodule :khepri_cluster do
  @moduledoc "See `Tank.Khepri.Cluster`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Cluster
end

defmodule :khepri_path do
  @moduledoc "See `Tank.Khepri.Path`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Path
end

defmodule :khepri_condition do
  @moduledoc "See `Tank.Khepri.Condition`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Condition
end

defmodule :khepri_payload do
  @moduledoc "See `Tank.Khepri.Payload`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Payload
end

defmodule :khepri_evf do
  @moduledoc "See `Tank.Khepri.Evf`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Evf
end

defmodule :khepri_projection do
  @moduledoc "See `Tank.Khepri.Projection`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Projection
end

defmodule :khepri_export_erlang do
  @moduledoc "See `Tank.Khepri.ExportErlang`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.ExportErlang
end

defmodule :khepri_machine do
  @moduledoc "What is left of Khepri's state machine: the version that stores behave as."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Machine
end

defmodule :khepri_app do
  @moduledoc "See `Tank.Khepri.App`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.App
end

defmodule :khepri_utils do
  @moduledoc "See `Tank.Khepri.Utils`."
  use Tank.Khepri.Delegate, to: Tank.Khepri.Utils
end
