// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import SwiftProtobuf
private import Synchronization
internal import Transport

/// A file, or a range of one, on its way from a process: its bytes in order, in parts of at most 128 KiB, all of one
/// version. It can be iterated once. No more is fetched than the window of the connection holds, however slowly it is
/// read.
public struct FileReader: AsyncSequence, AsyncIteratorProtocol {
  public typealias Element = [UInt8]

  /// The file as it is read.
  public let info: FileInfo
  private var parts: FileParts

  init(_ parts: FileParts) throws(BlocktreeError) {
    self.info = try FileInfo(parts.info)
    self.parts = parts
  }

  public func makeAsyncIterator() -> FileReader { self }

  public mutating func next() async throws -> [UInt8]? {
    do {
      return try await self.parts.next().map { Array($0) }
    } catch {
      throw try BlocktreeError(thrown: error)
    }
  }
}

/// The parts of a file as they arrive, without another copy.
///
/// When the connection breaks on the way, the rest is fetched piece by piece from whoever serves then, as long as the
/// file is still of the same version.
struct FileParts {
  let info: Blocktree_V1_FileInfo
  private let client: Client
  private let request: Blocktree_V1_ReadRequest
  private var pieces: ArraySlice<Data>
  /// Nil once it has broken.
  private var messages: RPCAsyncSequence<Blocktree_V1_ReadResponse, any Error>.AsyncIterator?
  /// Of the next byte that is to arrive.
  private var position: UInt64

  /// What is fetched at once after the stream has broken.
  private static let rangeByteCount: UInt64 = 4 << 20

  /// Waits for the first message, which describes the file.
  init(
    _ response: StreamingClientResponse<Blocktree_V1_ReadResponse>, to request: Blocktree_V1_ReadRequest,
    _ client: Client
  ) async throws {
    var messages = response.messages.makeAsyncIterator()
    guard let first = try await messages.next(isolation: #isolation), first.hasInfo else {
      throw BlocktreeError.malformedAnswer("info")
    }
    self.info = first.info
    self.client = client
    self.request = request
    self.pieces = first.data.isEmpty ? [] : [first.data]
    self.messages = messages
    self.position = request.offset + UInt64(first.data.count)
  }

  mutating func next() async throws -> Data? {
    if let piece = self.pieces.popFirst() { return piece }
    do {
      while let message = try await self.messages?.next(isolation: #isolation) {
        self.position += UInt64(message.data.count)
        if !message.data.isEmpty { return message.data }
      }
      if self.messages != nil { return nil }
    } catch {
      let failure = try BlocktreeError(thrown: error)
      guard failure.isTransient else { throw failure }
      self.messages = nil
    }
    return try await self.nextOfRange()
  }

  private mutating func nextOfRange() async throws -> Data? {
    let (rest, overflows) = self.end.subtractingReportingOverflow(self.position)
    guard !overflows, rest > 0 else { return nil }
    var request = self.request
    request.offset = self.position
    request.length = min(rest, Self.rangeByteCount)
    let (pieces, byteCount) = try await self.fetch(request)
    // Of the same version there must be more.
    guard byteCount > 0, byteCount <= request.length else { throw BlocktreeError.malformedAnswer("data") }
    self.pieces = pieces[...]
    self.position += byteCount
    return self.pieces.popFirst()
  }

  private var end: UInt64 {
    let (end, overflows) = self.request.offset.addingReportingOverflow(self.request.length)
    return self.request.length == 0 || overflows ? self.info.size : min(end, self.info.size)
  }

  private func fetch(_ request: Blocktree_V1_ReadRequest) async throws -> (pieces: [Data], byteCount: UInt64) {
    let (core, info) = (self.client.core, self.info)
    return try await core.routed(request.path, timeout: self.client.timeout, isMutation: false) { attempt in
      var request = request
      request.path = attempt.path
      let message = request
      return try await attempt.call { connection, options in
        try await Self.fetch(message, of: info, connection, options)
      }
    }
  }

  private static func fetch(
    _ request: Blocktree_V1_ReadRequest, of info: Blocktree_V1_FileInfo, _ connection: NodeConnection,
    _ options: CallOptions
  ) async throws -> (pieces: [Data], byteCount: UInt64) {
    try await connection.filesystem.read(request, options: options) { response in
      var (pieces, byteCount): ([Data], UInt64) = ([], 0)
      for try await message in response.messages {
        if message.hasInfo, message.info.fileID != info.fileID || message.info.version != info.version {
          throw BlocktreeError.changed(request.path)
        }
        byteCount += UInt64(message.data.count)
        guard byteCount <= request.length else { throw BlocktreeError.malformedAnswer("data") }
        if !message.data.isEmpty { pieces.append(message.data) }
      }
      return (pieces, byteCount)
    }
  }
}

