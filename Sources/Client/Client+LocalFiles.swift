// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import NIOCore
internal import Transport

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// How a file is copied between the domain and this machine.
public struct CopyOptions: Sendable {
  /// Whether the copy gets the mode and modification time of the original. If not, a new file gets the mode of the
  /// original as far as this process's umask allows, and the present time. A file of this machine never gets setuid,
  /// setgid or sticky bits from the domain.
  public var keepsAttributes: Bool
  /// Told how many bytes have been copied so far, once for each 128 KiB or so. Must not block.
  public var progress: (@Sendable (UInt64) -> Void)?

  public init(keepsAttributes: Bool = false, progress: (@Sendable (UInt64) -> Void)? = nil) {
    self.keepsAttributes = keepsAttributes
    self.progress = progress
  }
}

extension Client {
  /// Copies a file of the domain to this machine.
  ///
  /// The bytes go to a new file beside the destination, which then takes its name: whoever looks sees the whole file or
  /// what was there before. A transfer that breaks off goes on where it was; if the file has changed meanwhile, or
  /// nobody serves for long, it is begun again a few times.
  @discardableResult
  public func download(
    _ path: String, toFile destination: String, options: CopyOptions = CopyOptions()
  ) async throws -> FileInfo {
    for _ in 1..<Self.downloadCountMax {
      do {
        return try await self.downloadOnce(path, toFile: destination, options: options)
      } catch let error as BlocktreeError where error.reason == .conflict {
        continue
      }
    }
    return try await self.downloadOnce(path, toFile: destination, options: options)
  }

  /// How often a file is fetched that changes all the time.
  private static let downloadCountMax = 5

  private func downloadOnce(
    _ path: String, toFile destination: String, options: CopyOptions
  ) async throws -> FileInfo {
    let eventLoop = self.core.executor.eventLoop
    return try await self.readParts(path, from: 0, count: nil, isRestartable: true) { parts in
      let info = try FileInfo(parts.info)
      let temporary = try await LocalFile.onThread { try TemporaryFile(for: destination) }
      do {
        var parts = parts
        var sink = LocalFileSink(descriptor: temporary.descriptor, on: eventLoop)
        var byteCount: UInt64 = 0
        while let part = try await parts.next() {
          byteCount += UInt64(part.count)
          try await sink.write(part)
          options.progress?(byteCount)
        }
        try await sink.finish()
        try await LocalFile.onThread {
          try temporary.setAttributes(mode: info.mode, modified: options.keepsAttributes ? info.modified : nil)
          try temporary.takeName(destination)
        }
      } catch {
        temporary.discard()
        throw error
      }
      return info
    }
  }

  /// Copies a file of the domain, or the part of it from an offset on, to an open descriptor, which stays the caller's:
  /// keep it open for a moment when this throws, as a write may be under way.
  @discardableResult
  public func download(
    _ path: String, from offset: UInt64 = 0, count: UInt64? = nil, toDescriptor descriptor: Int32,
    progress: (@Sendable (UInt64) -> Void)? = nil
  ) async throws -> FileInfo {
    let eventLoop = self.core.executor.eventLoop
    return try await self.readParts(path, from: offset, count: count) { parts in
      var parts = parts
      var sink = LocalFileSink(descriptor: LocalDescriptor(descriptor, isOwned: false), on: eventLoop)
      var byteCount: UInt64 = 0
      while let part = try await parts.next() {
        byteCount += UInt64(part.count)
        try await sink.write(part)
        progress?(byteCount)
      }
      try await sink.finish()
      return try FileInfo(parts.info)
    }
  }

  /// Copies a file of this machine to the domain. A transfer that breaks off is begun again a few times, where the
  /// write mode allows that.
  @discardableResult
  public func upload(
    fromFile source: String, to path: String, _ writeMode: WriteMode = .replace, options: CopyOptions = CopyOptions()
  ) async throws -> FileInfo {
    let eventLoop = self.core.executor.eventLoop
    let (descriptor, description) = try await LocalFile.onThread {
      let descriptor = LocalDescriptor(try LocalFile.open(source, O_RDONLY), isOwned: true)
      let description = try LocalFile.describe(descriptor.value, source)
      guard description.kind != .directory else { throw BlocktreeError.localFile(source, EISDIR) }
      return (descriptor, description)
    }
    let isSeekable = lseek(descriptor.value, 0, SEEK_CUR) >= 0
    let mode = options.keepsAttributes ? description.mode : FileMode(rawValue: description.mode.rawValue & 0o777)
    let modified = options.keepsAttributes ? description.modified : nil
    let info = try await self.writeParts(
      to: path, writeMode, mode: mode, modified: modified, isRestartable: isSeekable
    ) { file in
      // By offset: a former attempt may still be reading ahead.
      let source = LocalFileSource(descriptor: descriptor, from: isSeekable ? 0 : nil, on: eventLoop)
      try await file.send(from: source, progress: options.progress)
    }
    if options.keepsAttributes, info.mode != mode {
      return try await self.setAttributes(path, AttributeChanges(mode: mode, modified: modified))
    }
    return info
  }

  /// Copies what an open descriptor delivers, which stays the caller's, to the domain.
  ///
  /// What replaces or makes a file and has at most 1 MiB is collected first, so that it can be sent again when the process
  /// fails; of more, nothing can be read twice, and the error is thrown.
  @discardableResult
  public func upload(
    fromDescriptor descriptor: Int32, to path: String, _ writeMode: WriteMode = .replace, mode: FileMode = 0o644,
    progress: (@Sendable (UInt64) -> Void)? = nil
  ) async throws -> FileInfo {
    var source = LocalFileSource(
      descriptor: LocalDescriptor(descriptor, isOwned: false), from: nil, on: self.core.executor.eventLoop)
    var head: [Data] = []
    var byteCount = 0
    while writeMode.isRepeatable, byteCount <= Self.transferByteCountMax {
      guard let piece = try await source.next() else {
        let bytes = head.reduce(into: []) { $0 += $1 }
        let info = try await self.writeBytes(bytes, to: path, writeMode, mode: mode)
        progress?(UInt64(byteCount))
        return info
      }
      head.append(piece)
      byteCount += piece.count
    }
    let (begun, rest) = (head, source)
    return try await self.writeParts(to: path, writeMode, mode: mode, modified: nil, isRestartable: false) { file in
      try await file.send(begun, from: rest, progress: progress)
    }
  }
}

extension FileWriter {
  fileprivate func send(
    _ head: [Data] = [], from source: LocalFileSource, progress: (@Sendable (UInt64) -> Void)?
  ) async throws {
    var (head, source) = (head[...], source)
    var byteCount: UInt64 = 0
    while true {
      var piece = head.popFirst()
      if piece == nil { piece = try await source.next() }
      guard let piece else { return }
      try await self.send(piece)
      byteCount += UInt64(piece.count)
      progress?(byteCount)
    }
  }
}
