// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Trust

/// Decides whether a committer may put a record in the place of another. Judged once, when a commit is accepted, from
/// what is stored then.
///
/// There are two kinds of committers. A *filesystem service* at or above the inode has checked the permissions of the
/// caller that it acts for, whom it names in what it signs. A *principal* acts for itself, within the mode bits and
/// access lists of what is stored.
struct CommitPolicy {
  enum Role: Sendable {
    /// A process with the filesystem mark, at or above every inode concerned.
    case filesystem
    /// Anybody else with a credential.
    case principal
  }

  private let committer: TreePath
  private let role: Role
  /// The directory that the cluster serves.
  private let home: FileID
  /// The directory that the committer lies in, if it is a process with the sector mark by what is stored.
  private let hostDirectory: FileID?
  private let sectorSize: Int
  private let writable: [FileID: WritableDirectory]
  /// The directory at or below which the committer is a filesystem service.
  private let directory: FileID?

  /// A directory that the committer may change.
  struct WritableDirectory: Sendable {
    let owner: TreePath
    /// Whether only the owner of a name's inode, or of the directory, may take the name away.
    let isSticky: Bool
  }

  /// - Parameters:
  ///   - home: the directory that the cluster serves.
  ///   - hostDirectory: the directory that the committer lies in, if it is a process with the sector mark by what is
  ///     stored.
  ///   - writable: the directories concerned for which the committer has write permission.
  ///   - directory: the one at or below which the committer is a filesystem service; nil for others.
  init(
    committer: TreePath, role: Role, home: FileID, hostDirectory: FileID?, sectorSize: Int,
    writable: [FileID: WritableDirectory], directory: FileID? = nil
  ) {
    self.committer = committer
    self.role = role
    self.home = home
    self.hostDirectory = hostDirectory
    self.sectorSize = sectorSize
    self.writable = writable
    self.directory = directory
  }

  private func mayChange(_ directory: FileID) -> Bool { self.writable[directory] != nil }

  /// Whether the committer may take the name of somebody's inode out of a directory.
  private func mayTake(from directory: FileID, ownedBy owner: TreePath) -> Bool {
    guard let directory = self.writable[directory] else { return false }
    return !directory.isSticky || directory.owner == self.committer || owner == self.committer
  }

  var isFilesystem: Bool { self.role == .filesystem }

  /// Which parts of a record a commit changes.
  struct ChangedParts: Equatable, Sendable {
    var content = false
    var attributes = false
    var links = false
  }

  /// Finds the changed parts, and checks what holds for every committer.
  func changedParts(from old: InodeRecord?, to new: InodeRecord) throws(SectorError) -> ChangedParts {
    var changed = ChangedParts()
    changed.content = old?.content != new.content
    changed.attributes = old?.attributes != new.attributes
    changed.links = old?.links != new.links
    let file = new.fileID
    guard changed != ChangedParts() || old?.credential != new.credential else {
      throw .invalidRecord(file, .contradiction("version"))
    }
    // A changed part bears the version that it comes with, so that an old one can not be put back.
    for (isChanged, version) in [
      (changed.content, new.content.part.version), (changed.attributes, new.attributes.part.version),
      (changed.links, new.links.part.version),
    ] where isChanged && version != new.version { throw .invalidRecord(file, .contradiction("version")) }
    guard new.content.part.sectorSize == self.sectorSize else {
      throw .invalidRecord(file, .contradiction("sector_size"))
    }
    try Self.checkPlace(of: new)
    try self.checkDirectories(of: new)
    if let old {
      guard old.attributes.part.type == new.attributes.part.type else {
        throw .invalidRecord(file, .contradiction("type"))
      }
      guard old.attributes.part.created == new.attributes.part.created else {
        throw .invalidRecord(file, .contradiction("created_ns"))
      }
      guard old.content.part.contentID == new.content.part.contentID else {
        throw .invalidRecord(file, .contradiction("content_id"))
      }
      guard new.content.part.keyEpoch >= old.content.part.keyEpoch else {
        throw .invalidRecord(file, .contradiction("key_epoch"))
      }
      if changed.content, new.content.part.fencingToken < old.content.part.fencingToken {
        throw .fenced(current: old.content.part.fencingToken)
      }
      // It can be taken back, and handed over again then.
      if let served = old.attributes.part.servedByGeneration, let now = new.attributes.part.servedByGeneration,
        served != now
      {
        throw .invalidRecord(file, .contradiction("served_by_generation"))
      }
      // Whoever finds it named after all takes the mark away as a whole.
      if old.links.part.pending?.isCondemned == true, changed.links, new.links.part.pending != nil {
        throw .invalidRecord(file, .contradiction("pending"))
      }
    }
    return changed
  }

