// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import SectorStore
private import Synchronization
package import Trust

/// A credential file, and where it lies.
package typealias CredentialEntry = CredentialIndex.Entry

/// The credential files that a generation's cluster judges by, by path: who is confirmed, and what each process hosts.
/// It is derived from what is stored, when the service starts and with each commit: from the records of credential
/// files, and in the cluster of a delegated directory also from its copies of those that lie in that directory.
package final class CredentialIndex: Sendable {
  package struct Entry: Hashable, Sendable {
    package let fileID: FileID
    /// The directory that holds the credential file.
    package let directory: FileID?
    package let credential: CredentialFile

    package init(fileID: FileID, directory: FileID?, credential: CredentialFile) {
      self.fileID = fileID
      self.directory = directory
      self.credential = credential
    }

    package var path: TreePath { self.credential.marks.place.path }
  }

  private struct State {
    var byPath: [TreePath: Entry] = [:]
    var pathByFile: [FileID: TreePath] = [:]
    /// Copies of what the cluster above stores, which is the one to say what holds of these paths.
    var copies: [TreePath: Entry] = [:]
    var pathByCopy: [String: TreePath] = [:]
    /// The paths of processes that host something, by the directory that they lie in.
    var processes: [TreePath: Set<TreePath>] = [:]
    /// How many processes with the sector mark lie in a directory.
    var hosts: [TreePath: Int] = [:]
    /// The commits that the index has its files from, removals included: whoever finishes late must not bring back what
    /// was removed.
    var notedAt: [FileID: LogIndex] = [:]
    var copyNotedAt: [String: LogIndex] = [:]
    var damaged: [FileID] = []
    /// Whether only copies count.
    var isRetired = false

    func entry(_ path: TreePath) -> Entry? { self.copies[path] ?? self.byPath[path] }

    /// Changes what there is at a path.
    mutating func change(_ path: TreePath, _ body: (inout State) -> Void) {
      let old = self.entry(path)
      body(&self)
      let new = self.entry(path)
      guard let directory = path.parent, old != new else { return }
      if new?.credential.marks.services.isEmpty ?? true {
        self.processes[directory]?.remove(path)
        if self.processes[directory]?.isEmpty == true { self.processes[directory] = nil }
      } else {
        self.processes[directory, default: []].insert(path)
      }
      let count = self.hosts[directory, default: 0] + (new.isHost ? 1 : 0) - (old.isHost ? 1 : 0)
      self.hosts[directory] = count > 0 ? count : nil
    }
  }

  private let state = Mutex(State())
  /// The directory that copies come from.
  private let home: FileID

  /// - Parameter home: the directory that the cluster serves.
  package init(home: FileID = .rootDirectory) { self.home = home }

  /// The entry of a credential file.
  package func entry(_ path: TreePath) -> Entry? { self.state.withLock { $0.entry(path) } }

  /// All entries, by path.
  package var all: [Entry] {
    let entries = self.state.withLock { $0.byPath.merging($0.copies) { _, copy in copy } }
    return entries.sorted { $0.key < $1.key }.map(\.value)
  }

  /// The processes that lie directly in a directory and whose marks name at least one service, by path.
  package func processes(in directory: TreePath) -> [Entry] {
    self.state.withLock { state in (state.processes[directory] ?? []).sorted().compactMap { state.entry($0) } }
  }

  /// The directories with a process in them that has the sector mark: the home, and those that were handed to clusters
  /// of their own, or are about to be.
  var hostDirectories: Set<TreePath> { self.state.withLock { Set($0.hosts.keys) } }

  /// Credential files that could not be read when the service started. Nobody is confirmed by them.
  package var damaged: [FileID] { self.state.withLock { $0.damaged } }

  func noteDamage(of file: FileID) { self.state.withLock { $0.damaged.append(file) } }

  /// Whether the principal with this credential stands in the tree, with this key.
  package func confirms(_ credential: Credential) -> Bool {
    guard let entry = self.entry(credential.path) else { return false }
    return entry.credential.marks.keyID == credential.keyID
  }

  /// The directory of a process that hosts a service by the marks that stand in the tree; nil when it does not.
  package func directory(of credential: Credential, hosting service: Service) -> FileID? {
    // A user hosts nothing, whatever its marks say.
    guard credential.kind == .process, let entry = self.entry(credential.path),
      entry.credential.marks.keyID == credential.keyID, entry.credential.marks.services.contains(service)
    else { return nil }
    return entry.directory
  }

  /// Takes note of a record, as the commit at this place in the log left it.
  func note(_ record: InodeRecord, at index: LogIndex) {
    guard record.attributes.part.type == .credential else { return }
    // Without a name it confirms nobody.
    let credential = record.links.part.count == 0 ? nil : try? CredentialFile(bytes: record.credential)
    let entry = credential.map {
      Entry(fileID: record.fileID, directory: record.links.part.parents.first, credential: $0)
    }
    self.put(entry, of: record.fileID, at: index)
  }

  /// Takes note of a removed credential file, also of one that was never noted: the commit that made it may finish
  /// later.
  func noteRemoval(of file: FileID, at index: LogIndex) { self.put(nil, of: file, at: index) }

  /// Takes note of a copy, as the entry at this place in the log left it; nil: there is none any more.
  ///
  /// - Parameter key: what the copy is kept by.
  func noteCopy(_ credential: CredentialFile?, of file: FileID?, key: String, at index: LogIndex) {
    self.state.withLock { state in
      if let noted = state.copyNotedAt[key], noted > index { return }
      state.copyNotedAt[key] = index
      if let former = state.pathByCopy.removeValue(forKey: key) { state.change(former) { $0.copies[former] = nil } }
      guard let credential, let file else { return }
      let entry = Entry(fileID: file, directory: self.home, credential: credential)
      state.pathByCopy[key] = entry.path
      state.change(entry.path) { $0.copies[entry.path] = entry }
    }
  }

  /// From now on only copies count: what is stored here is stored by the cluster above, which says what holds of it.
  func retire() {
    self.state.withLock { state in
      state.isRetired = true
      for path in state.byPath.keys { state.change(path) { $0.byPath[path] = nil } }
      state.pathByFile = [:]
    }
  }

  /// Whether there is no credential file at all.
  var isEmpty: Bool { self.state.withLock { $0.byPath.isEmpty && $0.copies.isEmpty } }

  private func put(_ entry: Entry?, of file: FileID, at index: LogIndex) {
    self.state.withLock { state in
      if let noted = state.notedAt[file], noted > index { return }
      state.notedAt[file] = index
      if let former = state.pathByFile.removeValue(forKey: file), state.byPath[former]?.fileID == file {
        state.change(former) { $0.byPath[former] = nil }
      }
      guard let entry, !state.isRetired else { return }
      state.pathByFile[file] = entry.path
      state.change(entry.path) { $0.byPath[entry.path] = entry }
    }
  }
}

extension CredentialIndex.Entry? {
  fileprivate var isHost: Bool { self?.credential.marks.services.contains(.sector) ?? false }
}
