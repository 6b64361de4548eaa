// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
package import SectorStore
internal import SwiftProtobuf
package import Transport

/// Fetches blocks from another member, over a connection of its own.
package struct BlockSource: Sendable {
  private let generation: UInt64
  private let dialer: Dialer

  package init(generation: UInt64, dialer: Dialer) {
    self.generation = generation
    self.dialer = dialer
  }

  /// What a member has of these blocks, in their order; nil for one that it does not have just so. What it says is not
  /// believed before the checksum is: the store sees to that.
  ///
  /// - Throws: what the last attempt threw when no address answers as it should: `TransportError`, `StatusDetails`,
  ///   `MemberError`.
  package func fetch(_ blocks: [WantedBlock], from peer: MemberPeer) async throws -> [[UInt8]?] {
    var failure: any Error = TransportError.closed
    for address in peer.addresses {
      do {
        return try await self.dialer.withConnection(to: address, expecting: peer.path) { connection in
          try await self.fetch(blocks, over: connection)
        }
      } catch {
        try Task.checkCancellation()
        failure = error
      }
    }
    throw failure
  }

  private func fetch(_ blocks: [WantedBlock], over connection: NodeConnection) async throws -> [[UInt8]?] {
    let client = Blocktree_V1_RepairService.Client(wrapping: connection.client)
    var options = CallOptions.defaults
    options.timeout = RepairLimits.timeout
    var found: [[UInt8]?] = []
    while found.count < blocks.count {
      let part = blocks[found.count...].prefix(RepairLimits.blocksMax)
      let request = Blocktree_V1_FetchBlocksRequest.with {
        $0.generation = self.generation
        $0.blocks = part.map(Blocktree_V1_WantedBlock.init)
      }
      do {
        let response = try await client.fetchBlocks(request, options: options)
        guard response.blocks.count == part.count else { throw MemberError.invalid(field: "blocks") }
        found += response.blocks.map { $0.bytes.isEmpty ? nil : [UInt8]($0.bytes) }
      } catch let error as MemberError {
        throw error
      } catch {
        throw StatusDetails(describing: error)
      }
    }
    return found
  }
}
