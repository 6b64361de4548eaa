// SPDX-License-Identifier: Apache-2.0

/// What the consensus of a group has made durable. The parts are done in the order of the fields; a crash may keep any
/// beginning of that.
package struct LogWrite: Sendable {
  package struct Entry: Sendable {
    package var term: UInt64
    package var payload: LogPayload

    package init(term: UInt64, payload: LogPayload) {
      self.term = term
      self.payload = payload
    }
  }

  /// A number of the caller's, growing from write to write; nil where nobody waits for just this.
  package var id: UInt64?
  package var hardState: LogHardState?
  /// Entries from here on go away. None of them has been applied.
  package var truncation: LogIndex?
  /// The index of the first of `entries`: one after the last entry that is left.
  package var firstIndex: LogIndex
  package var entries: [Entry]

  package init(
    id: UInt64?, hardState: LogHardState?, truncation: LogIndex?, firstIndex: LogIndex, entries: [Entry]
  ) {
    self.id = id
    self.hardState = hardState
    self.truncation = truncation
    self.firstIndex = firstIndex
    self.entries = entries
  }
}

/// An entry that has been applied.
package struct AppliedEntry: Sendable {
  package let index: LogIndex
  package let term: UInt64
  /// Why nothing of it was done, if so: the same on all replicas.
  package let result: Result<Void, StoreError>
  /// The changes of records that it made.
  package let records: [RecordChange]
  /// The facts that it has set.
  package let facts: [Change.Fact]
}

/// Whoever decides what stands in the log: the consensus of a group. Calls must not wait. ``applied(_:)`` comes on any
/// thread, one call after the other; everything else on the store's writing thread.
package protocol LogOwner: AnyObject, Sendable {
  /// All writes through the one with this id are durable.
  func persisted(through id: UInt64)
  /// Entries have been applied, in the order of the log, and can be read.
  func applied(_ entries: [AppliedEntry])
  /// Entries through here can not be read whole any more.
  func compacted(through index: LogIndex)
  /// A write has found no room, and waits for `SectorStore.retryWrites()`.
  func ranOutOfSpace()
  /// A write that had found no room is durable now.
  func foundSpace()
  /// The store refuses everything from now on.
  func stopped(_ error: StoreError)
}
