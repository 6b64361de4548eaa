// SPDX-License-Identifier: Apache-2.0

/// A name of DNS, absolute, without the dot at its end: labels of 1 to 63 letters, digits, `-` and `_`, with dots
/// between them. What has other characters is asked for in its form of such letters (`xn--...`).
package struct DNSName: Hashable, Sendable, CustomStringConvertible {
  /// RFC 1035, 2.3.4: 255 on the wire, where each label has a byte for its length, and the root one.
  package static let byteCountMax = 253
  package static let labelByteCountMax = 63

  /// In lower case, since DNS does not tell the two apart.
  package let description: String

  /// A dot at the end is allowed, and taken off: all names are absolute.
  package init(parsing text: String) throws(ResolverError) {
    // One more for the dot at the end. The error quotes only so much.
    guard text.utf8.count <= Self.byteCountMax + 1 else { throw .malformedName(String(text.prefix(64)) + "...") }
    let name = text.hasSuffix(".") ? String(text.dropLast()) : text
    let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard name.utf8.count <= Self.byteCountMax, labels.allSatisfy(Self.isLabel) else { throw .malformedName(text) }
    self.description = name.lowercased()
  }

  /// The name under which a service is announced: `_blocktree._tcp.example.org`.
  package func service(_ service: String) throws(ResolverError) -> DNSName {
    try DNSName(parsing: "\(service).\(self.description)")
  }

  private static func isLabel(_ label: some Collection<UInt8>) -> Bool {
    guard (1...Self.labelByteCountMax).contains(label.count) else { return false }
    return label.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
        true
      default: false
      }
    }
  }
}
