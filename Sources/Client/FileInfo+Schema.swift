// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import SwiftProtobuf

// Between the types of this module and their schema. A server that leaves out what it must say gives an error here and
// never a default.

extension FileID {
  init(_ message: Blocktree_V1_FileId) throws(BlocktreeError) {
    guard message.generation > 0, message.inode > 0 else { throw .malformedAnswer("file_id") }
    self.init(generation: message.generation, inode: message.inode)
  }

  var message: Blocktree_V1_FileId {
    .with {
      $0.generation = self.generation
      $0.inode = self.inode
    }
  }
}

extension FileType {
  init(_ message: Blocktree_V1_FileType) throws(BlocktreeError) {
    guard message != .unspecified else { throw .malformedAnswer("type") }
    self.init(rawValue: message.rawValue)
  }
}

extension AccessEntry {
  init(_ message: Blocktree_V1_AccessEntry) {
    self.init(path: message.path, isGroup: message.isGroup, permission: UInt8(truncatingIfNeeded: message.permission))
  }

  var message: Blocktree_V1_AccessEntry {
    .with {
      $0.path = self.path
      $0.isGroup = self.isGroup
      $0.permission = UInt32(self.permission)
    }
  }
}

extension FileInfo {
  init(_ message: Blocktree_V1_FileInfo) throws(BlocktreeError) {
    try self.init(
      id: FileID(message.fileID), type: FileType(message.type), size: message.size, version: message.version,
      linkCount: message.linkCount, mode: FileMode(rawValue: UInt16(truncatingIfNeeded: message.mode)),
      owner: message.owner, group: message.group, access: message.access.map(AccessEntry.init),
      modified: Timestamp(nanoseconds: message.modifiedNs), changed: Timestamp(nanoseconds: message.changedNs),
      accessed: Timestamp(nanoseconds: message.accessedNs), created: Timestamp(nanoseconds: message.createdNs),
      storedByteCount: message.storedBytes,
      servedByGeneration: message.servedByGeneration == 0 ? nil : message.servedByGeneration,
      isStale: message.isStale, keyEpoch: message.keyEpoch == 0 ? nil : message.keyEpoch, readcaps: message.readcaps,
      isCutOff: message.isCutOff)
  }
}

extension DirectoryEntry {
  init(_ message: Blocktree_V1_DirectoryEntry) throws(BlocktreeError) {
    // A program may join this to a path of its own machine.
    guard !message.name.isEmpty, message.name != ".", message.name != "..",
      !message.name.utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") })
    else { throw .malformedAnswer("name") }
    try self.init(
      name: message.name, id: FileID(message.fileID), type: FileType(message.type),
      info: message.hasInfo ? FileInfo(message.info) : nil, isDamaged: message.isDamaged)
  }
}

extension FilesystemStatus {
  init(_ message: Blocktree_V1_StatFilesystemResponse) {
    self.init(
      totalByteCount: message.totalBytes, usedByteCount: message.usedBytes, freeByteCount: message.freeBytes,
      inodeCount: message.inodes, sectorSize: Int(message.sectorSize), generation: message.generation)
  }
}

extension WriteMode {
  func apply(to header: inout Blocktree_V1_WriteHeader) {
    switch self {
    case .replace: header.writeMode = .replace
    case .create: header.writeMode = .create
    case .at(let offset):
      header.writeMode = .atOffset
      header.offset = offset
    case .append: header.writeMode = .append
    }
  }

  /// Whether a repetition with the same operation id is applied once.
  var isRepeatable: Bool {
    switch self {
    case .replace, .create: true
    case .at, .append: false
    }
  }
}

extension RemovalKind {
  var message: Blocktree_V1_RemoveKind {
    switch self {
    case .file: .file
    case .directory: .directory
    case .any: .any
    }
  }
}

extension AttributeChanges {
  func apply(to request: inout Blocktree_V1_SetAttributesRequest) {
    if let mode { request.mode = UInt32(mode.rawValue) }
    if let owner { request.owner = owner }
    if let group { request.group = group }
    if let accessed { request.accessedNs = accessed.nanoseconds }
    if let modified { request.modifiedNs = modified.nanoseconds }
    if let access {
      request.access = access.map(\.message)
      request.setAccess = true
    }
  }
}
