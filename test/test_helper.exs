# bin/test includes :consumer, which needs a second build of the library. bin/nightly includes :long, which takes
# minutes a test, and :faults, which needs root and breaks networks, disks and clocks.
ExUnit.start(
  exclude: [:consumer, :long, :faults],
  capture_log: true,
  formatters: [ExUnit.CLIFormatter, Tank.Store.FailuresLast]
)
