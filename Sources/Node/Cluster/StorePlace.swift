// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import SectorStore

/// Where a node's store is, and the one beside it that takes its place when a snapshot is complete.
struct StorePlace: Sendable {
  let path: String
  let files: any FileLayer

  init(_ path: String, files: any FileLayer) {
    self.path = path
    self.files = files
  }

  /// Where a snapshot is put together.
  var incoming: String { self.path + ".incoming" }
  private var outgoing: String { self.path + ".outgoing" }

  var hasStore: Bool { self.isStore(self.path) }

  /// Puts a complete new store in the place of the old one. A crash at any point leaves one of the two, and the next start
  /// goes on from there. To be called while no store is open.
  func settle() throws(NodeError) {
    if self.isStore(self.incoming) {
      if OwnerFiles.exists(self.path) { try self.removeOutgoing() }
      do throws(FileError) {
        if OwnerFiles.exists(self.path) { try self.files.rename(self.path, to: self.outgoing) }
        try self.files.rename(self.incoming, to: self.path)
        try self.files.syncDirectory(self.parent)
      } catch {
        throw .inconsistent("\(self.incoming) can not take the place of \(self.path): \(error)")
      }
    }
    try self.removeOutgoing()
  }

  private func removeOutgoing() throws(NodeError) {
    guard OwnerFiles.exists(self.outgoing) else { return }
    do { try FileManager.default.removeItem(atPath: self.outgoing) } catch {
      throw .inconsistent("\(self.outgoing) can not be removed: \(error)")
    }
  }

  private func isStore(_ path: String) -> Bool {
    OwnerFiles.exists(path) && SectorStore.exists(at: path, files: self.files)
  }

  private var parent: String { String(self.path[..<(self.path.lastIndex(of: "/") ?? self.path.startIndex)]) }
}
