// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// A DNS server by address and port.
package struct NameServer: Hashable, Sendable, CustomStringConvertible {
  /// `127.0.0.1:53`, `[::1]:53`.
  package let description: String

  /// Reads an IPv4 or IPv6 address, the latter in brackets if a port follows, and perhaps a port: 53 otherwise.
  package init(parsing text: String) throws(ResolverError) {
    // Longer than any such text.
    guard text.utf8.count <= 64 else { throw .malformedServer(String(text.prefix(64)) + "...") }
    if Self.isAddress(text, AF_INET6) {
      self.description = "[\(text)]:53"
    } else if Self.isAddress(text, AF_INET) {
      self.description = "\(text):53"
    } else {
      guard let colon = text.lastIndex(of: ":") else { throw .malformedServer(text) }
      let (host, digits) = (text[..<colon], text[text.index(after: colon)...])
      guard let port = UInt16(digits), port > 0, String(port) == digits else { throw .malformedServer(text) }
      if host.hasPrefix("["), host.hasSuffix("]") {
        guard Self.isAddress(host.dropFirst().dropLast(), AF_INET6) else { throw .malformedServer(text) }
      } else {
        guard Self.isAddress(host, AF_INET) else { throw .malformedServer(text) }
      }
      self.description = text
    }
  }

  private static func isAddress(_ text: some StringProtocol, _ family: Int32) -> Bool {
    var address = in6_addr()
    // Large enough for both families; `inet_pton` writes 4 or 16 bytes.
    return inet_pton(family, String(text), &address) == 1
  }
}
