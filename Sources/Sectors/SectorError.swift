// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import SectorStore
package import Trust

/// The process that leads a sector cluster, and where it can be reached.
package struct SectorLeader: Hashable, Sendable {
  package let path: TreePath
  package let addresses: [NetworkAddress]

  package init(path: TreePath, addresses: [NetworkAddress]) {
    self.path = path
    self.addresses = addresses
  }
}

/// Why the sector service refused. Nothing was changed, except where a case says otherwise.
package enum SectorError: Error, Hashable, Sendable {
  /// A condition failed: the file is at another version.
  case conflict(FileID, current: Version)
  /// The caller may not do this, or the thing does not exist and the caller may not know that.
  case permissionDenied
  /// There is no such inode.
  case notFound(FileID)
  /// A signature does not verify, or its signer is unknown.
  case badSignature(FileID)
  /// Sectors, tree nodes and record do not fit one another.
  case integrity(FileID, IntegrityError)
  /// A record that is malformed or contradicts what may not change. Names the field.
  case invalidRecord(FileID?, RecordError)
  /// A request field that is malformed. Names it.
  case invalid(field: String)
  /// More than a limit allows.
  case tooLarge(String, limit: Int, found: Int)
  /// Another generation than the one served here.
  case wrongGeneration(Generation)
  /// The version is not kept any more.
  case versionGone(FileID, version: Version, current: Version)
  /// What is stored does not match what was written. `place` says where.
  case dataLoss(FileID?, place: DataLossPlace)
  /// The disk is full; retry when there is room.
  case noSpace
  /// Too much at once; retry soon.
  case busy
  /// This process does not serve now: it starts, stops, or its disk failed. Whether an unanswered commit was applied
  /// is not known.
  case notServing
  /// Another member leads the cluster, this one if it is known; nothing was done here.
  case notLeader(SectorLeader?)
  /// This member stopped leading while a commit was on its way. Whether that was applied is not known; to ask again,
  /// with the same operation, is safe.
  case leadershipLost
  /// Whether the operation was applied can not be told any more.
  case operationTooOld
  /// The session is not known, or is another principal's.
  case sessionUnknown
  /// The fencing token is lower than one that was used.
  case fenced(current: UInt64)
  /// The domain would be left without a process that stores it.
  case lastProcess
  /// The process is a member of the cluster, which can not go on without it now: of the others, no majority is there.
  case processNeeded(TreePath)
  /// The directory has a cluster of its own, which would be left without a process that stores it.
  case delegated(TreePath)
  /// The generation was not allocated, or not for this caller, or it was taken back.
  case generationUnknown(Generation)
  /// What is stored here is being moved to the cluster above, and nothing can be changed now. Nothing was done; to be
  /// repeated in a moment.
  case frozen(Generation)
  /// The cluster of a generation can not be reached; nothing was done. Of a group itself never thrown: it is for those
  /// who call one from elsewhere.
  case unreachable(Generation)
  /// A fixed limit is reached. Names it.
  case limitReached(String, limit: Int)
  /// A fault of ours.
  case internalFault(String)

  /// What was found damaged.
  package enum DataLossPlace: Hashable, Sendable {
    /// A sector or tree node: level 0 and up, index within the level.
    case block(level: Int, index: UInt64)
    /// The inode's record.
    case record
    /// Something that belongs to no file. Names it.
    case store(String)
  }

  /// Translates what the store threw.
  package init(_ error: StoreError, generation: Generation) {
    func file(_ inode: UInt64) -> FileID { FileID(generation: generation, inode: InodeNumber(inode)) }
    switch error {
    case .noSpace: self = .noSpace
    case .queueFull: self = .busy
    case .failed, .closed, .locked: self = .notServing
    case .notLeader: self = .notLeader(nil)
    case .leadershipLost: self = .leadershipLost
    case .versionGone(let inode, let version, let current):
      self = .versionGone(file(inode), version: Version(version), current: Version(current ?? 0))
    case .unknownInode(let inode): self = .notFound(file(inode))
    case .conditionFailed(let inode, let current): self = .conflict(file(inode), current: Version(current ?? 0))
    case .operationTooOld: self = .operationTooOld
    case .unknownSession: self = .sessionUnknown
    case .damaged(let place):
      switch place {
      case .record(let inode): self = .dataLoss(file(inode), place: .record)
      case .block(let inode, let level, let index):
        self = .dataLoss(file(inode), place: .block(level: Int(level), index: index))
      case .blockMap(let inode, let level, let group):
        self = .dataLoss(file(inode), place: .block(level: Int(level), index: group * 64))
      case .header: self = .dataLoss(nil, place: .store("header"))
      case .log(let segment, let offset): self = .dataLoss(nil, place: .store("log \(segment) at \(offset)"))
      case .logEntry(let index): self = .dataLoss(nil, place: .store("log entry \(index.rawValue)"))
      case .certificate: self = .dataLoss(nil, place: .store("certificate"))
      case .fact(let key): self = .dataLoss(nil, place: .store("fact \(key)"))
      case .session: self = .dataLoss(nil, place: .store("session"))
      case .index: self = .dataLoss(nil, place: .store("index"))
      }
    case .invalidChange(let fault):
      self = fault == .versionNotHigher ? .invalid(field: "version") : .invalid(field: fault.rawValue)
    case .newerFormat, .notAStore, .alreadyExists, .io, .alreadyApplied, .entriesGone:
      self = .internalFault("\(error)")
    }
  }
}
