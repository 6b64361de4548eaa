// SPDX-License-Identifier: Apache-2.0

/// What entries of the log changed that the index does not have yet. Layers lie over each other and over the index:
/// what a layer does not mention is as it is below.
package struct Layer: Sendable {
  package enum RecordState: Hashable, Sendable {
    case put(StoredRecord)
    case removed

    package var record: StoredRecord? {
      if case .put(let record) = self { record } else { nil }
    }
  }

  package private(set) var records: [UInt64: RecordState] = [:]
  /// The newest groups. An empty one says that all of its blocks are holes now.
  package private(set) var groups: [GroupKey: BlockGroup] = [:]
  private(set) var groupsOfInode: [UInt64: [GroupKey]] = [:]
  /// Inodes by parent; an inode may have left again since.
  private(set) var children: [UInt64: [UInt64]] = [:]
  private(set) var flagged: Set<UInt64> = []

  /// Headers that changed.
  package var sessions: [SessionID: SessionHeader] = [:]
  /// Sessions that were dropped. One that was opened again since is in `sessions` too.
  package var evicted: Set<SessionID> = []
  package var results: [SessionID: [UInt64: [UInt8]]] = [:]
  package var certificates: [Digest: [UInt8]] = [:]
  package var facts: [String: [UInt8]] = [:]

  /// The last entry whose changes are here or below.
  package var lastIndex = LogIndex.zero
  package var lastTerm: UInt64 = 0
  var entryCount = 0
  var logBytes = 0

  package init() {}

  package mutating func put(_ state: RecordState, inode: UInt64) {
    self.records[inode] = state
    guard case .put(let record) = state else { return }
    for parent in record.parents { self.children[parent, default: []].append(inode) }
    if !record.flags.isEmpty { self.flagged.insert(inode) }
  }

  package mutating func put(_ group: BlockGroup, key: GroupKey) {
    if self.groups.updateValue(group, forKey: key) == nil {
      self.groupsOfInode[key.inode, default: []].append(key)
    }
  }

  /// Forgets all, keeping the memory.
  mutating func removeAll() {
    self.records.removeAll(keepingCapacity: true)
    self.groups.removeAll(keepingCapacity: true)
    self.groupsOfInode.removeAll(keepingCapacity: true)
    self.children.removeAll(keepingCapacity: true)
    self.flagged.removeAll(keepingCapacity: true)
  }

  /// Changes a set of inodes with this parent, found in the layers below, to what it is with this layer.
  func overlay(_ inodes: inout Set<UInt64>, parent: UInt64) {
    inodes = inodes.filter { self.records[$0] == nil }
    for inode in self.children[parent] ?? [] where self.records[inode]?.record?.parents.contains(parent) == true {
      inodes.insert(inode)
    }
  }

  func overlay(_ inodes: inout Set<UInt64>, flag: RecordFlags) {
    inodes = inodes.filter { self.records[$0] == nil }
    for inode in self.flagged where self.records[inode]?.record?.flags.isSuperset(of: flag) == true {
      inodes.insert(inode)
    }
  }
}
