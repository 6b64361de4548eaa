// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The peak of resident memory of a process (proc_pid_status(5), VmHWM).
struct Memory: Sendable {
  let pid: Int32

  /// Begins anew with what is resident now (proc_pid_clear_refs(5)). Where that is not permitted the peak is that since
  /// the process began.
  func reset() {
    guard let file = FileHandle(forWritingAtPath: "/proc/\(self.pid)/clear_refs") else { return }
    try? file.write(contentsOf: Data("5\n".utf8))
    try? file.close()
  }

  /// In millions of bytes; nil when the process is gone.
  var peak: Double? {
    guard let text = try? String(contentsOfFile: "/proc/\(self.pid)/status", encoding: .utf8) else { return nil }
    for line in text.split(separator: "\n") where line.hasPrefix("VmHWM:") {
      return line.split(separator: " ").dropFirst().first.flatMap { Double($0) }.map { $0 * 1_024 / 1e6 }
    }
    return nil
  }
}
