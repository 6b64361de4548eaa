// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization
internal import Trust

/// One open connection of a server: who is at its other end, and the streams whose calls have not begun yet.
final class ServerConnection: Sendable {
  let identity: ConnectionIdentity
  let channel: any Channel
  let budget: ReceiveBudget
  private let streams = Mutex(Streams())

  private struct Streams {
    var next: UInt64 = 0
    var waiting: [UInt64: StreamBudget] = [:]
  }

  init(_ identity: ConnectionIdentity, channel: any Channel, budget: ReceiveBudget) {
    self.identity = identity
    self.channel = channel
    self.budget = budget
  }

  /// Notes a stream, and returns what its call will find in ``StreamGate/headerName``.
  func begin(_ budget: StreamBudget) -> StreamToken {
    let number = self.streams.withLock { streams in
      streams.next += 1
      streams.waiting[streams.next] = budget
      return streams.next
    }
    return StreamToken(connection: self.identity.id.description, number: number)
  }

  /// The call of the stream begins.
  func take(_ token: StreamToken) -> StreamBudget? {
    self.streams.withLock { $0.waiting.removeValue(forKey: token.number) }
  }
}

/// The value of the reserved header: which connection, and which of its streams.
struct StreamToken: Hashable, Sendable, CustomStringConvertible {
  /// The digits of a ``ConnectionID``.
  let connection: String
  let number: UInt64

  init(connection: String, number: UInt64) {
    self.connection = connection
    self.number = number
  }

  init?(_ text: String) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let number = UInt64(parts[1], radix: 16) else { return nil }
    self.init(connection: String(parts[0]), number: number)
  }

  var description: String { "\(self.connection)-\(String(self.number, radix: 16))" }
}
