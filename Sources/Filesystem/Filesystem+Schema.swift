// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Inodes
internal import SwiftProtobuf
internal import Sectors
internal import Trust

// Between the schema's messages and what the filesystem works with.

extension TreePath {
  /// Parses a path of a request.
  init(request text: String) throws(FilesystemError) {
    do { try self.init(parsing: text) } catch { throw .invalidPath(error) }
  }
}

extension Mode {
  /// Takes mode bits of a request; 0 stands for the default.
  init(request bits: UInt32, default defaultBits: UInt32) throws(FilesystemError) {
    if bits == 0 {
      self.init(truncating: defaultBits)
    } else {
      guard let bits = UInt16(exactly: bits), let mode = Mode(rawValue: bits) else { throw .invalid(field: "mode") }
      self = mode
    }
  }
}

extension Request {
  init(_ caller: CallerIdentity, _ operation: Blocktree_V1_OperationId?) throws(FilesystemError) {
    guard let operation else {
      self.init(caller: caller)
      return
    }
    do { try self.init(caller: caller, operation: OperationID(operation)) } catch {
      throw .invalid(field: error.field)
    }
  }
}

extension FileInfo {
  var message: Blocktree_V1_FileInfo {
    .with {
      $0.fileID = self.fileID.message
      $0.type = self.type.message
      $0.size = self.size
      $0.version = self.version.rawValue
      $0.linkCount = self.linkCount
      $0.mode = UInt32(self.rules.mode.rawValue)
      $0.owner = self.rules.owner.description
      $0.group = self.rules.group.description
      $0.access = self.rules.entries.map(\.message)
      $0.modifiedNs = self.modified
      $0.changedNs = self.changed
      $0.accessedNs = self.accessed
      $0.createdNs = self.created
      $0.storedBytes = self.storedBytes
      $0.servedByGeneration = self.servedByGeneration?.rawValue ?? 0
      $0.isStale = self.isStale
      $0.keyEpoch = self.keyEpoch
      $0.readcaps = self.readcaps.map(\.description)
      $0.isCutOff = self.isCutOff
    }
  }
}

extension TaskProgress {
  var message: Blocktree_V1_Task {
    let figures = self.figures
    return .with {
      $0.id = self.record.id
      $0.kind =
        switch self.record.kind {
        case .rekey: .rekey
        case .drain: .drain
        }
      $0.path = self.record.path.description
      $0.fileID = self.record.file.message
      $0.startedNs = self.record.started
      $0.state =
        switch figures.state {
        case .running: .running
        case .waiting: .waiting
        case .finished: .finished
        case .cancelled: .cancelled
        }
      $0.inodesDone = figures.inodesDone
      $0.inodesTotal = figures.inodesTotal
      $0.bytesDone = figures.bytesDone
      $0.bytesTotal = figures.bytesTotal
      $0.step = figures.step
      $0.problem = figures.problem
    }
  }
}

extension ListedEntry {
  var message: Blocktree_V1_DirectoryEntry {
    .with {
      $0.name = self.name.description
      $0.fileID = self.fileID.message
      $0.type = self.type.message
      if let info = self.info { $0.info = info.message }
      $0.isDamaged = self.isDamaged
    }
  }
}
