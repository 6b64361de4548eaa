// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import Inodes
internal import SectorStore
internal import SwiftProtobuf

extension Blocktree_V1_ClusterScrub {
  package init(_ status: ScrubStatus, generation: Generation) {
    self.init()
    if let running = status.running { self.running = .init(running) }
    if let last = status.last { self.last = .init(last) }
    self.damages = status.damages.map { Blocktree_V1_ClusterDamage($0, generation: generation) }
    self.omittedDamages = status.omittedCount
  }
}

extension Blocktree_V1_ClusterScrubPass {
  init(_ pass: ScrubPass) {
    self.init()
    self.number = pass.number
    self.startTime = pass.start
    self.endTime = pass.end ?? 0
    self.verifiedBytes = pass.verifiedByteCount
    self.expectedBytes = pass.expectedByteCount
    self.found = pass.foundCount
    self.healed = pass.healedCount
  }
}

extension Blocktree_V1_ClusterDamage {
  private static let detailByteCountMax = 200

  init(_ damage: UnhealedDamage, generation: Generation) {
    self.init()
    func file(_ inode: UInt64) -> String { FileID(generation: generation, inode: InodeNumber(inode)).description }
    switch damage.place {
    case .record(let inode):
      self.file = file(inode)
      self.part = "record"
    case .block(let inode, let level, let index):
      self.file = file(inode)
      self.part = level == 0 ? "sector" : "tree node"
      self.level = UInt32(level)
      self.index = index
    case .blockMap(let inode, let level, let group):
      self.file = file(inode)
      self.part = "block map"
      self.level = UInt32(level)
      self.index = group.multipliedReportingOverflow(by: 64).partialValue
    case .header: self.part = "header"
    case .log: self.part = "log"
    case .logEntry: self.part = "log entry"
    case .certificate: self.part = "certificate"
    case .fact: self.part = "fact"
    case .session: self.part = "session"
    case .index: self.part = "index"
    }
    self.cause = .init(damage.healing)
    self.detail = damage.detail.utf8.count <= Self.detailByteCountMax ? damage.detail : ""
  }
}

extension Blocktree_V1_ClusterDamageCause {
  init(_ healing: SectorHealer.Healing) {
    switch healing {
    // Not damaged any more.
    case .healed, .unneeded: self = .unspecified
    case .waits(.unreachable): self = .unreachable
    case .waits(.store), .waits(.busy): self = .waits
    case .lost: self = .lost
    case .failed: self = .failed
    case .needsNewStore: self = .needsNewStore
    }
  }
}
