// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Replication
internal import SectorStore
internal import Synchronization
internal import Trust

// The credential files of a delegated directory's processes are stored by the cluster above. The directory's own
// cluster keeps copies of them as facts, so that its members find and believe one another by what they have, whoever
// else can be reached.
extension SectorGroup {
  /// Makes the copies of the credential files that lie directly in the home equal to these, in one change, and only if
  /// they differ. Durable and known on return. A process that is not among them any more and is a member leaves the
  /// group first: its vote may be needed to let it go.
  ///
  /// Only for clusters of delegated directories, and only the one that leads does it.
  ///
  /// - Parameter files: all that there are, as the cluster above has them, verified by the caller. At most
  ///   `SectorLimits.memberCredentialsMax`.
  /// - Throws: `processNeeded` when a member can not be done without now, `busy` when another call is under way:
  ///   nothing was changed, and it is to be tried again later. `notLeader`, also when it is this very member that has left.
  package func setMemberCredentials(_ files: [CredentialEntry]) async throws(SectorError) {
    guard self.generation != .root else { throw .invalid(field: "generation") }
    let copies = try Self.copies(files, home: self.home)
    guard
      self.isSettingMembers.withLock({ isSetting in
        defer { isSetting = true }
        return !isSetting
      })
    else { throw .busy }
    defer { self.isSettingMembers.withLock { $0 = false } }
    // What is left of them has to be known from this term on: nobody else changes them in it.
    let term = try await self.lead()
    let present: [String: [UInt8]]
    do throws(StoreError) { present = try self.store.facts(prefix: Self.copyPrefix) } catch { throw self.error(error) }
    var facts: [Change.Fact] = []
    for (key, value) in copies where present[key] != value { facts.append(.init(key: key, value: value)) }
    var removed: [TreePath] = []
    for (key, value) in present where !value.isEmpty && copies[key] == nil {
      facts.append(.init(key: key, value: []))
      if let entry = Self.copy(value) { removed.append(entry.path) }
    }
    if facts.isEmpty { return }
    facts.sort { $0.key < $1.key }
    var departed: [TreePath] = []
    defer { self.endDeparture(of: departed) }
    for path in removed.sorted() where self.isInGroup(path) {
      departed.append(path)
      try await self.depart(path)
    }
    var change = Change()
    change.facts = facts
    let proposed = change
    try await self.finish(Result { () throws(StoreError) in try self.replica.propose(proposed, term: term) })
  }

  /// By fact, the copies of credential files.
  ///
  /// - Throws: `invalid` unless each lies directly in the home, `tooLarge`.
  static func copies(_ files: [CredentialEntry], home: GroupHome) throws(SectorError) -> [String: [UInt8]] {
    guard files.count <= SectorLimits.memberCredentialsMax else {
      throw .tooLarge("members", limit: SectorLimits.memberCredentialsMax, found: files.count)
    }
    var copies: [String: [UInt8]] = [:]
    var byteCount = 0
    for file in files {
      let value = file.fileID.factBytes + file.credential.bytes
      byteCount += value.count
      guard file.directory == home.directory, file.path.parent == home.path,
        copies.updateValue(value, forKey: Self.copyKey(file.path)) == nil
      else { throw .invalid(field: "members") }
    }
    let limit = SectorLimits.memberCredentialsByteCountMax
    guard byteCount <= limit else { throw .tooLarge("members", limit: limit, found: byteCount) }
    return copies
  }

  /// What a new group has to know from the beginning.
  static func facts(_ bootstrap: GroupBootstrap) throws(SectorError) -> [Change.Fact] {
    let copies = try self.copies(bootstrap.members, home: bootstrap.home)
    return [bootstrap.home.fact] + copies.sorted { $0.key < $1.key }.map { .init(key: $0.key, value: $0.value) }
  }

  /// Takes note of the copies that a store keeps.
  static func noteCopies(of store: SectorStore, in index: CredentialIndex) throws(StoreError) {
    for (key, value) in try store.facts(prefix: self.copyPrefix) {
      self.noteCopy(.init(key: key, value: value), at: .zero, in: index)
    }
  }

  static func isCopy(_ fact: Change.Fact) -> Bool { fact.key.hasPrefix(self.copyPrefix) }

  /// Takes note of a copy, as the entry at this place in the log left it.
  static func noteCopy(_ fact: Change.Fact, at index: StoreLogIndex, in credentials: CredentialIndex) {
    let copy = self.copy(fact.value)
    if copy == nil, !fact.value.isEmpty {
      credentials.noteDamage(of: FileID(factBytes: fact.value.prefix(16)) ?? .rootDirectory)
    }
    credentials.noteCopy(copy?.credential, of: copy?.fileID, key: fact.key, at: index)
  }

  private static func copy(_ value: [UInt8]) -> (fileID: FileID, credential: CredentialFile, path: TreePath)? {
    guard let file = FileID(factBytes: value.prefix(16)),
      let credential = try? CredentialFile(bytes: Array(value.dropFirst(16)))
    else { return nil }
    return (file, credential, credential.marks.place.path)
  }

  /// The store takes care to have on its disk what begins like this, as members find one another by it.
  private static let copyPrefix = SectorStore.memberFactPrefix + "credential."

  /// Paths may be longer than names of facts.
  private static func copyKey(_ path: TreePath) -> String { "\(self.copyPrefix)\(Digest32(sha256: path.bytes))" }
}
