// SPDX-License-Identifier: Apache-2.0

/// Names as the text format allows them, made of whatever a program calls its metrics and labels.
enum MetricName {
  static let byteCountMax = 128

  /// Replaces each byte that a name may not have by `_`; nil for what is empty or too long.
  static func metric(_ text: String) -> String? {
    self.make(text) { self.isLetter($0) || $0 == UInt8(ascii: ":") }
  }

  /// The same for the name of a label. Names that begin with `__` are the reader's own, and so are `le` and `quantile`,
  /// which say what a value of a histogram or summary is: nil for those.
  static func label(_ text: String) -> String? {
    guard let name = self.make(text, self.isLetter), !name.hasPrefix("__"), name != "le", name != "quantile" else {
      return nil
    }
    return name
  }

  private static func make(_ text: String, _ isAllowed: (UInt8) -> Bool) -> String? {
    guard !text.isEmpty, text.utf8.count <= self.byteCountMax else { return nil }
    var bytes = text.utf8.map { isAllowed($0) || self.isDigit($0) ? $0 : UInt8(ascii: "_") }
    if self.isDigit(bytes[0]) { bytes.insert(UInt8(ascii: "_"), at: 0) }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func isLetter(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): true
    default: false
    }
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }
}
