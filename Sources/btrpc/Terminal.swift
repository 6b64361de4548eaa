// SPDX-License-Identifier: Apache-2.0

private import Synchronization

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// What this program knows of the terminals that it talks to.
package enum Terminal {
  static var isOutputTerminal: Bool { isatty(STDOUT_FILENO) == 1 }
  static var isErrorTerminal: Bool { isatty(STDERR_FILENO) == 1 }

  /// Columns of the terminal on standard error.
  static var width: Int {
    var size = winsize()
    guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return Int(size.ws_col)
  }

  /// The text without characters that would make a terminal do something: control characters, and those that change
  /// the direction of text, as `\n`, `\u{1b}` and so on. A name from somewhere else must not be able to lie.
  package static func escaped(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: self.isDangerous) else { return text }
    var result = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      if !self.isDangerous(scalar) {
        result.append(scalar)
      } else {
        let escape =
          switch scalar {
          case "\n": "\\n"
          case "\t": "\\t"
          case "\r": "\\r"
          default: "\\u{\(String(scalar.value, radix: 16))}"
          }
        result.append(contentsOf: escape.unicodeScalars)
      }
    }
    return String(result)
  }

  private static func isDangerous(_ scalar: UnicodeScalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7F..<0xA0, 0x200E, 0x200F, 0x2028...0x202E, 0x2066...0x2069, 0xFEFF: true
    default: false
    }
  }
}

/// Whoever read our output has gone. There is nobody to tell.
struct PipeClosed: Error {}

/// Standard output and error of this process.
enum Standard {
  /// Prints a line of text; control characters in it are escaped on a terminal.
  static func line(_ text: String) throws {
    try self.write((Terminal.isOutputTerminal ? Terminal.escaped(text) : text) + "\n")
  }

  /// Prints as it is.
  static func write(_ text: String) throws {
    try self.write(Array(text.utf8))
  }

  static func write(_ bytes: [UInt8]) throws {
    let isFull = self.buffer.withLock { buffer in
      buffer.append(contentsOf: bytes)
      return buffer.count >= 64 << 10
    }
    if isFull { try self.flush() }
  }

  /// Hands over what was printed. Before anything else writes to the same descriptor, and at the end.
  static func flush() throws {
    let bytes = self.buffer.withLock { buffer in
      defer { buffer.removeAll(keepingCapacity: true) }
      return buffer
    }
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count < 0 && errno == EPIPE { throw PipeClosed() }
      guard count > 0 else { throw CommandFailure("standard output: \(String(cString: strerror(errno)))") }
      rest.removeFirst(count)
    }
  }

  static func flushQuietly() { try? self.flush() }

  private static let buffer = Mutex<[UInt8]>([])

  /// Prints a line on standard error.
  static func complain(_ line: String) {
    self.writeError(line + "\n")
  }

  static func writeError(_ text: String) {
    let bytes = Array(text.utf8)
    // Nobody is left to be told if this fails.
    _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
  }
}
