// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
private import Synchronization

/// Hands out inode numbers from blocks that the sector service gave. What is left of a block when the process ends
/// stays unused.
final class InodeNumbers: Sendable {
  private let sectors: SectorGroup
  private let block = Mutex<Range<UInt64>>(0..<0)
  private let refill = CombiningQueue<Never, Never>(batchCountMax: 1)

  private static let blockCount: UInt32 = 4_096

  init(sectors: SectorGroup) { self.sectors = sectors }

  func next() async throws(FilesystemError) -> FileID {
    while true {
      if let number = self.take() {
        return FileID(generation: self.sectors.generation, inode: InodeNumber(number))
      }
      let result = await self.refill.alone { () async -> Result<Void, SectorError> in
        if !self.block.withLock({ $0.isEmpty }) { return .success(()) }
        do throws(SectorError) {
          let first = try await self.sectors.allocateInodes(Self.blockCount)
          self.block.withLock { $0 = first..<first + UInt64(Self.blockCount) }
          return .success(())
        } catch {
          return .failure(error)
        }
      }
      do { try result.get() } catch { throw FilesystemError(error, sectorSize: self.sectors.sectorSize) }
    }
  }

  private func take() -> UInt64? {
    self.block.withLock { block in
      guard let first = block.first else { return nil }
      block = first + 1..<block.upperBound
      return first
    }
  }
}
