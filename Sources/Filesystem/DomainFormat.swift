// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import Sectors
package import Trust

/// Makes the first contents of a domain: superblock, root directory, and the credential files of the first process and
/// the first person, in one commit.
package struct DomainFormat: Sendable {
  private let process: CredentialFile
  private let person: CredentialFile
  private let root: AgreementPublicKey
  private let domain: DomainID
  private let time: Int64

  /// - Parameters:
  ///   - process: the first process, directly in the root directory.
  ///   - person: who owns the root directory, with a credential directly in it.
  ///   - root: the root principal's key-agreement key: what the root directory's key is sealed to as well, so that the
  ///     loss of the process is not the loss of the tree.
  ///   - time: nanoseconds since 1970 UTC.
  package init(
    process: CredentialFile, person: CredentialFile, root: AgreementPublicKey, domain: DomainID, time: Int64
  ) {
    self.process = process
    self.person = person
    self.root = root
    self.domain = domain
    self.time = time
  }

  /// Commits the first contents into an empty group.
  package func commit(
    to sectors: SectorGroup, as identity: Credential, signer: RecordSigner
  ) async throws {
    let superblock = FileID(generation: .root, inode: .superblock)
    let owner = self.person.marks.place.path
    let key = FileKey.random()
    let rules = AccessRules(owner: owner, group: .root, mode: Mode(truncating: 0o755))

    var content = self.content(.rootDirectory, sectors)
    content.directoryFormat = DirectoryContent.format
    var entries = DirectoryContent(sectorSize: sectors.sectorSize)
    var commit = Commit()
    var records: [(FileType, ContentPart, [UInt8])] = [(.superblock, self.content(superblock, sectors), [])]
    var number: UInt64 = try await sectors.allocateInodes(2)
    for credential in [self.process, self.person] {
      let file = FileID(generation: .root, inode: InodeNumber(number))
      number += 1
      guard let name = credential.marks.place.path.last, credential.marks.place.path.depth == 1 else {
        throw FilesystemError.badCredential("PATH_NOT_COVERED")
      }
      entries.insert(DirectoryEntry(name: name, fileID: file, type: .credential, key: nil))
      records.append((.credential, self.content(file, sectors), credential.bytes))
    }
    var change = FileContent.Change(content: content, tree: IntegrityTree())
    let cipher = SectorCipher(key: key, contentID: content.contentID)
    let changed = try entries.takeChangedSectors()
    try change.tree.resize(to: UInt64(entries.sectorCount))
    for (index, bytes) in changed {
      let (leaves, run) = try cipher.seal(bytes[...], from: UInt64(index), sectorSize: sectors.sectorSize)
      for leaf in leaves { try change.tree.set(leaf, at: UInt64(index)) }
      change.blocks.runs.append(run)
    }
    change.content.size = UInt64(entries.sectorCount) * UInt64(sectors.sectorSize)
    change.sealTree()
    records.append((.directory, change.content, []))
    commit.blocks[.rootDirectory] = change.blocks

    for (type, content, credential) in records {
      var attributes = AttributesPart(
        fileID: content.fileID, version: 1, type: type, rules: rules, changed: self.time, created: self.time)
      if type == .credential { attributes.rules.mode = Mode(truncating: 0o644) }
      if type == .directory {
        attributes.readcaps = [
          try self.readcap(key, to: self.process), try self.readcap(key, to: self.person),
          try Readcap(sealing: key, of: .rootDirectory, domain: self.domain, to: self.root, at: .root),
        ]
      }
      // The root directory and the superblock are in no directory.
      let isEntry = type == .credential
      let links = LinksPart(
        fileID: content.fileID, version: 1, count: 1, parents: isEntry ? [.rootDirectory] : [])
      commit.records.append(
        InodeRecord(
          fileID: content.fileID, version: 1, content: try signer.sign(content),
          attributes: try signer.sign(attributes), links: try signer.sign(links), credential: credential))
    }
    _ = try await sectors.perform(commit, by: identity)
  }

  private func content(_ file: FileID, _ sectors: SectorGroup) -> ContentPart {
    ContentPart(
      fileID: file, version: 1, sectorSize: sectors.sectorSize, contentID: Filesystem.randomContentID(),
      modified: self.time)
  }

  private func readcap(_ key: FileKey, to credential: CredentialFile) throws(TrustError) -> Readcap {
    try Readcap(
      sealing: key, of: .rootDirectory, domain: self.domain, to: credential.marks.agreementKey,
      at: credential.marks.place.path)
  }
}
