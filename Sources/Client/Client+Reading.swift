// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import SwiftProtobuf
private import Synchronization

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
struct FileParts {
  let info: Blocktree_V1_FileInfo
  private var first: Data
  private var messages: RPCAsyncSequence<Blocktree_V1_ReadResponse, any Error>.AsyncIterator

  /// Waits for the first message, which describes the file.
  init(_ response: StreamingClientResponse<Blocktree_V1_ReadResponse>) async throws {
    self.messages = response.messages.makeAsyncIterator()
    guard let first = try await self.messages.next(isolation: #isolation), first.hasInfo else {
      throw BlocktreeError.malformedAnswer("info")
    }
    self.info = first.info
    self.first = first.data
  }

  mutating func next() async throws -> Data? {
    if !self.first.isEmpty {
      defer { self.first = Data() }
      return self.first
    }
    while let message = try await self.messages.next(isolation: #isolation) {
      if !message.data.isEmpty { return message.data }
    }
    return nil
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
  /// A connection that fails before `body` was called is replaced. After that the error is thrown: the caller knows
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
    let message = request
    let hasBegun = Flag()
    // What `body` threw is the caller's own: it is neither translated nor a reason to begin again.
    let thrown = Mutex<(any Error)?>(nil)
    do {
      return try await self.core.call(timeout: nil, isRepeatable: { isRestartable || !hasBegun.isSet }) {
        connection, options in
        try await connection.filesystem.read(message, options: options) { response in
          let parts = try await FileParts(response)
          hasBegun.set()
          do {
            return try await body(parts)
          } catch {
            if !isRestartable { thrown.withLock { $0 = error } }
            throw error
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
