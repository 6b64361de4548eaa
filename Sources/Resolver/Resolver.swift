// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Whom to ask, and for how long.
package struct ResolverConfiguration: Hashable, Sendable {
  /// The most servers that may be given. (What the system names is its own affair.)
  package static let serverCountMax = 8

  /// Empty for those of the system, which stand in `/etc/resolv.conf`. When some are given, `/etc/hosts` is not read,
  /// either.
  package var servers: [NameServer] = []
  /// For the whole look-up, however many questions that takes.
  package var timeout: Duration = .seconds(10)
  /// How long each server has for the first attempt at a question. Later ones may take twice as long each time.
  package var attemptTimeout: Duration = .seconds(2)
  /// How often each server is asked.
  package var attemptCount = 3

  package init() {}

  /// Reads servers from a list with commas; see ``NameServer/init(parsing:)``.
  package static func servers(parsing text: String) throws(ResolverError) -> [NameServer] {
    var servers: [NameServer] = []
    for part in text.split(separator: ",") {
      guard servers.count < Self.serverCountMax else { throw .malformedServer(String(part.prefix(64))) }
      servers.append(try NameServer(parsing: String(part.filter { $0 != " " })))
    }
    return servers
  }
}

/// An address that DNS gives, and a port.
package struct ResolvedAddress: Hashable, Sendable {
  /// IPv4 or IPv6, as text without brackets, and with its zone if it has one.
  package let host: String
  /// 1 to 65,535.
  package let port: UInt16

  package init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }
}

/// Finds out by DNS where a domain's processes are. Copies share a limit of look-ups.
///
/// What it answers are hints, which anybody on the way may have made up: who is there has to prove it.
package struct Resolver: Sendable {
  /// What SRV records are looked up under, before the name.
  package static let service = "_blocktree._tcp"
  /// Used where there are no SRV records.
  package static let defaultPort: UInt16 = 7777
  /// SRV records that are considered. An answer could have thousands.
  package static let recordCountMax = 256
  /// Of these, how many targets are looked up.
  package static let targetCountMax = 16
  /// How many addresses one answer has at most.
  package static let addressCountMax = 64
  /// Look-ups at a time, as each has a thread.
  package static let lookupCountMax = 8

  private final class Count: Sendable {
    let running = Mutex(0)
  }

  private let configuration: ResolverConfiguration
  /// Shared with all copies.
  private let count = Count()

  package init(_ configuration: ResolverConfiguration = ResolverConfiguration()) {
    self.configuration = configuration
  }

  /// The addresses that the SRV records of `_blocktree._tcp.<name>` lead to, in the order of RFC 2782; where there are
  /// no such records, those of the name itself, with ``defaultPort``. Never empty.
  ///
  /// Targets that have no address are passed over, as long as another one has. Cancelling the task ends the look-up
  /// soon, with `CancellationError`; when this returns, nothing of it is left.
  ///
  /// - Parameter random: decides among targets of equal priority.
  /// - Throws: ``ResolverError``, `CancellationError`.
  package func addresses(
    of name: DNSName, using random: inout some RandomNumberGenerator
  ) async throws -> [ResolvedAddress] {
    // The thread takes a generator of its own along, begun with a number from the caller's.
    let seed = random.next()
    let question = Question(name: name, service: try name.service(Self.service), defaultPort: Self.defaultPort)
    try Task.checkCancellation()
    let isFree = self.count.running.withLock { count in
      guard count < Self.lookupCountMax else { return false }
      count += 1
      return true
    }
    guard isFree else { throw ResolverError.busy }
    defer { self.count.running.withLock { $0 -= 1 } }
    let cancellation = try LookupCancellation()
    let configuration = self.configuration
    let result: Result<[ResolvedAddress], LookupEnd> = await withTaskCancellationHandler {
      // Resumed as the last thing that the thread does.
      await withCheckedContinuation { continuation in
        let isStarted = LookupThread.start {
          let result = Result { () throws(LookupEnd) in
            try Lookup.run(question, configuration, seed: seed, cancellation)
          }
          continuation.resume(returning: result)
        }
        if !isStarted {
          continuation.resume(returning: .failure(.error(.unavailable(reason: "there is no thread left"))))
        }
      }
    } onCancel: {
      cancellation.cancel()
    }
    switch result {
    case .success(let addresses): return addresses
    case .failure(.cancelled): throw CancellationError()
    case .failure(.error(let error)): throw error
    }
  }
}

/// What a look-up is about.
struct Question: Sendable {
  let name: DNSName
  /// The name that its SRV records have.
  let service: DNSName
  let defaultPort: UInt16
}

/// How a look-up ends without an answer.
enum LookupEnd: Error {
  case cancelled
  case error(ResolverError)
}