  /// What contents inodes of a type may have: only files may be large.
  private static func checkContent(of record: InodeRecord) throws(SectorError) {
    let content = record.content.part
    let fits =
      switch record.attributes.part.type {
      case .file: true
      case .directory: content.inlineContent.isEmpty && content.size <= RecordLimits.directoryByteCountMax
      // The target stands in the record.
      case .symbolicLink:
        !content.inlineContent.isEmpty && content.size <= UInt64(RecordLimits.inlineContentByteCountMax)
      case .credential, .superblock: content.inlineContent.isEmpty && content.size == 0
      }
    guard fits else { throw .invalidRecord(record.fileID, .contradiction("size")) }
  }

  /// What inodes in special places are, and how many names the others have.
  private static func checkPlace(of record: InodeRecord) throws(SectorError) {
    let file = record.fileID
    let type = record.attributes.part.type
    guard (file.inode == .superblock) == (type == .superblock) else {
      throw .invalidRecord(file, .contradiction("type"))
    }
    try Self.checkContent(of: record)
    if file == .rootDirectory {
      guard type == .directory else { throw .invalidRecord(file, .contradiction("type")) }
    }
    let links = record.links.part
    if file.inode == .superblock || file == .rootDirectory {
      // Neither of the two stands in a directory: whoever served that one would have all.
      guard links.parents.isEmpty, links.pending == nil else { throw .invalidRecord(file, .contradiction("parents")) }
      return
    }
    guard Int(links.count) == links.parents.count else { throw .invalidRecord(file, .contradiction("parents")) }
    switch type {
    case .directory, .credential:
      // What the tree is a tree by.
      guard links.parents.count <= 1 else { throw .invalidRecord(file, .contradiction("parents")) }
    case .file, .symbolicLink, .superblock: break
    }
  }

  /// Of other generations' directories, only the home holds names for what is stored here. Which, the cluster that
  /// stores it can not see; and the credential files in it are that cluster's.
  private func checkDirectories(of record: InodeRecord) throws(SectorError) {
    for directory in Self.directories(of: record) where directory.generation != record.fileID.generation {
      guard directory == self.home, record.attributes.part.type != .credential else {
        throw .invalidRecord(record.fileID, .contradiction("parents"))
      }
    }
  }

  /// The generation that a directory is handed to with this change; nil when it is not.
  static func delegation(from old: InodeRecord?, to new: InodeRecord) -> Generation? {
    let generation = new.attributes.part.servedByGeneration
    return generation == old?.attributes.part.servedByGeneration ? nil : generation
  }

  /// The generation that a directory is taken back from with this change; nil when it is not.
  static func retirement(from old: InodeRecord?, to new: InodeRecord) -> Generation? {
    new.attributes.part.servedByGeneration == nil ? old?.attributes.part.servedByGeneration : nil
  }

  /// A process with the sector mark hands the directory that it lies in to a cluster of its own, and changes nothing
  /// else.
  private func authorizeDelegation(
    _ generation: Generation, _ changed: ChangedParts, from old: InodeRecord?, to new: InodeRecord
  ) throws(SectorError) {
    guard let old, new.fileID == self.hostDirectory, new.fileID != self.home,
      changed == ChangedParts(attributes: true), old.credential == new.credential
    else { throw .permissionDenied }
    guard old.attributes.part.type == .directory, generation > .root, generation != new.fileID.generation else {
      throw .invalidRecord(new.fileID, .contradiction("served_by_generation"))
    }
    var expected = old.attributes.part
    expected.version = new.attributes.part.version
    expected.changed = new.attributes.part.changed
    expected.servedByGeneration = generation
    expected.actingFor = nil
    guard new.attributes.part == expected else { throw .permissionDenied }
  }

  /// Whether the committer may make this change.
  func authorize(_ changed: ChangedParts, from old: InodeRecord?, to new: InodeRecord) throws(SectorError) {
    if let generation = Self.delegation(from: old, to: new) {
      return try self.authorizeDelegation(generation, changed, from: old, to: new)
    }
    // Those who store it do not let it go by themselves: a service above has to have what they store.
    if Self.retirement(from: old, to: new) != nil, self.role != .filesystem || self.directory == new.fileID {
      throw .permissionDenied
    }
    if self.role == .filesystem { return }
    // Only a filesystem service may name somebody else.
    let actors: [TreePath?] = [
      changed.content ? new.content.part.actingFor : nil, changed.attributes ? new.attributes.part.actingFor : nil,
      changed.links ? new.links.part.actingFor : nil,
    ]
    guard actors.allSatisfy({ $0 == nil }) else { throw .permissionDenied }
    switch new.attributes.part.type {
    case .file, .directory, .symbolicLink: break
    case .credential:
      // Its own addresses, which `checkCredential` looks at.
      guard old != nil, changed == ChangedParts() else { throw .permissionDenied }
    case .superblock: throw .permissionDenied
    }
    guard let old else { return try self.authorizeCreation(new) }
    let rules = old.attributes.part.rules
    if changed.content, !self.permits(.write, rules) { throw .permissionDenied }
    if changed.attributes {
      guard rules.owner == self.committer, new.attributes.part.rules.owner == self.committer,
        new.attributes.part.servedByGeneration == old.attributes.part.servedByGeneration
      else { throw .permissionDenied }
    }
    if changed.links { try self.authorizeLinks(from: old.links.part, to: new.links.part, rules) }
  }

