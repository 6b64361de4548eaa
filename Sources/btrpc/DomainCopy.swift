// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient

/// Moves files from one cluster to another one, as `mv` does between filesystems: by copying all of it, and removing
/// the original when the copy is complete. Owner and group become the caller's.
struct DomainMove: Sendable {
  let client: Client
  /// Whether a file that is there may be replaced.
  let replaces: Bool

  /// What is copied whole, so that it can be sent again.
  private static let smallByteCount: UInt64 = 1 << 20

  /// A file that was copied, as it was then.
  private struct Copied {
    let path: RemotePath
    let info: FileInfo
  }

  /// - Returns: the copy.
  func run(_ source: RemotePath, to destination: RemotePath) async throws -> FileInfo {
    if (destination.inDomain + "/").hasPrefix(source.inDomain + "/") { throw Self.intoItself(source) }
    let original = try await about(source.text) { try await self.client.stat(source.text, followsLink: false) }
    if original.type == .directory, await self.ancestors(of: destination).contains(original.id) {
      throw Self.intoItself(source)
    }
    var copied: [Copied] = []
    let info = try await self.copy(source, to: destination, &copied)
    try await self.remove(copied)
    return info
  }

  // MARK: Into itself

  /// Symbolic links that are followed on the way, as the processes do.
  private static let linksMax = 40

  /// The directories that a path leads through once its links are followed, over whatever clusters: those of them that
  /// the caller may look at.
  private func ancestors(of path: RemotePath) async -> Set<FileID> {
    var names = path.inDomain.split(separator: "/").map(String.init).dropLast()
    var way: [(name: String, id: FileID?)] = []
    var linkCount = 0
    while let name = names.popFirst() {
      let place = "/" + (way.map(\.name) + [name]).joined(separator: "/")
      let info = try? await self.client.stat(place, followsLink: false)
      guard info?.type == .symbolicLink, let target = try? await self.client.readSymbolicLink(place) else {
        way.append((name, info?.id))
        continue
      }
      linkCount += 1
      if linkCount > Self.linksMax { break }
      var all = target.hasPrefix("/") ? [] : way.map(\.name)
      for part in target.split(separator: "/") where part != "." {
        if part == ".." { _ = all.popLast() } else { all.append(String(part)) }
      }
      way = []
      names = (all + names)[...]
    }
    return Set(way.compactMap(\.id))
  }

  private static func intoItself(_ source: RemotePath) -> CommandFailure {
    CommandFailure("\(source): a directory can not be moved into itself")
  }

  // MARK: Copying

  /// Notes what was copied, directories after what is in them.
  ///
  /// - Parameter top: the new directory that all of it goes to, once there is one: it must not be met on the way.
  private func copy(
    _ source: RemotePath, to destination: RemotePath, _ copied: inout [Copied], top: FileID? = nil
  ) async throws -> FileInfo {
    let info = try await about(source.text) { try await self.client.stat(source.text, followsLink: false) }
    if info.id == top { throw Self.intoItself(source) }
    let copy: FileInfo
    switch info.type {
    case .file: copy = try await about(destination.text) { try await self.copyFile(source, info, to: destination) }
    case .symbolicLink:
      let target = try await about(source.text) { try await self.client.readSymbolicLink(source.text) }
      copy = try await about(destination.text) { try await self.makeSymbolicLink(destination, to: target) }
    case .directory:
      let made = try await about(destination.text) { try await self.makeDirectory(destination) }
      var entries: [DirectoryEntry] = []
      try await about(source.text) {
        for try await entry in self.client.list(source.text) { entries.append(entry) }
      }
      for entry in entries {
        _ = try await self.copy(
          source.appending(entry.name), to: destination.appending(entry.name), &copied, top: top ?? made)
      }
      copy = try await about(destination.text) {
        try await self.client.setAttributes(
          destination.text, AttributeChanges(mode: info.mode, modified: info.modified, access: info.access))
      }
    default: throw CommandFailure("\(source): a file of the type \(info.type) stays where it is")
    }
    copied.append(Copied(path: source, info: info))
    return copy
  }

  private func copyFile(_ source: RemotePath, _ info: FileInfo, to destination: RemotePath) async throws -> FileInfo {
    let (client, path, mode) = (self.client, destination.text, self.replaces ? WriteMode.replace : .create)
    let copy: FileInfo
    if info.size <= Self.smallByteCount {
      let file = try await client.readBytes(source.text, count: Int(Self.smallByteCount))
      guard file.info.version == info.version else { throw Self.changed(source) }
      copy = try await client.write(file.bytes, to: path, mode, mode: info.mode, modified: info.modified)
    } else {
      copy = try await client.write(to: path, mode, mode: info.mode, modified: info.modified) { writer in
        var offset: UInt64 = 0
        while offset < info.size {
          let part = try await client.readBytes(source.text, at: offset)
          guard part.info.version == info.version, !part.bytes.isEmpty else { throw Self.changed(source) }
          try await writer.write(part.bytes)
          offset += UInt64(part.bytes.count)
        }
      }
    }
    guard copy.mode != info.mode || !info.access.isEmpty else { return copy }
    return try await client.setAttributes(
      path, AttributeChanges(mode: info.mode, modified: info.modified, access: info.access))
  }

  private func makeSymbolicLink(_ path: RemotePath, to target: String) async throws -> FileInfo {
    do {
      return try await self.client.makeSymbolicLink(path.text, to: target)
    } catch let error as BlocktreeError where error.reason == .alreadyExists && self.replaces {
      try await self.client.remove(path.text)
      return try await self.client.makeSymbolicLink(path.text, to: target)
    }
  }

  /// An empty directory is replaced, as by a rename.
  private func makeDirectory(_ path: RemotePath) async throws -> FileID {
    do {
      // Files are still to be put into it.
      return try await self.client.makeDirectory(path.text, mode: 0o700).id
    } catch let error as BlocktreeError where error.reason == .alreadyExists && self.replaces {
      let present = try await self.client.stat(path.text, followsLink: false)
      guard present.type == .directory else { throw error }
      guard try await self.client.listPage(path.text, count: 1).entries.isEmpty else {
        throw BlocktreeError(code: .failedPrecondition, reason: .notEmpty, message: "The directory is not empty.")
      }
      return present.id
    }
  }

  /// Files that have changed since they were copied stay, and so does all that is above them.
  private func remove(_ copied: [Copied]) async throws {
    for original in copied {
      let path = original.path
      try await about(path.text) {
        if original.info.type == .directory { return try await self.client.remove(path.text, .directory) }
        let present = try await self.client.stat(path.text, followsLink: false)
        guard present.id == original.info.id, present.version == original.info.version else { throw Self.changed(path) }
        try await self.client.remove(path.text)
      }
    }
  }

  private static func changed(_ path: RemotePath) -> CommandFailure {
    CommandFailure("\(path): this was changed while it was moved; it is still there, and the copy may be without that")
  }
}
