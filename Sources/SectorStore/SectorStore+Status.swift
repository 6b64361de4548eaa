// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// How a store is doing.
package struct StoreStatus: Hashable, Sendable {
  package var generation: UInt64
  package var sectorSize: Int
  package var appliedIndex: LogIndex
  package var appliedTerm: UInt64
  /// The last entry that the index has.
  package var checkpointIndex: LogIndex
  /// Why the last checkpoint could not be written; the store goes on, and tries again.
  package var checkpointError: StoreError?
  /// Changes and bytes that wait for the writer.
  package var queuedCount: Int
  package var queuedBytes: Int
  /// Bytes that the log takes on the disk.
  package var logBytes: Int
  package var sectorSlotsUsed: Int
  /// Free slots in the data files as they are; the files grow when these run out.
  package var sectorSlotsFree: Int
  package var nodeSlotsUsed: Int
  package var nodeSlotsFree: Int
  /// Bytes that data files may still grow by.
  package var diskFreeBytes: UInt64
  package var pinCount: Int
  package var sessionCount: Int
  /// Why every call is refused, if so.
  package var failure: StoreError?
}

extension SectorStore {
  /// The damage that has the store refuse every call; nil when it does not, or failed for another reason.
  package var fatalDamage: DamagePlace? { self.live.fatalDamage.withLock { $0 } }

  package func status() -> StoreStatus {
    let (error, usage) = self.checkpoints.withLock { ($0.lastError, $0.usage) }
    let (queuedCount, queuedBytes) = self.queue.withLock { ($0.count, $0.byteCount) }
    let free = (try? self.files.freeBytes(self.directory)) ?? 0
    return self.live.state.withLock { state in
      StoreStatus(
        generation: self.configuration.generation, sectorSize: self.configuration.sectorSize,
        appliedIndex: state.appliedIndex, appliedTerm: state.appliedTerm, checkpointIndex: state.checkpointIndex,
        checkpointError: error, queuedCount: queuedCount, queuedBytes: queuedBytes, logBytes: usage.logBytes,
        sectorSlotsUsed: usage.sectorSlotsUsed, sectorSlotsFree: usage.sectorSlotsFree,
        nodeSlotsUsed: usage.nodeSlotsUsed, nodeSlotsFree: usage.nodeSlotsFree,
        diskFreeBytes: free - min(free, UInt64(self.configuration.reservedBytes)), pinCount: state.pinCount,
        sessionCount: state.sessions.headers.count, failure: state.failure)
    }
  }
}
