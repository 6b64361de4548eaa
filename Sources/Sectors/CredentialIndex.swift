// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import SectorStore
private import Synchronization
package import Trust

/// The credential files of a generation by path: who is confirmed, and what each process hosts. It is derived from the
/// stored records, when the service starts and with each commit.
package final class CredentialIndex: Sendable {
  package struct Entry: Hashable, Sendable {
    package let fileID: FileID
    /// The directory that holds the credential file.
    package let directory: FileID?
    package let credential: CredentialFile
  }

  private struct State {
    var byPath: [TreePath: Entry] = [:]
    var pathByFile: [FileID: TreePath] = [:]
    /// The commits that the index has its files from, removals included: whoever finishes late must not bring back what
    /// was removed.
    var notedAt: [FileID: LogIndex] = [:]
    var damaged: [FileID] = []
  }

  private let state = Mutex(State())

  package init() {}

  /// The entry of a credential file.
  package func entry(_ path: TreePath) -> Entry? { self.state.withLock { $0.byPath[path] } }

  /// All entries, by path.
  package var all: [Entry] { self.state.withLock { $0.byPath.sorted { $0.key < $1.key }.map(\.value) } }

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

  /// Whether there is no credential file at all.
  var isEmpty: Bool { self.state.withLock { $0.byPath.isEmpty } }

  private func put(_ entry: Entry?, of file: FileID, at index: LogIndex) {
    self.state.withLock { Self.put(entry, of: file, at: index, in: &$0) }
  }

  private static func put(_ entry: Entry?, of file: FileID, at index: LogIndex, in state: inout State) {
    if let noted = state.notedAt[file], noted > index { return }
    state.notedAt[file] = index
    if let former = state.pathByFile.removeValue(forKey: file), state.byPath[former]?.fileID == file {
      state.byPath[former] = nil
    }
    guard let entry else { return }
    let path = entry.credential.marks.place.path
    state.byPath[path] = entry
    state.pathByFile[file] = path
  }
}
