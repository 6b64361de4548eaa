// SPDX-License-Identifier: Apache-2.0

package import SectorStore

/// Changes that follow from their place in the log alone, so that a store can be checked without knowing its history:
/// change n goes to inode n mod 8 + 1, and writes its number all over.
package enum CrashWorkload {
  package static let inodeCount: UInt64 = 8

  package static var configuration: StoreConfiguration {
    var configuration = StoreConfiguration(generation: 1, sectorSize: 4_096)
    configuration.segmentBytes = 256 << 10
    configuration.checkpointBytes = 40 << 10
    configuration.growthBytes = 1 << 20
    configuration.reservedBytes = 0
    configuration.readerCount = 1
    return configuration
  }

  package static func change(_ number: UInt64, seed: UInt64) -> Change {
    let inode = number % self.inodeCount + 1
    var change = Change(term: 1)
    change.records = [
      .put(StoredRecord(inode: inode, version: number, bytes: self.bytes(number, seed, 600), parents: [number % 3 + 1]))
    ]
    change.truncations = [.init(inode: inode, keptCounts: [])]
    change.blocks = [
      BlockWrite(
        inode: inode, level: 0, index: number % 100, bytes: self.bytes(number, seed, 4_096 * self.sectorCount(number)),
        blockSize: 4_096),
      BlockWrite(inode: inode, level: 1, index: 0, bytes: self.bytes(number, ~seed, 4_096), blockSize: 4_096),
    ]
    change.facts = [.init(key: "last", value: self.bytes(number, seed, 16))]
    return change
  }

  /// The first thing that is not as it is after `applied` changes.
  package static func difference(_ store: SectorStore, seed: UInt64, applied: UInt64) -> String? {
    do throws(StoreError) {
      if applied > 0, try store.fact("last") != self.bytes(applied, seed, 16) { return "fact of \(applied)" }
      for inode in 1...self.inodeCount {
        let behind = (applied + self.inodeCount + 1 - inode) % self.inodeCount
        guard applied > behind, applied - behind > 0 else {
          if try store.record(inode) != nil { return "record of \(inode)" }
          continue
        }
        let number = applied - behind
        let change = self.change(number, seed: seed)
        guard let record = try store.record(inode), .put(record) == change.records[0] else {
          return "record of \(inode)"
        }
        for write in change.blocks {
          let end = write.index + UInt64(write.count)
          let range = try store.readBlocking(inode: inode, level: write.level, indexes: 0..<end + 2)
          let start = Int(write.index) * write.blockSize
          guard Array(range.bytes[start..<start + write.bytes.count]) == Array(write.bytes),
            range.indexes.allSatisfy({ (range[$0] == nil) != (write.index..<end).contains($0) })
          else { return "blocks of \(inode)" }
        }
      }
      return nil
    } catch {
      return "\(error)"
    }
  }

  private static func sectorCount(_ number: UInt64) -> Int { number % 17 == 0 ? 40 : Int(number % 3) + 1 }

  private static func bytes(_ number: UInt64, _ seed: UInt64, _ count: Int) -> [UInt8] {
    let word = (number &+ seed) &* 0x9E37_79B9_7F4A_7C15
    return [UInt64](repeating: word, count: (count + 7) / 8).withUnsafeBytes { Array($0.prefix(count)) }
  }
}
