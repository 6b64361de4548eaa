// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Lines for standard output and standard error, written at once.
enum Output {
  static func line(_ text: String) { self.write(text + "\n", to: STDOUT_FILENO) }

  static func text(_ text: String) { self.write(text, to: STDOUT_FILENO) }

  static func error(_ text: String) { self.write(text + "\n", to: STDERR_FILENO) }

  private static func write(_ text: String, to file: Int32) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { return }
      rest.removeFirst(count)
    }
  }
}
