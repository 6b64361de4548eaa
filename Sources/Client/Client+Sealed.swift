// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Transport
internal import Trust

/// A file that is read with the caller's own key: its sealed sectors are fetched from whoever stores them, verified,
/// and opened here. All reading is of one version.
public struct SealedFile: Sendable {
  /// As the signed record says it.
  public let info: FileInfo
  /// The file or directory whose readcap the caller has: the file itself, or one above it.
  public let readcapPath: String
  let path: TreePath
  let content: SealedContent

  /// The bytes of the file, or of a range of it, in order.
  ///
  /// - Parameters:
  ///   - offset: where to begin; beyond the end nothing is read.
  ///   - count: bytes at most; nil for all to the end.
  public func read(from offset: UInt64 = 0, count: UInt64? = nil) -> SealedFileReader {
    let size = self.info.size
    let start = min(offset, size)
    let end = count.map { start + min($0, size - start) } ?? size
    return SealedFileReader(content: self.content, path: self.path, rest: start..<end)
  }
}

/// The bytes of a sealed file, in parts of at most 1 MiB. No more than one part is held. A process that fails is
/// replaced by another one that stores the same.
///
/// It throws ``BlocktreeError``: with the reason ``BlocktreeError/Reason/dataLoss`` when a sector is not the one that
/// was signed, and with ``BlocktreeError/Reason/conflict`` when the file was changed or removed while it was read.
public struct SealedFileReader: AsyncSequence, AsyncIteratorProtocol {
  public typealias Element = [UInt8]

  var content: SealedContent
  let path: TreePath
  var rest: Range<UInt64>

  public func makeAsyncIterator() -> SealedFileReader { self }

  public mutating func next() async throws -> [UInt8]? {
    guard !self.rest.isEmpty else { return nil }
    // Parts end where sectors do.
    let step = SealedContent.rangeByteCountMax
    let end = Swift.min(self.rest.upperBound, (self.rest.lowerBound / step + 1) * step)
    let part: [UInt8]
    do {
      part = try await self.content.read(self.rest.lowerBound..<end)
    } catch let error as BlocktreeError where error.reason == .versionGone || error.reason == .notFound {
      throw BlocktreeError.changed("\(self.path)")
    }
    self.rest = end..<self.rest.upperBound
    return part
  }
}

extension Client {
  /// How often something is looked up that changes all the time: for about three seconds. Everything below a directory that
  /// is given new keys changes several times in a row.
  private static let searchCountMax = 12

  /// Waits before something is looked up again: not at all the first time, then longer each time.
  private func pauseBeforeSearch(after attempt: Int) async throws {
    guard attempt > 1 else { return }
    try await Task.sleep(for: .milliseconds(min(8 << attempt, 400)) * Double.random(in: 0.5...1))
  }

  /// Opens a file with the profile's own key-agreement key: the nearest file or directory at or above the path that the
  /// caller was granted the key of is found, its key opened, and the way from there followed down by the sealed
  /// directories, which are fetched from those who store them and opened here. No filesystem service is asked for a
  /// name or a content; those who store it need not have the key.
  ///
  /// Everything is verified on its way, back to the domain's root: signatures of records, and the acceptance by a
  /// process of the cluster; the integrity tree; each sector. Only which file it is that the caller has the key of is
  /// taken from what a filesystem service says (``FileOperations/stat(_:followsLink:)``).
  ///
  /// Symbolic links are followed as long as they lead to a place below the one that the key is for.
  ///
  /// - Throws: ``BlocktreeError``, with the reason ``BlocktreeError/Reason/noKey`` when the caller has none, or one of
  ///   a former epoch, as after a revocation; with ``BlocktreeError/Reason/dataLoss`` when what is handed out is not
  ///   what was signed.
  public func openSealed(_ path: String) async throws -> SealedFile {
    guard let parsed = try? TreePath(parsing: try self.treePath(path)) else {
      throw BlocktreeError.invalidPath("malformed", path: path)
    }
    for attempt in 1... {
      do {
        var search = try SealedSearch(self, parsed)
        let found = try await search.run()
        let info = FileInfo(found.content.record)
        guard info.type == .file else {
          throw BlocktreeError(
            code: .failedPrecondition, reason: info.type == .directory ? .isDirectory : .wrongType,
            message: "This is no file.", metadata: ["path": "\(parsed)"])
        }
        return SealedFile(
          info: info, readcapPath: "\(found.readcapPath)", path: parsed, content: found.content)
      } catch let changed as SealedSearch.Changed {
        guard attempt < Self.searchCountMax else { throw changed.error }
        try await self.pauseBeforeSearch(after: attempt)
      }
    }
    throw BlocktreeError.changed(path)
  }

  /// Copies a file, or a range of it, to an open descriptor, as `download` does; but read with the caller's own key,
  /// see ``openSealed(_:)``.
  @discardableResult
  public func downloadSealed(
    _ path: String, from offset: UInt64 = 0, count: UInt64? = nil, toDescriptor descriptor: Int32,
    progress: (@Sendable (UInt64) -> Void)? = nil
  ) async throws -> FileInfo {
    for attempt in 1... {
      let file = try await self.openSealed(path)
      var byteCount: UInt64 = 0
      do {
        try await self.copy(
          file.read(from: offset, count: count), to: LocalDescriptor(descriptor, isOwned: false), &byteCount, progress)
        return file.info
      } catch let error as BlocktreeError where error.reason == .conflict {
        // What was written can not be taken back.
        guard byteCount == 0, attempt < Self.searchCountMax else { throw error }
        try await self.pauseBeforeSearch(after: attempt)
      }
    }
    throw BlocktreeError.changed(path)
  }

  /// Copies a file to this machine, as `download` does; but read with the caller's own key, see ``openSealed(_:)``.
  @discardableResult
  public func downloadSealed(
    _ path: String, toFile destination: String, options: CopyOptions = CopyOptions()
  ) async throws -> FileInfo {
    for attempt in 1... {
      do {
        return try await self.downloadSealedOnce(path, toFile: destination, options: options)
      } catch let error as BlocktreeError where error.reason == .conflict {
        guard attempt < Self.searchCountMax else { throw error }
        try await self.pauseBeforeSearch(after: attempt)
      }
    }
    throw BlocktreeError.changed(path)
  }

  private func downloadSealedOnce(
    _ path: String, toFile destination: String, options: CopyOptions
  ) async throws -> FileInfo {
    let file = try await self.openSealed(path)
    let temporary = try await LocalFile.onThread { try TemporaryFile(for: destination) }
    do {
      var byteCount: UInt64 = 0
      try await self.copy(file.read(), to: temporary.descriptor, &byteCount, options.progress)
      let info = file.info
      try await LocalFile.onThread {
        try temporary.setAttributes(mode: info.mode, modified: options.keepsAttributes ? info.modified : nil)
        try temporary.takeName(destination)
      }
      return info
    } catch {
      temporary.discard()
      throw error
    }
  }

  /// - Parameter byteCount: how much was written, or may have been.
  private func copy(
    _ parts: SealedFileReader, to descriptor: LocalDescriptor, _ byteCount: inout UInt64,
    _ progress: (@Sendable (UInt64) -> Void)?
  ) async throws {
    var sink = LocalFileSink(descriptor: descriptor, on: self.core.executor.eventLoop)
    for try await part in parts {
      byteCount += UInt64(part.count)
      try await sink.write(Data(part))
      progress?(byteCount)
    }
    try await sink.finish()
  }
}
