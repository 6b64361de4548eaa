// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
package import Trust

/// What is to be set; nil stays as it is.
package struct AttributeChange: Sendable {
  package var mode: Mode?
  package var owner: TreePath?
  package var group: TreePath?
  package var access: [AccessEntry]?
  /// Nanoseconds since 1970 UTC.
  package var accessed: Int64?
  /// Nanoseconds since 1970 UTC.
  package var modified: Int64?

  package init() {}
}

extension Filesystem {
  /// Sets attributes. Mode, group and access list are for the owner, and for the owner of the root directory, who also
  /// may give the file away; times are for whoever may write, too. (Owners of other directories above have no such right:
  /// a file may have been moved or linked there by anybody who may write both places.)
  package func setAttributes(
    _ path: TreePath, follow: Bool, _ change: AttributeChange, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    let caller = try request.writer()
    if let access = change.access, access.count > RecordLimits.accessEntriesMax {
      throw .tooLarge("access", limit: RecordLimits.accessEntriesMax, found: access.count)
    }
    for _ in 0..<Self.attemptsMax {
      let (place, state, known, _) = try await self.existing(path, for: request.caller, follow: follow)
      try self.require([], of: known.record, at: place, for: request.caller)
      if let identified = request.identified,
        try await self.result(of: identified.id, by: identified.principal, in: state.fileID.generation) != nil
      {
        return FileInfo(known.record)
      }
      let rules = known.record.attributes.part.rules
      let isAbove = try await self.ownsRootDirectory(caller)
      let changesRules = change.mode != nil || change.group != nil || change.access != nil
      if changesRules, rules.owner != caller, !isAbove { throw .permissionDenied }
      if let owner = change.owner, owner != rules.owner, !isAbove { throw .permissionDenied }
      if change.accessed != nil || change.modified != nil {
        guard rules.owner == caller || isAbove || self.permits(.write, known.record, request.caller) else {
          throw .permissionDenied
        }
      }
      guard state.type != .credential || !changesRules && change.owner == nil || isAbove else {
        throw .permissionDenied
      }
      var edit = Edit(self, caller: request.caller)
      if let identified = request.identified {
        edit.complete(identified.id, of: identified.principal, about: state.fileID)
      }
      edit.setAttributes(of: known.record, change)
      if let record = try await self.commit(&edit)?[state.fileID] { return FileInfo(record) }
    }
    throw .contended
  }

  package func ownsRootDirectory(_ caller: TreePath) async throws(FilesystemError) -> Bool {
    if self.home.path.isRoot {
      return try await self.storedRecord(.rootDirectory)?.attributes.part.rules.owner == caller
    }
    // The copy that the permission to pass was judged by.
    return self.ancestors.above?.last?.attributes.part.rules.owner == caller
  }

  /// How much room there is.
  package func statFilesystem(_ path: TreePath, for caller: CallerIdentity) async throws(FilesystemError)
    -> FilesystemInfo
  {
    let (place, _, known, _) = try await self.existing(path, for: caller, follow: true)
    try self.require([], of: known.record, at: place, for: caller)
    let usage: VolumeUsage
    do { usage = try await self.sectors.usage() } catch {
      throw FilesystemError(error, sectorSize: self.sectors.sectorSize)
    }
    return FilesystemInfo(
      totalBytes: usage.usedBytes + usage.freeBytes, usedBytes: usage.usedBytes, freeBytes: usage.freeBytes,
      inodes: usage.inodes, sectorSize: self.sectors.sectorSize,
      generation: self.sectors.generation)
  }
}

extension Edit {
  /// Changes attributes of a record.
  mutating func setAttributes(of record: InodeRecord, _ change: AttributeChange) {
    var draft = Draft(record)
    var attributes = record.attributes.part
    attributes.version = draft.version
    attributes.changed = self.time
    attributes.actingFor = Self.actingFor(self.caller, self.filesystem.identity.path)
    if let mode = change.mode { attributes.rules.mode = mode }
    if let owner = change.owner { attributes.rules.owner = owner }
    if let group = change.group { attributes.rules.group = group }
    if let access = change.access { attributes.rules.entries = access }
    if let accessed = change.accessed { attributes.accessed = accessed }
    if let modified = change.modified {
      attributes.modified = modified
      attributes.modifiedAtVersion = record.content.part.version
    }
    draft.attributes = attributes
    self.put(draft)
  }
}