extension Client {
  /// Reads a file, or a range of it.
  ///
  /// ```swift
  /// let sum = try await client.read("/numbers", from: 4096) { file in
  ///   var sum = 0
  ///   for try await bytes in file { for byte in bytes { sum += Int(byte) } }
  ///   return sum
  /// }
  /// ```
  ///
  /// A connection that fails is replaced, and the reading goes on where it was, if the file is still of the same
  /// version. If it has changed, the error with the reason ``BlocktreeError/Reason/conflict`` is thrown: the caller knows
  /// what to keep of what it has read.
  ///
  /// - Parameters:
  ///   - offset: where to begin; beyond the end nothing is read.
  ///   - count: bytes at most; nil for all to the end.
  ///   - body: takes the file as it comes. The transfer ends when it returns.
  public func read<Result: Sendable>(
    _ path: String, from offset: UInt64 = 0, count: UInt64? = nil,
    _ body: @Sendable @escaping (FileReader) async throws -> Result
  ) async throws -> Result {
    try await self.readParts(path, from: offset, count: count) { try await body(FileReader($0)) }
  }

  /// Reads a whole file into memory.
  ///
  /// - Parameter limit: the most bytes that it may have; more is an error.
  public func readAll(_ path: String, limit: Int = 64 << 20) async throws -> FileBytes {
    try await self.readParts(path, from: 0, count: nil) { parts in
      let info = try FileInfo(parts.info)
      guard info.size <= UInt64(max(limit, 0)) else {
        throw BlocktreeError(
          code: .outOfRange, reason: .tooLarge, message: "The file is larger than was to be read.",
          metadata: ["limit": "\(limit)", "found": "\(info.size)"])
      }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(Int(info.size))
      var parts = parts
      while let part = try await parts.next() {
        bytes.append(contentsOf: part)
        guard bytes.count <= limit else { throw BlocktreeError.malformedAnswer("data") }
      }
      return FileBytes(info: info, bytes: bytes)
    }
  }

  /// The parts as the connection has them.
  ///
  /// - Parameter isRestartable: whether `body` may be called again when it failed half-way.
  func readParts<Result: Sendable>(
    _ path: String, from offset: UInt64, count: UInt64?, isRestartable: Bool = false,
    _ body: @Sendable @escaping (FileParts) async throws -> Result
  ) async throws -> Result {
    let request = Blocktree_V1_ReadRequest.with {
      $0.path = path
      $0.offset = offset
      $0.length = count ?? 0
    }
    return try await self.readParts(request, isRestartable: isRestartable, body)
  }

  private func readParts<Result: Sendable>(
    _ request: Blocktree_V1_ReadRequest, isRestartable: Bool,
    _ body: @Sendable @escaping (FileParts) async throws -> Result
  ) async throws -> Result {
    var request = request
    request.path = try self.treePath(request.path)
    let hasBegun = Flag()
    // What `body` threw is the caller's own: it is neither translated nor a reason to begin again.
    let thrown = Mutex<(any Error)?>(nil)
    do {
      return try await self.core.routed(request.path, timeout: nil, isMutation: false) { attempt in
        var request = request
        request.path = attempt.path
        let message = request
        // Not even at another cluster.
        guard isRestartable || !hasBegun.isSet else { throw BlocktreeError.malformedAnswer("info") }
        return try await attempt.call(isReplayable: { isRestartable || !hasBegun.isSet }) { connection, options in
          try await connection.filesystem.read(message, options: options) { response in
            let parts = try await FileParts(response, to: message, self)
            hasBegun.set()
            do {
              return try await body(parts)
            } catch {
              if !isRestartable { thrown.withLock { $0 = error } }
              throw error
            }
          }
        }
      }
    } catch {
      throw thrown.withLock { $0 } ?? error
    }
  }
}

/// Something that has happened or not.
final class Flag: Sendable {
  private let value = Atomic(false)

  var isSet: Bool { self.value.load(ordering: .acquiring) }

  func set() { self.value.store(true, ordering: .releasing) }
}
