// SPDX-License-Identifier: Apache-2.0

/// Why a name gives no addresses.
package enum ResolverError: Error, Hashable, Sendable {
  /// It is no name that DNS could know, and nobody was asked.
  case malformedName(String)
  /// It is not `address:port`, or is one of more servers than ``ResolverConfiguration/serverCountMax``.
  case malformedServer(String)
  /// There is no such name, or it has neither services nor addresses.
  case notFound(DNSName)
  /// The name says that there is no such service there. (RFC 2782: the target is ".".)
  case notOffered(DNSName)
  /// No server answered in time.
  case noAnswer(DNSName)
  /// The servers could not be reached, or did not want to, or could not say; for people, what c-ares makes of it.
  case failed(DNSName, reason: String)
  /// As many look-ups as may be are under way.
  case busy
  /// This machine lacks what a look-up needs: memory, descriptors, a thread.
  case unavailable(reason: String)
}

extension ResolverError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .malformedName(let text): "\"\(text)\" is no DNS name"
    case .malformedServer(let text): "\"\(text)\" is no DNS server: it takes the form address:port"
    case .notFound(let name): "DNS has no processes and no addresses for \(name)"
    case .notOffered(let name): "DNS says that \(name) does not offer the service"
    case .noAnswer(let name): "no DNS server answered in time when asked for \(name)"
    case .failed(let name, let reason): "DNS did not say where \(name) is: \(reason)"
    case .busy: "too many names are being looked up at once"
    case .unavailable(let reason): "can not look names up: \(reason)"
    }
  }
}
