// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Makes a store from a snapshot: of its items, in their order.
///
/// The directory becomes a store with the last step of ``finish()`` and not before, so an import that was interrupted,
/// by a loss of power too, leaves no store. It can go on later: what had been taken is made durable from time to time,
/// together with a mark of how far that is, and ``cursor`` says it.
///
/// Nothing is trusted to be right: each item must follow the one before in the order of cursors, which leaves no room
/// for a key that comes twice, must keep the limits of a store, and must fit what came before; blocks must have their
/// checksums; and at the end the number of rows must be what the donor counted. After an error the import takes nothing
/// more; ``begin(at:_:index:term:files:storeIndex:)`` goes on from the last mark.
///
/// All calls block, and wait for each other. Memory is bounded by `checkpointBytes` and `batchBytes` of the
/// configuration, and a few dozen bytes for each session.
package final class SnapshotImport: Sendable {
  /// The last entry that the snapshot contains, and its term.
  package let index: LogIndex
  package let term: UInt64
  private let state: Mutex<SnapshotImportState>

  private init(_ state: SnapshotImportState) {
    self.index = state.mark.index
    self.term = state.mark.term
    self.state = Mutex(state)
  }

  deinit { self.close() }

  /// Begins to import a snapshot of this index and term into a directory, which is made if it does not exist, or goes
  /// on with an import of the same that was interrupted there. What anything else left there, other than a store, is
  /// removed.
  ///
  /// - Parameters:
  ///   - configuration: generation and sector size must be the donor's.
  ///   - storeIndex: nil for SQLite in the directory. One that is handed in must be empty, or be of the same import.
  package static func begin(
    at directory: String, _ configuration: StoreConfiguration, index: LogIndex, term: UInt64,
    files: any FileLayer = HostFiles(), storeIndex: (any StoreIndex)? = nil
  ) throws(SnapshotImportError) -> SnapshotImport {
    do throws(StoreError) {
      let start = SnapshotImportMark(configuration, index: index, term: term)
      return SnapshotImport(
        try SnapshotImportState.begin(at: directory, configuration, start, files: files, storeIndex: storeIndex))
    } catch {
      throw .store(error)
    }
  }

  /// Behind the last item that is durable: the item to go on with is the next after it, whether or not later ones were
  /// added before an interruption. Nil at the start.
  package var cursor: SnapshotCursor? { self.state.withLock { $0.mark.cursor } }

  /// Takes the next items. Some of what was taken may be lost in an interruption, up to ``finish()``.
  package func add(_ items: [SnapshotItem]) throws(SnapshotImportError) {
    try self.state.withLock { state throws(SnapshotImportError) in try state.add(items) }
  }

  /// Makes the store, after ``SnapshotItem/end(_:)`` was added. On return it is durable and can be opened; its log
  /// begins behind the snapshot's index. When it throws `store`, it may be called again after another `begin`.
  ///
  /// - Parameter hardState: what the member that the store is for has promised so far, which it must not forget with
  ///   the store that it had.
  package func finish(hardState: LogHardState = LogHardState()) throws(SnapshotImportError) {
    try self.state.withLock { state throws(SnapshotImportError) in try state.finish(hardState) }
  }

  /// Lets the directory go. What was taken since the last mark is forgotten. May be called more than once.
  package func close() { self.state.withLock { $0.close() } }
}

package enum SnapshotImportError: Error, Hashable, Sendable {
  /// Here something failed: `noSpace`, `alreadyExists`, `locked`, `closed`, or the disk.
  case store(StoreError)
  /// What was added is no snapshot, or has changed on the way.
  case invalid(SnapshotFault)
}

/// The rule that the items of a snapshot break.
package enum SnapshotFault: String, Hashable, Sendable {
  /// An item that is beyond the limits of ``Change``.
  case itemOutOfRange
  /// It does not come after the item before.
  case orderWrong
  case blockSizeWrong
  /// A block is not what the donor had stored.
  case blockDamaged
  /// Blocks of a group are missing, or the parts do not belong together.
  case groupIncomplete
  /// Blocks without a record of their inode, or newer than it.
  case blocksWithoutRecord
  /// A result without its session, or beyond the session's highest sequence number.
  case resultWithoutSession
  case tooManySessions
  /// The donor had more or fewer rows than came.
  case countsDiffer
  /// `finish` without the last item.
  case endMissing
}

/// How far an import is: what is kept with the rows that it speaks of.
struct SnapshotImportMark: Hashable, Sendable {
  var generation: UInt64
  var sectorSize: UInt64
  var dataFileBytes: UInt64
  var index: LogIndex
  var term: UInt64
  /// The first slots that are not used.
  var nextSector: UInt64 = 0
  var nextNode: UInt64 = 0
  var counts = SnapshotCounts()
  var cursor: SnapshotCursor?

  private static let formatVersion: UInt8 = 1

  init(_ configuration: StoreConfiguration, index: LogIndex, term: UInt64) {
    self.generation = configuration.generation
    self.sectorSize = UInt64(configuration.sectorSize)
    self.dataFileBytes = UInt64(configuration.dataFileBytes)
    self.index = index
    self.term = term
  }

  func isSameImport(as other: SnapshotImportMark) -> Bool {
    self.generation == other.generation && self.sectorSize == other.sectorSize
      && self.dataFileBytes == other.dataFileBytes && self.index == other.index && self.term == other.term
  }

  func encoded() -> [UInt8] {
    var writer = ByteWriter()
    writer.append(Self.formatVersion)
    for number in [
      self.generation, self.sectorSize, self.dataFileBytes, self.index.rawValue, self.term, self.nextSector,
      self.nextNode,
    ] {
      writer.append(number)
    }
    writer.append(self.counts)
    writer.append(raw: self.cursor?.encoded() ?? [])
    return writer.bytes
  }

  init?(encoded: [UInt8]) {
    var reader = ByteReader(encoded)
    do throws(ByteReader.Malformed) {
      guard try reader.read(UInt8.self) == Self.formatVersion else { return nil }
      self.generation = try reader.read()
      self.sectorSize = try reader.read()
      self.dataFileBytes = try reader.read()
      self.index = LogIndex(try reader.read())
      self.term = try reader.read()
      self.nextSector = try reader.read()
      self.nextNode = try reader.read()
      self.counts = try reader.readCounts()
      if !reader.isAtEnd {
        guard let cursor = SnapshotCursor(encoded: try reader.readRaw(reader.remaining)) else { return nil }
        self.cursor = cursor
      }
    } catch {
      return nil
    }
  }
}
