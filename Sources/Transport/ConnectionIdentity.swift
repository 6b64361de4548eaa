// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
package import Trust

/// Names one connection within this process. Drawn at random, 128 bits: nobody outside can guess it.
package struct ConnectionID: Hashable, Sendable, CustomStringConvertible {
  /// 32 hexadecimal digits.
  package let description: String

  init() {
    var generator = SystemRandomNumberGenerator()  // From the kernel, fit for secrets.
    self.description = [generator.next(), generator.next()].map { (word: UInt64) in
      let digits = String(word, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
  }
}

/// Who is at the other end of a connection, as its TLS handshake proved.
package struct ConnectionIdentity: Sendable, ServerContext.TransportSpecific {
  package let id: ConnectionID
  /// From the verified certificate chain; anonymous where the client showed none.
  package let caller: Caller
  /// For logs, such as `ipv4:10.0.0.7:51312`. No proof of anything.
  package let remoteAddress: String
}

extension ServerContext {
  /// The connection that the call came in on. Nothing, when another transport than ours serves the call.
  package var connection: ConnectionIdentity? { self.transportSpecific as? ConnectionIdentity }

  /// Who calls. The only source is the verified chain of the connection; without one, the caller is anonymous.
  package var caller: Caller { self.connection?.caller ?? .anonymous }
}