  private func authorizeLinks(from old: LinksPart, to new: LinksPart, _ rules: AccessRules) throws(SectorError) {
    let isOwner = rules.owner == self.committer
    // Whoever adds or removes a name writes that directory.
    let changes = Self.changes(old, new)
    guard changes.keys.allSatisfy(self.mayChange) else { throw .permissionDenied }
    for (directory, count) in changes where count < 0 {
      guard self.mayTake(from: directory, ownedBy: rules.owner) else { throw .permissionDenied }
    }
    if isOwner { return }
    guard !changes.isEmpty, old.pending == new.pending else { throw .permissionDenied }
    // Whoever may not change a file must not keep it from being removed, nor bring it below a directory of its own.
    if new.parents.count > old.parents.count, !self.permits(.write, rules) { throw .permissionDenied }
  }

  private func authorizeCreation(_ new: InodeRecord) throws(SectorError) {
    guard new.attributes.part.rules.owner == self.committer, new.attributes.part.servedByGeneration == nil else {
      throw .permissionDenied
    }
    let directories = Self.directories(of: new)
    guard !directories.isEmpty else { throw .invalidRecord(new.fileID, .contradiction("parents")) }
    guard directories.allSatisfy(self.mayChange) else { throw .permissionDenied }
  }

  /// Whether the committer may put this credential in the place of another.
  ///
  /// - Parameter new: verified: an authority above its path has signed it.
  func checkCredential(_ file: FileID, from old: CredentialFile?, to new: CredentialFile) throws(SectorError) {
    guard let old else { return }
    guard new.marks.place == old.marks.place, new.marks.serial >= old.marks.serial,
      new.marks.serial > old.marks.serial || new.marks == old.marks
    else { throw .invalidRecord(file, .contradiction("credential")) }
    if let known = old.addresses, let addresses = new.addresses, addresses.addresses.keyID == known.addresses.keyID {
      guard addresses.addresses.serial > known.addresses.serial || addresses.addresses == known.addresses else {
        throw .invalidRecord(file, .contradiction("credential"))
      }
    }
    if self.role == .filesystem { return }
    // A process says itself where it is, and nothing else.
    guard self.committer == old.marks.place.path, new.addresses != nil, new == old.replacing(addresses: new.addresses)
    else { throw .permissionDenied }
  }

  /// Whether the committer may remove an inode, and with it all of its names.
  func authorizeRemoval(of old: InodeRecord) throws(SectorError) {
    guard old.fileID.inode != .superblock, old.fileID != .rootDirectory else {
      throw .invalidRecord(old.fileID, .contradiction("type"))
    }
    if self.role == .filesystem { return }
    let directories = Self.directories(of: old)
    let owner = old.attributes.part.rules.owner
    guard directories.allSatisfy({ self.mayTake(from: $0, ownedBy: owner) }) else { throw .permissionDenied }
    if directories.isEmpty, owner != self.committer { throw .permissionDenied }
  }

  /// Whether the committer may know of an inode.
  func maySee(_ record: InodeRecord) -> Bool {
    if self.role == .filesystem || record.attributes.part.rules.owner == self.committer { return true }
    // It may have to hand it to its own cluster.
    if record.fileID == self.hostDirectory { return true }
    return [Permission.read, .write, .execute].contains { self.permits($0, record.attributes.part.rules) }
  }

  /// The directories that an inode is or is to be in, each once, in order.
  static func directories(of record: InodeRecord) -> [FileID] {
    // Nearly all inodes have one name.
    if record.links.part.pending == nil, record.links.part.parents.count < 2 { return record.links.part.parents }
    var directories = Set(record.links.part.parents)
    if let pending = record.links.part.pending { directories.insert(pending.directory) }
    return directories.sorted()
  }

  private func permits(_ wanted: Permission, _ rules: AccessRules) -> Bool {
    rules.permits(wanted, caller: .principal(self.committer), memberOf: { _ in false })
  }

  /// The directories whose number of names for an inode changes, in order.
  static func difference(_ old: LinksPart, _ new: LinksPart) -> [FileID] { self.changes(old, new).keys.sorted() }

  /// By directory, whether it gains (above 0) or loses names for an inode.
  private static func changes(_ old: LinksPart, _ new: LinksPart) -> [FileID: Int] {
    var counts: [FileID: Int] = [:]
    for parent in old.parents { counts[parent, default: 0] -= 1 }
    for parent in new.parents { counts[parent, default: 0] += 1 }
    if old.pending?.directory != new.pending?.directory {
      // Far more than there can be names, so that none of them makes up for a mark.
      if let directory = old.pending?.directory { counts[directory, default: 0] -= 1_000_000 }
      if let directory = new.pending?.directory { counts[directory, default: 0] += 1_000_000 }
    }
    return counts.filter { $0.value != 0 }
  }
}
