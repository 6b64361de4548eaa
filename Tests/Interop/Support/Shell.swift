// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Runs lines of bash in a directory of their own, with the programs at hand and somebody's profile.
struct Shell {
  let directory: String
  /// Of who calls, unless a line says otherwise.
  let profile: String

  /// Runs lines that have to succeed, each of them, and returns their output.
  @discardableResult
  func succeed(_ lines: String) async throws -> String {
    let end = try await self.run("set -euo pipefail\n\(lines)", trace: true)
    try #require(end.status == 0, "\(end.output)\(end.errors)")
    return end.output
  }

  func run(_ lines: String, trace: Bool = false) async throws -> Program.End {
    let programs = try URL(filePath: Installed.product("btrpc")).deletingLastPathComponent().path()
    return try await Program.run(
      "/bin/bash", (trace ? ["-x"] : []) + ["-c", "cd \(self.directory)\n\(lines)"],
      environment: [
        "PATH": "\(programs):/usr/bin:/bin", "BLOCKTREE_PROFILE": self.profile, "LC_ALL": "C.UTF-8", "TZ": "UTC",
      ])
  }
}
