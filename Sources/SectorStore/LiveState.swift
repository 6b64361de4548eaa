// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// The applied state and the index beneath it: answers what the newest durable state is, from memory where it can.
final class LiveState: Sendable {
  let state: Mutex<AppliedState>
  /// What reads and scrubs have found. Under a lock of its own: nothing waits for it.
  let damage = Mutex(DamageReport())
  /// The damage that the store failed for, if it was damage.
  let fatalDamage = Mutex<DamagePlace?>(nil)
  let index: any StoreIndex

  init(_ state: AppliedState, index: any StoreIndex) {
    self.state = Mutex(state)
    self.index = index
  }

  /// Throws what stopped the store, if anything did.
  func check() throws(StoreError) {
    if let failure = self.state.withLock({ $0.failure }) { throw failure }
  }

  /// Remembers damage that a read has met.
  func note(_ error: StoreError) {
    if case .damaged(let place) = error { self.damage.withLock { $0.note(place) } }
  }

  /// The same for what `body` throws.
  private func noting<Value>(_ body: () throws(StoreError) -> Value) throws(StoreError) -> Value {
    do throws(StoreError) { return try body() } catch {
      self.note(error)
      throw error
    }
  }

  func record(_ inode: UInt64) throws(StoreError) -> StoredRecord? {
    let (found, count) = self.state.withLock { ($0.record(inode), $0.checkpointCount) }
    if case .value(let record) = found { return record }
    let record = try self.noting { () throws(StoreError) in try self.index.record(inode) }
    if let record { self.state.withLock { $0.cache(record, checkpointCount: count) } }
    return record
  }

  func group(_ key: GroupKey) throws(StoreError) -> BlockGroup? {
    let (found, count) = self.state.withLock { ($0.group(key), $0.checkpointCount) }
    if case .value(let group) = found { return group }
    let group = try self.noting { () throws(StoreError) in try self.index.group(key) }
    if let group { self.state.withLock { $0.cache(group, key: key, checkpointCount: count) } }
    return group
  }

  /// All groups that an inode may have.
  func groupKeys(inode: UInt64) throws(StoreError) -> Set<GroupKey> {
    // In this order: a layer that reaches the index in between is found there.
    let (inLayers, isInIndex) = self.state.withLock { ($0.groupKeysInLayers(inode: inode), inode <= $0.indexInodeMax) }
    var keys = Set(inLayers)
    if isInIndex { keys.formUnion(try self.index.groupKeys(inode: inode)) }
    return keys
  }

  func operationStatus(_ session: SessionID, sequence: UInt64) throws(StoreError) -> OperationStatus {
    if let status = self.state.withLock({ $0.operationStatus(session, sequence: sequence) }) { return status }
    // Gone from the layers only when it is in the index.
    return try self.index.result(session, sequence: sequence).map { .applied(result: $0) } ?? .new
  }

  func certificate(_ digest: Digest) throws(StoreError) -> [UInt8]? {
    if let bytes = self.state.withLock({ $0.certificateInLayers(digest) }) { return bytes }
    return try self.noting { () throws(StoreError) in try self.index.certificate(digest) }
  }

  func inodes(parent: UInt64) throws(StoreError) -> [UInt64] {
    try self.inodes { () throws(StoreError) in
      try self.index.inodes(parent: parent)
    } overlay: {
      $0.overlay(&$1, parent: parent)
    }
  }

  func inodes(flag: RecordFlags) throws(StoreError) -> [UInt64] {
    try self.inodes { () throws(StoreError) in
      try self.index.inodes(flag: flag)
    } overlay: {
      $0.overlay(&$1, flag: flag)
    }
  }

  private func inodes(
    index: () throws(StoreError) -> [UInt64], overlay: (AppliedState, inout Set<UInt64>) -> Void
  ) throws(StoreError) -> [UInt64] {
    while true {
      let before = self.state.withLock { $0.checkpointCount }
      var inodes = Set(try index())
      let isComplete = self.state.withLock { state in
        // What the index took over meanwhile is still in `recent`, if it was not more than one layer.
        guard state.checkpointCount <= before + 1 else { return false }
        overlay(state, &inodes)
        return true
      }
      if isComplete { return inodes.sorted() }
    }
  }
}
