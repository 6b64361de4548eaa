// SPDX-License-Identifier: Apache-2.0

internal import Foundation
package import Inodes
internal import Sectors
package import Trust

extension Filesystem {
  /// What a new principal needs to start, beside its credential.
  package struct Admission: Sendable {
    package let file: FileInfo
    /// The directory's key, sealed to the new process, when it hosts the filesystem service.
    package let readcap: (directory: TreePath, fileID: FileID, readcap: Readcap)?
    /// The directory that the credential file lies in.
    package let directory: FileID
  }

  /// Puts a credential file into the tree, or a newer one in its place. An authority above has signed it, and the caller
  /// may write the directory; a process with the filesystem mark is handed its directory's key.
  ///
  /// - Throws: `badCredential` when the credential does not verify, or is not newer than the one that is there;
  ///   `notFound` when its directory is missing.
  package func addCredential(_ bytes: [UInt8], _ request: Request) async throws(FilesystemError) -> Admission {
    _ = try request.writer()
    let member = try await self.requireMember()
    let file: CredentialFile
    let verified: VerifiedCredentialFile
    do throws(TrustError) {
      file = try CredentialFile(bytes: bytes)
      verified = try file.verify(
        with: member.verifier, at: Date(timeIntervalSince1970: Double(self.now()) / 1e9))
    } catch {
      throw .badCredential(error.rawValue)
    }
    guard bytes.count <= RecordLimits.credentialByteCountMax else {
      throw .tooLarge("credential", limit: RecordLimits.credentialByteCountMax, found: bytes.count)
    }
    guard let directory = verified.credential.path.parent else { throw .badCredential("PATH_NOT_COVERED") }
    // What stores the directory itself stores the credential files in it, and whoever has its key names them there.
    if directory == self.home.path, !directory.isRoot, try await !self.isCutOff(self.home.fileID) {
      throw self.redirection(upTo: nil)
    }
    // No directory is renamed meanwhile.
    let outcome = await self.moves.alone { () async -> Result<Admission, FilesystemError> in
      do throws(FilesystemError) {
        return .success(
          try await self.lookingUp { () throws(FilesystemError) -> Admission? in
            try await self.admit(file, verified, in: directory, request)
          })
      } catch {
        return .failure(error)
      }
    }
    return try outcome.get()
  }

  /// Puts a verified credential file in its place; nil when the directory was removed meanwhile.
  private func admit(
    _ file: CredentialFile, _ verified: VerifiedCredentialFile, in directory: TreePath, _ request: Request
  ) async throws(FilesystemError) -> Admission? {
    let path = verified.credential.path
    // The way is that of the process itself; what the caller may do is judged with the directory.
    let own = CallerIdentity.principal(self.identity.path)
    let (parent, name, place) = try await self.newPlace(
      path, for: own, follow: false, entersLast: true, needsMember: true)
    // Its path is its name: no symbolic link may have led here.
    guard place.path == path else { throw .notDirectory }
    let volume = try await self.volumes.volume(of: parent.fileID)
    let fileID = try await self.numbers.next(in: volume)
    guard let key = parent.key else { throw .noKey(parent.fileID) }
    var readcap: Readcap?
    if verified.services.contains(.filesystem) {
      readcap = try self.seal(key, of: parent.fileID, to: verified.agreementKey, at: path)
    }
    let owner = try request.writer()
    let contentID = Self.randomContentID()
    let change = DirectoryRequest(operation: request.identified, byteCount: volume.sectorSize) {
      [readcap] edit throws(FilesystemError) in
      edit.caller = request.caller
      // The authority's signature says who the principal is. That it is put here, now, is the caller's doing: a
      // credential that was removed is known to many.
      try edit.require([.write, .execute], in: parent)
      let about: FileID
      if let present = edit.entry(name, in: parent) {
        about = present.fileID
        try await edit.replaceCredential(present, by: file)
      } else {
        about = fileID
        // Its path is signed, so nothing on it may be renamed. (Where this process's own credential lies below, nothing
        // is anyhow.)
        for directory in place.directories.dropFirst() { try await edit.touch(directory) }
        // No keys are drawn here, as that takes turns.
        let again = try await self.place(of: path, for: own, follow: false, entersLast: true, needsMember: true)
        guard again.directories == place.directories else { throw .contended }
        try edit.createCredential(
          name: name, fileID: fileID, in: parent, bytes: file.bytes, owner: owner, contentID: contentID,
          sectorSize: volume.sectorSize)
      }
      if let readcap { try await edit.add(readcap, to: parent.fileID) }
      return about
    }
    return try await self.unlessRemoved([parent]) { () throws(FilesystemError) in
      guard let record = try await self.change(parent, change) else { throw .notFound }
      return Admission(
        file: FileInfo(record), readcap: readcap.map { (directory, parent.fileID, $0) },
        directory: parent.fileID)
    }
  }
  /// Seals a directory's key to a principal.
  func seal(
    _ key: FileKey, of file: FileID, to recipient: AgreementPublicKey, at path: TreePath
  ) throws(FilesystemError) -> Readcap {
    do throws(TrustError) {
      return try Readcap(sealing: key, of: file, domain: self.identity.domain, to: recipient, at: path)
    } catch {
      throw .badCredential(error.rawValue)
    }
  }
}

extension Edit {
  /// Makes a credential file, which is signed and not encrypted.
  mutating func createCredential(
    name: PathComponent, fileID: FileID, in parent: InodeState, bytes: [UInt8], owner: TreePath, contentID: [UInt8],
    sectorSize: Int
  ) throws(FilesystemError) {
    let content = ContentPart(
      fileID: fileID, version: 1, sectorSize: sectorSize, contentID: contentID,
      modified: self.time)
    try self.create(
      DirectoryEntry(name: name, fileID: fileID, type: .credential, key: nil), in: parent, content: content,
      mode: Mode(truncating: 0o644), owner: owner, credential: bytes)
  }

  /// Puts a newer credential file in the place of another.
  mutating func replaceCredential(_ entry: DirectoryEntry, by file: CredentialFile) async throws(FilesystemError) {
    guard entry.type == .credential else { throw .alreadyExists }
    var draft = try await self.draft(entry.fileID)
    guard let old = draft.old.flatMap({ try? CredentialFile(bytes: $0.credential) }) else {
      throw .dataLoss(entry.fileID, .record)
    }
    guard file.marks.serial > old.marks.serial else { throw .badCredential("OLD_SERIAL") }
    draft.credential = file.bytes
    if var attributes = draft.currentAttributes {
      attributes.version = draft.version
      attributes.changed = self.time
      attributes.actingFor = Self.actingFor(self.caller, self.filesystem.identity.path)
      draft.attributes = attributes
    }
    self.put(draft)
  }

  /// Adds a readcap to a directory's attributes, in place of those for the same principal and key.
  mutating func add(_ readcap: Readcap, to directory: FileID) async throws(FilesystemError) {
    var draft = try await self.draft(directory)
    guard var attributes = draft.currentAttributes else { throw .dataLoss(directory, .record) }
    attributes.readcaps.removeAll { $0.principal == readcap.principal }
    // Its key was given to the edit by whoever has sealed it.
    guard draft.currentContent?.keyEpoch == readcap.epoch else { throw .keyOutdated(directory) }
    guard attributes.readcaps.count < RecordLimits.readcapsMax else { throw .limitReached("readcaps") }
    attributes.readcaps.append(readcap)
    attributes.version = draft.version
    attributes.changed = self.time
    attributes.actingFor = Self.actingFor(self.caller, self.filesystem.identity.path)
    draft.attributes = attributes
    self.put(draft)
  }
}
