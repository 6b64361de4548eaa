// SPDX-License-Identifier: Apache-2.0

extension Replica {
  /// The log as it stands after the snapshot, and whether that on the disk is void.
  static func restoreLog(_ state: PersistentState) throws(RestoreError) -> (log: LogHeaders, discardsLog: Bool) {
    let snapshot = state.snapshot.position
    let last = LogIndex(state.firstIndex.previous.rawValue &+ UInt64(state.entries.count))
    guard state.firstIndex > .zero, state.firstIndex <= Limits.indexMax, snapshot.index <= Limits.indexMax,
      snapshot.term <= Limits.termMax, last <= Limits.indexMax, state.hardState.term <= Limits.termMax
    else { throw .beyondLimits }
    guard state.firstIndex <= snapshot.index.next else {
      throw .gapAfterSnapshot(snapshot: snapshot.index, first: state.firstIndex)
    }

    var log = LogHeaders(base: snapshot, membership: state.snapshot.membership)
    log.rebase(
      on: LogHeaders.MembershipRecord(
        index: min(state.snapshot.membershipIndex, snapshot.index), membership: state.snapshot.membership))

    // A crash may have come between the snapshot and the write that discards a log which contradicts it. A log that
    // begins right after the snapshot was cut there, which is done only when they agree.
    let overlap = snapshot.index.distance(after: state.firstIndex.previous)
    let contradicts = overlap > 0 && (overlap > state.entries.count || state.entries[overlap - 1].term != snapshot.term)
    if !contradicts {
      for (offset, entry) in state.entries.enumerated().dropFirst(overlap) {
        let index = LogIndex(state.firstIndex.rawValue &+ UInt64(offset))
        guard entry.term >= log.last.term, entry.term <= max(state.hardState.term, snapshot.term)
        else { throw .termOutOfOrder(index) }
        log.append(entry)
      }
    }
    guard state.applied >= snapshot.index, state.applied <= log.lastIndex else {
      throw .appliedOutOfPlace(applied: state.applied, snapshot: snapshot.index, last: log.lastIndex)
    }
    return (log, contradicts && !state.entries.isEmpty)
  }
}
