# bin/check includes :consumer, which needs a second build of the library. bin/nightly includes :long, which takes
# minutes a test, :browser, which needs Chromium, :faults, which needs root and breaks networks, disks and clocks, and
# :links, which takes hours on slow and distant links.
ExUnit.start(
  exclude: [:browser, :consumer, :long, :faults, :links, :promtool, :release],
  capture_log: true,
  formatters: [ExUnit.CLIFormatter, Tank.Store.FailuresLast]
)
