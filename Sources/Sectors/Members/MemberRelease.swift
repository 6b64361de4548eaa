// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
package import Raft
internal import SwiftProtobuf
package import Transport
package import Trust

/// Asks another process whether this one may leave its store behind: the caller's side of `MemberService.Release`.
package enum MemberRelease {
  package enum Answer: Hashable, Sendable {
    case granted
    /// Another process leads, this one if it is known.
    case notLeader(SectorLeader?)
    /// Why not, as the leader said; see ``ReleaseError``.
    case refused(ReleaseError.Cause?)
  }

  /// Addresses of a leader that are taken from an answer.
  private static let addressCountMax = 16
  /// For one answer: the leader waits for the others to have everything.
  private static let timeout = Duration.seconds(8)

  /// - Parameters:
  ///   - member: the id of the store that is damaged; nil where it is not known.
  ///   - path: the process that has to answer.
  ///   - addresses: tried in turn.
  /// - Throws: what the last attempt threw when nobody answers: `TransportError` or `StatusDetails`; also for an answer
  ///   that is none of ``Answer``.
  package static func ask(
    generation: UInt64, member: MemberID?, of path: TreePath, at addresses: [NetworkAddress], dialer: Dialer
  ) async throws -> Answer {
    var failure: any Error = TransportError.closed
    for address in addresses {
      do {
        return try await dialer.withConnection(to: address, expecting: path) { connection in
          try await self.ask(generation, member, connection)
        }
      } catch {
        try Task.checkCancellation()
        failure = error
      }
    }
    throw failure
  }

  private static func ask(
    _ generation: UInt64, _ member: MemberID?, _ connection: NodeConnection
  ) async throws -> Answer {
    let client = Blocktree_V1_MemberService.Client(wrapping: connection.client)
    var options = CallOptions.defaults
    options.timeout = self.timeout
    let request = Blocktree_V1_ReleaseRequest.with {
      $0.generation = generation
      $0.member = member?.rawValue ?? 0
    }
    do {
      _ = try await client.release(request, options: options)
      return .granted
    } catch {
      let details = StatusDetails(describing: error)
      switch details.reason {
      case "NOT_LEADER": return .notLeader(self.leader(details.metadata))
      case "RELEASE_REFUSED": return .refused(details.metadata["cause"].flatMap { ReleaseError.Cause(rawValue: $0) })
      default: throw details
      }
    }
  }

  private static func leader(_ metadata: [String: String]) -> SectorLeader? {
    guard let path = metadata["leader"].flatMap({ try? TreePath(parsing: $0) }) else { return nil }
    let texts = metadata["addresses", default: ""].split(separator: ",").prefix(self.addressCountMax)
    return SectorLeader(path: path, addresses: texts.compactMap { try? NetworkAddress(parsing: String($0)) })
  }
}
