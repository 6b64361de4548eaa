// SPDX-License-Identifier: Apache-2.0

/// Where a process can be reached: `host:port`, with IPv6 addresses in brackets. Whether the host exists is not asked.
package struct NetworkAddress: Hashable, Sendable, CustomStringConvertible {
  /// How many one process may have.
  package static let countMax = 16
  package static let hostByteCountMax = 255
  /// Of the text: host, brackets, colon, and five digits.
  package static let byteCountMax = hostByteCountMax + 8

  /// A host name or an IP address, without brackets: 1 to 255 letters, digits, `.`, `-`, `_`, `:` or `%`.
  package let host: String
  /// 1 to 65,535.
  package let port: UInt16

  package init(host: String, port: UInt16) throws(TrustError) {
    guard host.utf8.count <= Self.hostByteCountMax else { throw .tooLong }
    guard !host.isEmpty, port != 0, host.utf8.allSatisfy(Self.isAllowed) else { throw .malformed }
    self.host = host
    self.port = port
  }

  package init(parsing text: String) throws(TrustError) {
    guard text.utf8.count <= Self.byteCountMax else { throw .tooLong }
    guard let colon = text.lastIndex(of: ":") else { throw .malformed }
    let digits = text[text.index(after: colon)...]
    // `UInt16` would take a sign and leading zeros, which give one address two texts.
    guard let port = UInt16(digits), String(port) == digits else { throw .malformed }
    let host = text[..<colon]
    if host.hasPrefix("[") && host.hasSuffix("]") && host.contains(":") {
      try self.init(host: String(host.dropFirst().dropLast()), port: port)
    } else {
      guard !host.contains(":") else { throw .malformed }
      try self.init(host: String(host), port: port)
    }
  }

  package var description: String {
    self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"),
      UInt8(ascii: ":"), UInt8(ascii: "%"):
      true
    default: false
    }
  }
}
