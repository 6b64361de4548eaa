// SPDX-License-Identifier: Apache-2.0

/// The name of a service that a process hosts. The four of the system are here; programs may have their own, and a
/// process carries along the names that it does not know.
package struct Service: Hashable, Comparable, Sendable, CustomStringConvertible {
  package static let sector = Service(known: "sector")
  package static let filesystem = Service(known: "filesystem")
  package static let discovery = Service(known: "discovery")
  package static let relay = Service(known: "relay")

  /// No service, and no text is read as it: stands, where services are keys, for those who go on with a query.
  package static let queries = Service(known: "(queries)")

  /// The services that are part of every node.
  package static let all: [Service] = [.sector, .filesystem, .discovery, .relay]

  package static let byteCountMax = 64
  /// How many one process may have.
  package static let countMax = 64

  package let name: String

  /// Takes 1 to 64 of the characters a to z, 0 to 9, `-`, `.`, `_`, beginning with a letter.
  package init(_ name: String) throws(TrustError) {
    guard name.utf8.count <= Self.byteCountMax else { throw .tooLong }
    guard let first = name.utf8.first, Self.isLetter(first), name.utf8.allSatisfy(Self.isAllowed)
    else { throw .malformed }
    self.name = name
  }

  private init(known name: String) {
    self.name = name
  }

  package var description: String { self.name }

  package static func < (left: Self, right: Self) -> Bool {
    left.name.utf8.lexicographicallyPrecedes(right.name.utf8)
  }

  private static func isLetter(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    self.isLetter(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
      || [UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_")].contains(byte)
  }
}
