// SPDX-License-Identifier: Apache-2.0

/// A place in a certain domain: `bt://<domain id>/a/b`.
///
/// The canonical text, which certificates carry, is a URI: the bytes that RFC 3986 calls unreserved (letters, digits,
/// `-`, `.`, `_`, `~`) stand for themselves, and each other byte of a component is written as `%` and two upper-case
/// hexadecimal digits. So each path has exactly one canonical text, and the text gives back exactly its bytes.
package struct DomainPath: Hashable, Comparable, Sendable, CustomStringConvertible {
  package static let scheme = "bt://"

  package let domain: DomainID
  package let path: TreePath

  package init(domain: DomainID, path: TreePath) {
    self.domain = domain
    self.path = path
  }

  /// For what people and programs type: takes the canonical text, and also accepts bytes that should have been
  /// percent-encoded (`bt://…/my file`) and hexadecimal digits of either case. A `%` always begins an encoded byte.
  package init(parsing text: String) throws(PathError) {
    let bytes = Array(text.utf8)
    guard bytes.starts(with: Self.scheme.utf8) else { throw .invalidURI }
    let domainEnd = Self.scheme.utf8.count + DomainID.characterCount
    guard bytes.count > domainEnd else { throw .invalidURI }
    self.domain = try DomainID(parsing: bytes[Self.scheme.utf8.count..<domainEnd])
    // Split first, decode then: an encoded slash is a slash in a name, and refused as such.
    let encoded = bytes[domainEnd...]
    guard encoded.first == UInt8(ascii: "/") else { throw .invalidURI }
    if encoded.count == 1 {
      self.path = .root
      return
    }
    var components: [PathComponent] = []
    for part in encoded.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
      components.append(try PathComponent(bytes: Self.decode(part)))
    }
    self.path = try TreePath(components)
  }

  /// For certificates: takes the canonical text and nothing else.
  package init(canonical text: String) throws(PathError) {
    let parsed = try DomainPath(parsing: text)
    guard parsed.uri.utf8.elementsEqual(text.utf8) else { throw .invalidURI }
    self = parsed
  }

  /// The canonical text.
  package var uri: String {
    let digits = Array("0123456789ABCDEF".utf8)
    var text = Array(Self.scheme.utf8)
    text.append(contentsOf: self.domain.description.utf8)
    for byte in self.path.bytes {
      if byte == UInt8(ascii: "/") || Self.isUnreserved(byte) {
        text.append(byte)
      } else {
        text.append(UInt8(ascii: "%"))
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
      }
    }
    return String(decoding: text, as: UTF8.self)
  }

  package var description: String { self.uri }

  package static func < (left: Self, right: Self) -> Bool {
    (left.domain, left.path) < (right.domain, right.path)
  }

  // RFC 3986, 2.3.
  private static func isUnreserved(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
      UInt8(ascii: "~"):
      true
    default: false
    }
  }

  private static func decode(_ text: ArraySlice<UInt8>) throws(PathError) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = text
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%") {
        guard let high = rest.popFirst().flatMap(self.digit), let low = rest.popFirst().flatMap(self.digit)
        else { throw .invalidURI }
        bytes.append(high << 4 | low)
      } else {
        bytes.append(byte)
      }
    }
    return bytes
  }

  private static func digit(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
