// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient

/// Copies trees of files from the domain to this machine. One task walks; files are fetched by several others, small
/// ones in a session.
struct DownloadCopy: Sendable {
  let client: Client
  let results: CopyResults
  let progress: Progress
  let isRecursive: Bool
  let keepsAttributes: Bool

  private static let filesAtOnce = 16
  private static let smallByteCount: UInt64 = 256 << 10

  private struct Directory {
    let path: String
    let info: FileInfo
  }

  /// Copies each path to the local name beside it.
  func run(_ pairs: [(remote: RemotePath, local: String)]) async throws {
    try await self.client.withFileSession { session in
      var directories: [Directory] = []
      try await withThrowingTaskGroup(of: Void.self) { group in
        var jobs = Jobs(limit: Self.filesAtOnce)
        for (remote, local) in pairs {
          do {
            // A link that was named itself is followed, unless trees are copied.
            let info = try await about(remote.text) {
              try await session.stat(remote.text, followsLink: !self.isRecursive)
            }
            try await self.walk(remote, info, local, session, &directories, &jobs, &group)
          } catch {
            try self.results.fail(error)
          }
        }
        try await group.waitForAll()
      }
      let made = directories
      let failures = try await LocalFile.onThread {
        made.reversed().compactMap { directory in
          do {
            try LocalFile.setAttributes(directory.path, mode: directory.info.mode, modified: directory.info.modified)
            return nil as (any Error)?
          } catch {
            return error
          }
        }
      }
      for error in failures { try self.results.fail(error) }
    }
  }

  private func walk(
    _ remote: RemotePath, _ info: FileInfo, _ local: String, _ session: FileSession, _ directories: inout [Directory],
    _ jobs: inout Jobs, _ group: inout ThrowingTaskGroup<Void, any Error>
  ) async throws {
    switch info.type {
    case .directory:
      guard self.isRecursive else { throw CommandFailure("\(remote): this is a directory; use -r to copy it") }
      try await LocalFile.onThread { try LocalFile.makeDirectory(local) }
      directories.append(Directory(path: local, info: info))
      var entries: [DirectoryEntry] = []
      try await about(remote.text) {
        for try await entry in session.list(remote.text, includesInfo: true) { entries.append(entry) }
      }
      for entry in entries {
        do {
          let path = remote.appending(entry.name)
          let known = entry.info
          let info =
            if let known { known } else {
              try await about(path.text) { try await session.stat(path.text, followsLink: false) }
            }
          try await self.walk(path, info, LocalPath.join(local, entry.name), session, &directories, &jobs, &group)
        } catch {
          try self.results.fail(error)
        }
      }
    case .symbolicLink:
      let target = try await about(remote.text) { try await session.readSymbolicLink(remote.text) }
      try await LocalFile.onThread { try LocalFile.makeSymbolicLink(local, to: target) }
      self.results.add(local: local, remote: remote.text, info)
    default:
      try await jobs.add(to: &group) { try await self.copyFile(remote, info, local, session) }
    }
  }

  private func copyFile(
    _ remote: RemotePath, _ info: FileInfo, _ local: String, _ session: FileSession
  ) async throws {
    do {
      let copied = try await about(remote.text) {
        if info.size <= Self.smallByteCount, let copied = try await self.readSmall(remote, local, session) {
          return copied
        }
        return try await self.client.download(
          remote.text, toFile: local,
          options: CopyOptions(keepsAttributes: self.keepsAttributes, progress: self.progress.forFile()))
      }
      self.progress.addFile()
      self.results.add(local: local, remote: remote.text, copied)
    } catch {
      try self.results.fail(error)
    }
  }

  /// Nil when the file has grown meanwhile.
  private func readSmall(_ remote: RemotePath, _ local: String, _ session: FileSession) async throws -> FileInfo? {
    let file = try await session.readBytes(remote.text, count: Int(Self.smallByteCount))
    guard file.info.size == UInt64(file.bytes.count) else { return nil }
    let modified = self.keepsAttributes ? file.info.modified : nil
    try await LocalFile.onThread {
      try LocalFile.writeWhole(file.bytes, to: local, mode: file.info.mode, modified: modified)
    }
    self.progress.add(UInt64(file.bytes.count))
    return file.info
  }
}
