// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import GRPCCore
internal import Inodes
internal import SectorStore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// Every bound on what members ask of one another to heal their copies.
package enum RepairLimits {
  /// Blocks of one request. With the largest sectors they are 4 MiB.
  package static let blocksMax = 64
  /// For one answer.
  package static let timeout = Duration.seconds(10)
  /// Places that reads have healed at the same time. One more fails with the damage that it met.
  package static let concurrentHealsMax = 16
  /// A place that could not be healed is not tried again by reads for so long.
  package static let pause = Duration.seconds(10)
  /// So many of these are remembered.
  package static let pausedMax = 1_024
}

/// Gives other members of the group blocks that are damaged there. All members store the same, though in other places.
package struct RepairServiceHandler: Blocktree_V1_RepairService.SimpleServiceProtocol {
  private let group: SectorGroup

  package init(_ group: SectorGroup) { self.group = group }

  package func fetchBlocks(
    request: Blocktree_V1_FetchBlocksRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FetchBlocksResponse {
    guard case .credential(let caller) = context.caller, caller.kind == .process, self.group.isMember(caller) else {
      throw MemberError.permissionDenied
    }
    let generation = self.group.generation.rawValue
    guard request.generation == generation else { throw MemberError.wrongGeneration(generation) }
    guard !request.blocks.isEmpty else { throw MemberError.invalid(field: "blocks") }
    guard request.blocks.count <= RepairLimits.blocksMax else {
      throw MemberError.tooLarge("blocks", limit: RepairLimits.blocksMax, found: request.blocks.count)
    }
    var response = Blocktree_V1_FetchBlocksResponse()
    response.blocks.reserveCapacity(request.blocks.count)
    for block in try request.blocks.map(WantedBlock.init) {
      let bytes = try await self.bytes(of: block)
      response.blocks.append(.with { $0.bytes = Data(bytes) })
    }
    return response
  }

  /// Empty where this member has none such, for whatever reason.
  private func bytes(of block: WantedBlock) async throws -> [UInt8] {
    do throws(StoreError) {
      return try await self.group.store.block(block) ?? []
    } catch {
      switch error {
      case .failed, .closed: throw MemberError.notServing
      // Damaged here, too.
      default: return []
      }
    }
  }
}

extension WantedBlock {
  /// Throws `invalid` with the name of the field that is.
  init(_ block: Blocktree_V1_WantedBlock) throws(MemberError) {
    guard block.inode > 0, block.inode < 1 << 63 else { throw .invalid(field: "inode") }
    guard let level = UInt8(exactly: block.level) else { throw .invalid(field: "level") }
    self.init(inode: block.inode, level: level, index: block.index, checksum: block.checksum)
  }
}

extension Blocktree_V1_WantedBlock {
  init(_ block: WantedBlock) {
    self.init()
    self.inode = block.inode
    self.level = UInt32(block.level)
    self.index = block.index
    self.checksum = block.checksum
  }
}
