// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
package import Logging

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Writes each event as one line to standard error, as text or as a JSON object. A line is written with one system
/// call, so lines of several threads do not mix.
package struct LineLogHandler: LogHandler {
  package var metadata: Logger.Metadata = [:]
  package var logLevel: Logger.Level
  package var metadataProvider: Logger.MetadataProvider?
  private let format: NodeConfiguration.LogFormat
  private let write: @Sendable ([UInt8]) -> Void

  package init(
    level: Logger.Level, format: NodeConfiguration.LogFormat,
    write: @escaping @Sendable ([UInt8]) -> Void = { LineLogHandler.writeToStandardError($0) }
  ) {
    self.logLevel = level
    self.format = format
    self.write = write
  }

  package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { self.metadata[key] }
    set { self.metadata[key] = newValue }
  }

  package func log(event: LogEvent) {
    var metadata = self.metadataProvider?.get() ?? [:]
    metadata.merge(self.metadata) { _, new in new }
    if let more = event.metadata { metadata.merge(more) { _, new in new } }
    if let error = event.error { metadata["error"] = "\(error)" }
    let time = Self.timestamp(WallClock.nanoseconds())
    let line =
      switch self.format {
      case .text: Self.text(time, event, metadata)
      case .json: Self.json(time, event, metadata)
      }
    self.write(Array((line + "\n").utf8))
  }

  // MARK: Lines

  private static func text(_ time: String, _ event: LogEvent, _ metadata: Logger.Metadata) -> String {
    var line = "\(time) \(event.level.rawValue) \(event.message)"
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      let text = "\(value)"
      // What came from elsewhere must not look like another line, or another key.
      let isPlain =
        !text.isEmpty
        && text.unicodeScalars.allSatisfy { !$0.properties.isWhitespace && !Self.isEscaped($0) && $0 != "\"" }
      line += " \(key)=" + (isPlain ? text : Self.quoted(text))
    }
    return line
  }

  private static func json(_ time: String, _ event: LogEvent, _ metadata: Logger.Metadata) -> String {
    var line = "{\"time\":\"\(time)\",\"level\":\"\(event.level.rawValue)\",\"message\":"
    line += Self.quoted(event.message.description)
    if !metadata.isEmpty { line += ",\"metadata\":" + Self.json(.dictionary(metadata)) }
    return line + "}"
  }

  private static func json(_ value: Logger.MetadataValue) -> String {
    switch value {
    case .string(let text): Self.quoted(text)
    case .stringConvertible(let value): Self.quoted(value.description)
    case .array(let values): "[" + values.map { Self.json($0) }.joined(separator: ",") + "]"
    case .dictionary(let values):
      "{"
        + values.sorted { $0.key < $1.key }.map { "\(Self.quoted($0.key)):\(Self.json($0.value))" }
        .joined(separator: ",") + "}"
    }
  }

  /// Whether a scalar must not get as it is to a terminal, or to whoever reads the log line by line. All of them have at
  /// most four hexadecimal digits.
  private static func isEscaped(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    // Controls, those of ISO 6429 included, which begin sequences as ESC does.
    case 0...0x1f, 0x7f...0x9f: true
    // What ends a line or paragraph.
    case 0x2028, 0x2029: true
    // What changes the direction of the text that follows (Unicode, UAX 9).
    case 0x202a...0x202e, 0x2066...0x2069: true
    default: false
    }
  }

  /// A JSON string.
  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case _ where Self.isEscaped(scalar):
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }

  /// UTC, in milliseconds: `2031-01-02T03:04:05.678Z`.
  private static func timestamp(_ nanoseconds: Int64) -> String {
    var seconds = time_t(nanoseconds / 1_000_000_000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func padded(_ number: Int, _ count: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(count - digits.count, 0)) + digits
    }
    let date = [padded(Int(parts.tm_year) + 1900, 4), padded(Int(parts.tm_mon) + 1, 2), padded(Int(parts.tm_mday), 2)]
    let clock = [padded(Int(parts.tm_hour), 2), padded(Int(parts.tm_min), 2), padded(Int(parts.tm_sec), 2)]
    let milliseconds = padded(Int(nanoseconds % 1_000_000_000 / 1_000_000), 3)
    return "\(date.joined(separator: "-"))T\(clock.joined(separator: ":")).\(milliseconds)Z"
  }

  package static func writeToStandardError(_ bytes: [UInt8]) {
    // Nobody can be told when this fails.
    bytes.withUnsafeBytes { _ = Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}
