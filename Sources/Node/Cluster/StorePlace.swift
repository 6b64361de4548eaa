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

  // MARK: Set aside

  /// A process that has set aside so many does not do so again by itself: its disk has to be looked after.
  static let setAsideMax = 3

  /// Stores that were set aside, each a directory beside the store's place: nobody but people removes them.
  var setAside: [String] {
    let (parent, name) = OwnerFiles.split(self.path)
    let names = (try? OwnerFiles.list(parent)).flatMap { $0 } ?? []
    return names.filter { found in
      guard found.hasPrefix(name + "."), found.count > name.count + 1 else { return false }
      return found != name + ".incoming" && found != name + ".outgoing"
    }.sorted()
  }

  /// Moves the store out of the way, as `generation-1.<why>-<time>`, and leaves it as it is. Durable when it returns. To
  /// be called while no store is open.
  ///
  /// - Parameter why: one word, for the name.
  /// - Returns: where it is now.
  func setAside(_ why: String) throws(NodeError) -> String {
    let time = WallClock.date().formatted(Date.ISO8601FormatStyle(dateSeparator: .omitted, timeSeparator: .omitted))
    var target = "\(self.path).\(why)-\(time)"
    var number = 1
    while OwnerFiles.exists(target) {
      number += 1
      target = "\(self.path).\(why)-\(time)-\(number)"
    }
    do throws(FileError) {
      try self.files.rename(self.path, to: target)
      try self.files.syncDirectory(self.parent)
    } catch {
      throw .inconsistent("\(self.path) can not be set aside as \(target): \(error)")
    }
    return target
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
