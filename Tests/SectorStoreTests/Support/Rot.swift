// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore

/// Changes bytes behind a store's back.
enum Rot {
  static func size(_ path: String) throws -> Int {
    let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
    defer { try? handle.close() }
    return Int(try handle.seekToEnd())
  }

  /// Flips bits of one byte.
  static func flip(_ path: String, at offset: Int, mask: UInt8 = 0x10) throws {
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    defer { try? handle.close() }
    try handle.seek(toOffset: UInt64(offset))
    guard let byte = try handle.read(upToCount: 1)?.first else { return }
    try handle.seek(toOffset: UInt64(offset))
    try handle.write(contentsOf: Data([byte ^ mask]))
  }

  /// Where some bytes stand in a file.
  static func find(_ bytes: [UInt8], in path: String) throws -> [Int] {
    let contents = try Data(contentsOf: URL(fileURLWithPath: path))
    var (found, start) = ([Int](), contents.startIndex)
    while let range = contents.range(of: Data(bytes), in: start..<contents.endIndex) {
      found.append(range.lowerBound)
      start = range.upperBound
    }
    return found
  }
}

/// All steps of one pass.
struct ScrubPass {
  var damaged: [DamagePlace] = []
  var omittedCount = 0
  var byteCount = 0
  var blockCount = 0
  var stepCount = 0

  init(_ store: SectorStore, byteCountMax: Int = 200_000) async throws(StoreError) {
    var cursor: ScrubCursor?
    repeat {
      let step = try await store.scrubStep(after: cursor, byteCountMax: byteCountMax)
      self.damaged += step.damaged.filter { !self.damaged.contains($0) }
      self.omittedCount += step.omittedCount
      self.byteCount += step.byteCount
      self.blockCount += step.blockCount
      self.stepCount += 1
      // As it is kept over a restart.
      cursor = step.next.flatMap { ScrubCursor(encoded: $0.encoded()) }
      guard cursor == step.next else { throw StoreError.failed("a cursor came back as another") }
    } while cursor != nil
  }
}

extension SectorStore {
  /// Repairs a place with the help of another member; what came of it in the end.
  func heal(_ place: DamagePlace, from other: SectorStore) async throws(StoreError) -> RepairOutcome {
    let outcome = try await self.repair(place)
    guard case .needsBlock(let wanted) = outcome, let bytes = try await other.block(wanted) else { return outcome }
    return try await self.repair(wanted, with: bytes)
  }
}
