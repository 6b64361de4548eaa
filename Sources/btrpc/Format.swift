// SPDX-License-Identifier: Apache-2.0

package import BlocktreeClient

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Numbers, times and modes as people like to read them.
package enum Format {
  /// `0`, `999`, `1.0K`, `12K`, `1.5M`: powers of 1,024, rounded up, as `ls -h` does.
  package static func size(_ byteCount: UInt64) -> String {
    let units = ["K", "M", "G", "T", "P", "E"]
    guard byteCount >= 1024 else { return "\(byteCount)" }
    var value = Double(byteCount)
    var unit = -1
    while value >= 1024, unit + 1 < units.count {
      value /= 1024
      unit += 1
    }
    let tenths = (value * 10).rounded(.up)
    // Rounding may lead into the next unit.
    if tenths >= 10_240, unit + 1 < units.count { return "1.0\(units[unit + 1])" }
    if tenths < 100 { return "\(Int(tenths) / 10).\(Int(tenths) % 10)\(units[unit])" }
    return "\(Int(value.rounded(.up)))\(units[unit])"
  }

  /// `12.3 MiB (12,897,485 bytes)`.
  package static func exactSize(_ byteCount: UInt64) -> String {
    let exact = "\(self.grouped(byteCount)) byte\(byteCount == 1 ? "" : "s")"
    if byteCount < 1024 { return exact }
    let size = self.size(byteCount)
    return "\(size.dropLast()) \(size.suffix(1))iB (\(exact))"
  }

  package static func grouped(_ number: UInt64) -> String {
    var text = ""
    for (index, digit) in "\(number)".reversed().enumerated() {
      if index > 0, index % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return String(text.reversed())
  }

  /// `2026-03-01 12:00:05` in this machine's time zone.
  package static func time(_ time: Timestamp, seconds: Bool = false) -> String {
    var clock = time_t(time.seconds)
    var parts = tm()
    guard localtime_r(&clock, &parts) != nil else { return time.description }
    let date =
      "\(self.padded(Int(parts.tm_year) + 1900, 4))-\(self.padded(parts.tm_mon + 1))-\(self.padded(parts.tm_mday))"
    let time = "\(self.padded(parts.tm_hour)):\(self.padded(parts.tm_min))"
    return seconds ? "\(date) \(time):\(self.padded(parts.tm_sec))" : "\(date) \(time)"
  }

  /// `-rw-r--r--`, with a `+` behind it for an access list.
  package static func mode(_ mode: FileMode, _ type: FileType, hasAccessList: Bool = false) -> String {
    var text =
      switch type {
      case .directory: "d"
      case .symbolicLink: "l"
      case .credential: "c"
      case .superblock: "s"
      default: "-"
      }
    for (shift, special, letter) in [(6, 0o4000, "s"), (3, 0o2000, "s"), (0, 0o1000, "t")] {
      let bits = Int(mode.rawValue) >> shift & 7
      text += bits & 4 != 0 ? "r" : "-"
      text += bits & 2 != 0 ? "w" : "-"
      if Int(mode.rawValue) & special != 0 {
        text += bits & 1 != 0 ? letter : letter.uppercased()
      } else {
        text += bits & 1 != 0 ? "x" : "-"
      }
    }
    return hasAccessList ? text + "+" : text
  }

  /// `1m 05s`, `12s`, `0.4s`.
  package static func duration(_ duration: Duration) -> String {
    let milliseconds = duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
    if milliseconds < 10_000 { return "\(milliseconds / 1000).\(milliseconds % 1000 / 100)s" }
    let seconds = milliseconds / 1000
    if seconds < 60 { return "\(seconds)s" }
    if seconds < 3600 { return "\(seconds / 60)m \(self.padded(Int(seconds % 60)))s" }
    return "\(seconds / 3600)h \(self.padded(Int(seconds / 60 % 60)))m"
  }

  /// How long so many more bytes take, as `1m 05s`. Nil when that can not be told, or is more than a hundred hours: a
  /// size is what the other side says, up to 2^64-1, and the rate may be next to nothing.
  package static func timeLeft(byteCount: UInt64, bytesPerSecond: Double) -> String? {
    let seconds = Double(byteCount) / bytesPerSecond
    return seconds < 360_000 ? self.duration(.milliseconds(Int64(seconds * 1000))) : nil
  }

  package static func hex(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }

  /// Rows with their columns aligned; the columns named in `right` to the right. The last column is not padded.
  package static func table(_ rows: [[String]], right: Set<Int> = []) -> [String] {
    var widths: [Int] = []
    for row in rows {
      for (column, cell) in row.enumerated() {
        if column == widths.count { widths.append(0) }
        widths[column] = max(widths[column], cell.count)
      }
    }
    return rows.map { row in
      row.enumerated().map { column, cell in
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        if right.contains(column) { return padding + cell }
        return column == row.count - 1 ? cell : cell + padding
      }.joined(separator: "  ")
    }
  }

  private static func padded(_ value: some BinaryInteger, _ width: Int = 2) -> String {
    let digits = "\(value)"
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
  }
}
