// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient

/// Copies trees of files into the domain. One task walks; files are sent by several others, small ones in a session,
/// where many travel in one message.
struct UploadCopy: Sendable {
  let client: Client
  let results: CopyResults
  let progress: Progress
  let isRecursive: Bool
  let keepsAttributes: Bool

  /// Files on their way at once.
  private static let filesAtOnce = 16
  /// Larger ones get a stream of their own.
  private static let smallByteCount = 256 << 10

  /// A directory, whose attributes are set when all that is in it has been written.
  private struct Directory {
    let path: RemotePath
    let description: LocalFile.Description
  }

  /// Copies each local name to the path beside it.
  func run(_ pairs: [(local: String, remote: RemotePath)]) async throws {
    try await self.client.withFileSession { session in
      var directories: [Directory] = []
      try await withThrowingTaskGroup(of: Void.self) { group in
        var jobs = Jobs(limit: Self.filesAtOnce)
        for (local, remote) in pairs {
          try await self.walk(local, remote, isTop: true, session, &directories, &jobs, &group)
        }
        try await group.waitForAll()
      }
      for directory in directories.reversed() {
        do {
          _ = try await about(directory.path.text) {
            try await session.setAttributes(
              directory.path.text,
              AttributeChanges(mode: directory.description.mode, modified: directory.description.modified))
          }
        } catch {
          try self.results.fail(error)
        }
      }
    }
  }

  private func walk(
    _ local: String, _ remote: RemotePath, isTop: Bool, _ session: FileSession, _ directories: inout [Directory],
    _ jobs: inout Jobs, _ group: inout ThrowingTaskGroup<Void, any Error>
  ) async throws {
    do {
      // A link that was named itself is followed, unless trees are copied.
      let follows = isTop && !self.isRecursive
      let description = try await LocalFile.onThread { try LocalFile.describe(local, followsLink: follows) }
      switch description.kind {
      case .file:
        try await jobs.add(to: &group) { try await self.copyFile(local, remote, description, session) }
      case .other where isTop:
        try await jobs.add(to: &group) { try await self.copyFile(local, remote, description, session) }
      case .symbolicLink:
        let target = try await LocalFile.onThread { try LocalFile.readSymbolicLink(local) }
        let info = try await about(remote.text) { try await self.makeSymbolicLink(remote, to: target, session) }
        self.results.add(local: local, remote: remote.text, info)
      case .directory:
        guard self.isRecursive else { throw CommandFailure("\(local): this is a directory; use -r to copy it") }
        try await about(remote.text) { try await self.makeDirectory(remote, description, session) }
        directories.append(Directory(path: remote, description: description))
        for name in try await LocalFile.onThread({ try LocalFile.list(local) }) {
          try await self.walk(
            LocalPath.join(local, name), remote.appending(name), isTop: false, session, &directories, &jobs, &group)
        }
      case .other:
        throw CommandFailure("\(local): this is neither file, directory nor link; it is left out")
      }
    } catch {
      try self.results.fail(error)
    }
  }

  private func makeDirectory(
    _ path: RemotePath, _ description: LocalFile.Description, _ session: FileSession
  ) async throws {
    do {
      // Files are still to be put into it.
      try await session.makeDirectory(path.text, mode: FileMode(rawValue: description.mode.rawValue & 0o777 | 0o700))
    } catch let error as BlocktreeError where error.reason == .alreadyExists {
      guard try await session.stat(path.text).type == .directory else { throw error }
    }
  }

  private func makeSymbolicLink(_ path: RemotePath, to target: String, _ session: FileSession) async throws -> FileInfo
  {
    do {
      return try await session.makeSymbolicLink(path.text, to: target)
    } catch let error as BlocktreeError where error.reason == .alreadyExists {
      let temporary = "\(path.text).\(UInt64.random(in: .min ... .max))"
      try await session.makeSymbolicLink(temporary, to: target)
      do {
        return try await session.rename(temporary, to: path.text)
      } catch {
        try? await session.remove(temporary)
        throw error
      }
    }
  }

  private func copyFile(
    _ local: String, _ remote: RemotePath, _ description: LocalFile.Description, _ session: FileSession
  ) async throws {
    do {
      let info = try await about(remote.text) {
        if description.kind == .file, description.size <= Self.smallByteCount,
          let bytes = try await LocalFile.onThread({ try LocalFile.readWhole(local, limit: Self.smallByteCount) })
        {
          defer { self.progress.add(UInt64(bytes.count)) }
          return try await self.writeSmall(bytes, remote, description, session)
        }
        return try await self.client.upload(
          fromFile: local, to: remote.text,
          options: CopyOptions(keepsAttributes: self.keepsAttributes, progress: self.progress.forFile()))
      }
      self.progress.addFile()
      self.results.add(local: local, remote: remote.text, info)
    } catch {
      try self.results.fail(error)
    }
  }

  private func writeSmall(
    _ bytes: [UInt8], _ remote: RemotePath, _ description: LocalFile.Description, _ session: FileSession
  ) async throws -> FileInfo {
    let mode = self.keepsAttributes ? description.mode : FileMode(rawValue: description.mode.rawValue & 0o777)
    let modified = self.keepsAttributes ? description.modified : nil
    let info = try await session.writeBytes(bytes, to: remote.text, mode: mode, modified: modified)
    if self.keepsAttributes, info.mode != mode {
      return try await session.setAttributes(remote.text, AttributeChanges(mode: mode, modified: modified))
    }
    return info
  }
}

/// Bounds the tasks of a group: one more begins when another one has ended.
struct Jobs {
  let limit: Int
  private var count = 0

  init(limit: Int) {
    self.limit = limit
  }

  mutating func add(
    to group: inout ThrowingTaskGroup<Void, any Error>, _ body: @escaping @Sendable () async throws -> Void
  ) async throws {
    if self.count >= self.limit {
      try await group.next()
      self.count -= 1
    }
    self.count += 1
    group.addTask { try await body() }
  }
}
