Code.require_file("../../test/support/failures_last.ex", __DIR__)
# Logs of tests that ran at the same time would hide what failed.
Logger.configure(level: :warning)

ExUnit.start(
  capture_log: true,
  # A busy machine answers later than ExUnit waits by default.
  assert_receive_timeout: 5_000,
  formatters: [ExUnit.CLIFormatter, Tank.Store.FailuresLast]
)
