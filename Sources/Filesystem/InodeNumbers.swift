// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
private import Synchronization

/// Hands out inode numbers from blocks that the sector services gave. What is left of a block when the process ends
/// stays unused.
final class InodeNumbers: Sendable {
  private let blocks = Mutex<[Generation: Range<UInt64>]>([:])
  /// One for each generation: a cluster that is slow holds up nobody else.
  private let refills = Mutex<[Generation: CombiningQueue<Never, Never>]>([:])

  private static let blockCount: UInt32 = 4_096

  /// The next number of a volume's generation.
  func next(in volume: any Volume) async throws(FilesystemError) -> FileID {
    while true {
      if let number = self.take(volume.generation) {
        return FileID(generation: volume.generation, inode: InodeNumber(number))
      }
      let refill = self.refills.withLock { refills in
        let queue = refills[volume.generation] ?? CombiningQueue<Never, Never>(batchCountMax: 1)
        refills[volume.generation] = queue
        return queue
      }
      let result = await refill.alone { () async -> Result<Void, SectorError> in
        if self.blocks.withLock({ $0[volume.generation]?.isEmpty == false }) { return .success(()) }
        do throws(SectorError) {
          let first = try await volume.allocateInodes(Self.blockCount)
          self.blocks.withLock { $0[volume.generation] = first..<first + UInt64(Self.blockCount) }
          return .success(())
        } catch {
          return .failure(error)
        }
      }
      do { try result.get() } catch { throw FilesystemError(error, sectorSize: volume.sectorSize) }
    }
  }

  private func take(_ generation: Generation) -> UInt64? {
    self.blocks.withLock { blocks in
      guard let block = blocks[generation], let first = block.first else { return nil }
      blocks[generation] = first + 1..<block.upperBound
      return first
    }
  }
}
