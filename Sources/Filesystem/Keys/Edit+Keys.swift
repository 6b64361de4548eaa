// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

extension Edit {
  /// Directories that hold names of one inode and are changed together. Who has more keeps its key until some are gone.
  private static let parentsMax = 32

  /// Gives an inode a new key, in its record and its readcaps. The entries that lead to it are changed by `update`.
  ///
  /// - Parameters:
  ///   - key: the present one.
  ///   - next: of the next epoch.
  ///   - isKept: which readcaps are to have it.
  mutating func beginEpoch(
    of file: FileID, from key: FileKey, to next: FileKey, keeping isKept: (Readcap) -> Bool = { _ in true }
  ) async throws(FilesystemError) {
    var draft = try await self.draft(file)
    guard var content = draft.currentContent, var attributes = draft.currentAttributes, !draft.isRemoved else {
      throw .contended
    }
    // Somebody else came first.
    guard content.keyEpoch == key.epoch else { throw .contended }
    let isSetByHand = attributes.modifiedAtVersion == content.version
    do { try content.beginEpoch(from: key, to: next) } catch {
      guard error != .outOfRange else { throw .limitReached("key epochs") }
      throw .dataLoss(file, .record)
    }
    // The file says the same as before.
    if isSetByHand { content.modified = attributes.modified }
    content.version = draft.version
    content.actingFor = nil
    draft.content = content
    let readcaps = await self.filesystem.readcaps(attributes.readcaps.filter(isKept), of: file, sealing: next)
    if readcaps != attributes.readcaps || !attributes.extendedAttributes.isEmpty {
      attributes.readcaps = readcaps
      if !attributes.extendedAttributes.isEmpty {
        do {
          let plain = try SectorCipher(key: key, contentID: content.contentID).open(
            attributes.extendedAttributes, as: .extendedAttributes)
          attributes.extendedAttributes = try SectorCipher(key: next, contentID: content.contentID).seal(
            plain, as: .extendedAttributes)
        } catch {
          throw .dataLoss(file, .record)
        }
      }
      attributes.version = draft.version
      attributes.actingFor = nil
      draft.attributes = attributes
    }
    self.put(draft)
    self.note(next, of: file)
  }

  /// Requires that somebody has the key of an inode that no entry has, as this edit leaves it: it would be lost otherwise.
  /// Of the root directory, a process that serves it.
  mutating func requireReader(of file: FileID) async throws(FilesystemError) {
    let readcaps = try await self.draft(file).currentAttributes?.readcaps ?? []
    let credentials = try await self.filesystem.requireMember().credentials
    guard
      readcaps.contains(where: { readcap in
        guard file == .rootDirectory else { return true }
        // A gateway could let nobody in.
        let services = credentials.entry(readcap.principal)?.credential.marks.services ?? []
        return services.contains(.filesystem) && services.contains(.sector)
      })
    else { throw .invalid(field: "principal") }
  }

  /// Gives what an entry leads to a new key, together with all other names that it has. All of it is of one generation.
  ///
  /// - Parameter directory: open in this edit.
  mutating func drawKey(
    of entry: DirectoryEntry, in directory: InodeState, keeping isKept: (Readcap) -> Bool = { _ in true }
  ) async throws(FilesystemError) {
    guard let key = entry.key, key.epoch < .max else { throw .limitReached("key epochs") }
    // One of its names stands in the home, which another cluster stores.
    let parents = try await self.draft(entry.fileID).currentLinks?.parents ?? []
    if let foreign = parents.first(where: { $0.generation != entry.fileID.generation }) {
      throw .keyStandsElsewhere(foreign)
    }
    let next = FileKey.random(epoch: key.epoch + 1)
    try await self.beginEpoch(of: entry.fileID, from: key, to: next, keeping: isKept)
    try await self.update(entry.fileID, key: next, in: directory, entry.name)
  }

  /// Writes a new key of an inode into all its entries in directories of its own generation.
  ///
  /// - Parameters:
  ///   - directory: one of these; nil when it is not known where the inode has its names.
  ///   - name: one that it has there.
  mutating func update(
    _ file: FileID, key: FileKey, in directory: InodeState?, _ name: PathComponent? = nil
  ) async throws(FilesystemError) {
    guard let parents = try await self.draft(file).currentLinks?.parents else { throw .dataLoss(file, .record) }
    let others = Set(parents.filter { $0.generation == file.generation }).subtracting(
      [directory?.fileID].compactMap(\.self))
    guard others.count < Self.parentsMax else { throw .limitReached("links") }
    var directories = directory.map { [$0] } ?? []
    for other in others.sorted() {
      guard let state = try await self.filesystem.directory(at: other) else { throw .noKey(other) }
      try await self.open(state)
      directories.append(state)
    }
    if parents.count == 1, let directory, let name, var entry = self.entry(name, in: directory), entry.fileID == file {
      self.set(&entry, to: key, in: directory, try self.record(of: directory).content.part.keyEpoch)
      return
    }
    for directory in directories {
      let epoch = try self.record(of: directory).content.part.keyEpoch
      for var entry in self.entries(of: file, in: directory) where entry.key != nil {
        self.set(&entry, to: key, in: directory, epoch)
      }
    }
  }

  private mutating func set(
    _ entry: inout DirectoryEntry, to key: FileKey, in directory: InodeState, _ epoch: UInt32
  ) {
    entry.key = key
    entry.nextKey = nil
    entry.drawnInEpoch = epoch
    entry.isMarkedExposed = false
    self.update(entry, in: directory)
  }

  func entries(of file: FileID, in directory: InodeState) -> [DirectoryEntry] {
    self.directories[directory.fileID]?.entries.all.filter { $0.fileID == file } ?? []
  }
}

extension Filesystem {
  /// Readcaps of a new key for the principals of others. Those whose key-agreement key is not known lose it.
  func readcaps(_ readcaps: [Readcap], of file: FileID, sealing key: FileKey) async -> [Readcap] {
    var sealed: [Readcap] = []
    for readcap in readcaps {
      var recipient: AgreementPublicKey?
      if readcap.agreementKey.isEmpty {
        recipient = self.member?.credentials.entry(readcap.principal)?.credential.marks.agreementKey
        // Whoever is no member has to ask.
        if self.member == nil { recipient = await self.agreementKey(of: readcap.principal) }
      } else {
        recipient = try? AgreementPublicKey(x963Representation: readcap.agreementKey)
      }
      guard let recipient, Digest32(sha256: recipient.x963Representation) == readcap.keyID,
        let new = try? Readcap(
          sealing: key, of: file, domain: self.identity.domain, to: recipient, at: readcap.principal)
      else { continue }
      sealed.append(new)
    }
    return sealed
  }

  /// A directory by its file id, with its key: found from its parents downwards. Nil when it is gone, or does not lie
  /// below this process's home.
  func directory(at file: FileID) async throws(FilesystemError) -> InodeState? {
    var way: [FileID] = []
    var next = file
    while next != self.home.fileID {
      guard way.count <= TreePath.byteCountMax / 2, let record = try await self.storedRecord(next),
        let parent = record.links.part.parents.first
      else { return nil }
      way.append(next)
      next = parent
    }
    var state = self.root
    for file in way.reversed() {
      guard let entries = try await self.directory(state)?.directory,
        let entry = entries.all.first(where: { $0.fileID == file })
      else { return nil }
      state = try await self.state(of: entry)
    }
    return state
  }
}
