// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import Raft
package import SectorStore
internal import SwiftProtobuf
internal import Trust

/// What snapshot is sent, and between whom.
package struct SnapshotHeader: Hashable, Sendable {
  package var generation: UInt64
  package var sender: MemberID
  package var receiver: MemberID
  /// In bytes.
  package var sectorSize: Int
  /// The last entry that the snapshot contains, and its term.
  package var index: StoreLogIndex
  package var term: UInt64
  /// Of the group that the store belongs to, and what allowed it; see ``LifeGuard``.
  package var incarnation: UInt64
  package var warrant: [UInt8]

  package init(
    generation: UInt64, sender: MemberID, receiver: MemberID, sectorSize: Int, index: StoreLogIndex, term: UInt64,
    life: GroupLife = .first
  ) {
    self.generation = generation
    self.sender = sender
    self.receiver = receiver
    self.sectorSize = sectorSize
    self.index = index
    self.term = term
    self.incarnation = life.incarnation.rawValue
    self.warrant = life.warrant?.bytes ?? []
  }
}

extension SnapshotHeader {
  /// Throws `invalid` with the name of the field that is.
  package init(_ header: Blocktree_V1_InstallHeader) throws(MemberError) {
    guard header.sender != 0 else { throw .invalid(field: "sender") }
    guard header.receiver != 0 else { throw .invalid(field: "receiver") }
    guard header.index <= 1 << 60 else { throw .invalid(field: "index") }
    guard header.term <= 1 << 60 else { throw .invalid(field: "term") }
    self.init(
      generation: header.generation, sender: MemberID(header.sender), receiver: MemberID(header.receiver),
      sectorSize: Int(header.sectorSize), index: StoreLogIndex(header.index), term: header.term)
    self.incarnation = header.incarnation
    self.warrant = try MemberIdentity.warrant(header.warrant)
  }
}

extension Blocktree_V1_InstallHeader {
  package init(_ header: SnapshotHeader) {
    self.init()
    self.generation = header.generation
    self.sender = header.sender.rawValue
    self.receiver = header.receiver.rawValue
    self.sectorSize = UInt32(clamping: header.sectorSize)
    self.index = header.index.rawValue
    self.term = header.term
    self.incarnation = header.incarnation
    self.warrant = Data(header.warrant)
  }
}
