// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
package import Trust

/// Where a server listens. As a ``NetworkAddress``, but port 0 stands for any free port.
package struct ListenAddress: Hashable, Sendable, CustomStringConvertible {
  /// A host name or an IP address, without brackets.
  package let host: String
  package let port: UInt16

  package init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }

  package init(_ address: NetworkAddress) {
    self.init(host: address.host, port: address.port)
  }

  /// Reads `host:port` or `[v6]:port`.
  package init(parsing text: String) throws(TrustError) {
    if text.hasSuffix(":0") {
      // Anything else about the text is checked with a port that is a port.
      let address = try NetworkAddress(parsing: text.dropLast() + "1")
      self.init(host: address.host, port: 0)
    } else {
      self.init(try NetworkAddress(parsing: text))
    }
  }

  package var description: String {
    self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
  }
}

extension NetworkAddress {
  init?(_ address: SocketAddress) {
    guard let host = address.ipAddress, let port = address.port.flatMap({ UInt16(exactly: $0) }) else { return nil }
    try? self.init(host: host, port: port)
  }
}
