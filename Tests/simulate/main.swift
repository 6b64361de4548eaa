// SPDX-License-Identifier: Apache-2.0

import Glibc

let simulate = Simulate(options: Options(CommandLine.arguments.dropFirst()))
if simulate.options.has("--help") {
  print(Simulate.usage)
} else if simulate.options.has("--measure") {
  measure()
  measureFailover()
} else if simulate.run() > 0 {
  exit(1)
}
