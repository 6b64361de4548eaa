// SPDX-License-Identifier: Apache-2.0

package import SectorStore
internal import Synchronization

extension SectorGroup {
  /// From now on, reads that meet damage have it healed from the other members, and then read again.
  package func setHealer(_ healer: SectorHealer) { self.healer.withLock { $0 = healer } }

  /// Has healed what somebody has met in another way than by reading blocks.
  ///
  /// - Returns: whether it is worth to try again.
  package func heal(_ place: DamagePlace) async -> Bool {
    guard let healer = self.healer.withLock({ $0 }) else { return false }
    guard case .block(let inode, let level, let index) = place else { return await healer.healForRead([place]) }
    // Damage seldom comes alone.
    let first = index & ~UInt64(RepairLimits.blocksMax - 1)
    return await healer.healForRead(
      (first..<first + UInt64(RepairLimits.blocksMax)).map { .block(inode: inode, level: level, index: $0) })
  }

  /// Reads a piece of a snapshot; blocks that are damaged are healed first where that can be done.
  static func readHealing<Piece: Sendable>(
    _ heal: @Sendable (DamagePlace) async -> Bool, _ read: @Sendable () async throws(StoreError) -> Piece
  ) async throws(StoreError) -> Piece {
    var healed: Set<DamagePlace> = []
    while true {
      do throws(StoreError) {
        return try await read()
      } catch {
        guard case .damaged(let place) = error, case .block = place, healed.insert(place).inserted, await heal(place)
        else { throw error }
      }
    }
  }

  /// As `SectorStore.read`; what is damaged is healed first where that can be done.
  func readHealing(
    inode: UInt64, level: UInt8, indexes: Range<UInt64>, version: UInt64? = nil
  ) async throws(StoreError) -> BlockRange {
    var healed: Set<DamagePlace> = []
    while true {
      do throws(StoreError) {
        return try await self.store.read(inode: inode, level: level, indexes: indexes, version: version)
      } catch {
        // A place that is damaged again right after it was healed is of another version, or the disk is broken.
        guard case .damaged(let place) = error, case .block(_, _, let first) = place, !healed.contains(place),
          let healer = self.healer.withLock({ $0 })
        else { throw error }
        // Damage seldom comes alone, and what comes after it in this read has not been looked at yet.
        let end = min(indexes.upperBound, first + UInt64(RepairLimits.blocksMax))
        let places = (first..<max(end, first + 1)).map { DamagePlace.block(inode: inode, level: level, index: $0) }
        guard await healer.healForRead(places) else { throw error }
        healed.formUnion(places)
      }
    }
  }
}
