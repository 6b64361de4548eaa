// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import SwiftProtobuf
private import Synchronization

/// Takes the bytes of a file that is being written, in order.
public struct FileWriter: Sendable {
  /// Bytes in a message: this size gives the best throughput.
  static let messageByteCount = 128 << 10

  private let stream: RPCWriter<Blocktree_V1_WriteRequest>
  private let hasBroken: Flag

  /// - Parameter hasBroken: set when the stream takes no more.
  init(_ stream: RPCWriter<Blocktree_V1_WriteRequest>, hasBroken: Flag) {
    self.stream = stream
    self.hasBroken = hasBroken
  }

  /// Sends bytes. Returns when the connection has room for more; what has been written is part of the file when the
  /// whole write has returned. Pieces of 64 to 128 KiB are best; larger ones are cut up.
  public func write(_ bytes: [UInt8]) async throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      let part = rest.prefix(Self.messageByteCount)
      rest = rest.dropFirst(part.count)
      try await self.send(Data(part))
    }
  }

  /// Sends one message.
  func send(_ data: Data) async throws {
    do {
      try await self.stream.write(.with { $0.data = data })
    } catch {
      self.hasBroken.set()
      // The answer, if there is one, says why. It is what the whole write throws.
      throw try BlocktreeError(thrown: error)
    }
  }
}

extension Client {
  /// Writes a file with the bytes that `body` hands over.
  ///
  /// ```swift
  /// try await client.write(to: "/log") { file in
  ///   for line in lines { try await file.write(Array(line.utf8)) }
  /// }
  /// ```
  ///
  /// With ``WriteMode/replace`` and ``WriteMode/create`` the file is as it was until this returns, and if `body`
  /// throws. A connection that fails before `body` has begun is replaced. After that the error is thrown, as only the
  /// caller can begin again.
  ///
  /// - Parameters:
  ///   - mode: of a file that is made.
  ///   - modified: the modification time to set; nil for now.
  @discardableResult
  public func write(
    to path: String, _ writeMode: WriteMode = .replace, mode: FileMode = 0o644, modified: Timestamp? = nil,
    _ body: @Sendable @escaping (FileWriter) async throws -> Void
  ) async throws -> FileInfo {
    try await self.writeParts(to: path, writeMode, mode: mode, modified: modified, isRestartable: false, body)
  }

  /// Writes what a sequence delivers.
  @discardableResult
  public func write<Source: AsyncSequence & Sendable>(
    _ source: Source, to path: String, _ writeMode: WriteMode = .replace, mode: FileMode = 0o644,
    modified: Timestamp? = nil
  ) async throws -> FileInfo where Source.Element == [UInt8] {
    try await self.write(to: path, writeMode, mode: mode, modified: modified) { file in
      for try await bytes in source { try await file.write(bytes) }
    }
  }

  /// Writes bytes of any number.
  @discardableResult
  public func write(
    _ bytes: [UInt8], to path: String, _ writeMode: WriteMode = .replace, mode: FileMode = 0o644,
    modified: Timestamp? = nil
  ) async throws -> FileInfo {
    if bytes.count <= Self.transferByteCountMax {
      return try await self.writeBytes(bytes, to: path, writeMode, mode: mode, modified: modified)
    }
    return try await self.writeParts(to: path, writeMode, mode: mode, modified: modified, isRestartable: true) {
      try await $0.write(bytes)
    }
  }

  /// - Parameter isRestartable: whether `body` may be called again. It has to begin anew then.
  func writeParts(
    to path: String, _ writeMode: WriteMode, mode: FileMode, modified: Timestamp?, isRestartable: Bool,
    _ body: @Sendable @escaping (FileWriter) async throws -> Void
  ) async throws -> FileInfo {
    let path = try self.treePath(path)
    let header = Blocktree_V1_WriteHeader(path, writeMode, mode: mode, modified: modified)
    do {
      return try await self.writeParts(header, isRestartable: isRestartable && writeMode.isRepeatable, body)
    } catch let error as FinalError {
      throw error.error
    }
  }

  private func writeParts(
    _ header: Blocktree_V1_WriteHeader, isRestartable: Bool,
    _ body: @Sendable @escaping (FileWriter) async throws -> Void
  ) async throws -> FileInfo {
    let path = header.path
    // What is never sent twice needs no id.
    guard isRestartable else {
      // And what can not be sent twice should not go to the wrong process first.
      let place = try await self.core.settle(path, timeout: self.timeout)
      return try await self.core.routed(place, timeout: nil, isMutation: true) { attempt in
        var header = header
        header.path = attempt.path
        let writing = WriteAttempt(header: header, body: body)
        do {
          return try await Self.send(writing, isRestartable: false, attempt.cluster, &attempt.trace)
        } catch  where writing.count > 0 {
          // What was taken from the source is gone: wherever this would be sent on to, part of it would be missing.
          throw (error as? FinalError) ?? FinalError(error: Self.interrupted(error, path))
        }
      }
    }
    return try await self.core.routed(path, timeout: nil, isMutation: true) { attempt in
      var header = header
      header.path = attempt.path
      let (cluster, message) = (attempt.cluster, header)
      return try await cluster.withOperationID(timeout: self.timeout, &attempt.trace, isTransfer: true) {
        id, trace, wasRepeated in
        var header = message
        if let id { header.operation = id }
        let writing = WriteAttempt(header: header, body: body)
        defer { wasRepeated = writing.count > 1 }
        return try await Self.send(writing, isRestartable: id != nil, cluster, &trace)
      }
    }
  }

  /// A redirect is for this library: to the caller it says that nothing was done, and to try again.
  private static func interrupted(_ error: any Error, _ path: String) -> any Error {
    guard let error = error as? BlocktreeError, error.reason == .redirected else { return error }
    return BlocktreeError(
      code: .unavailable, reason: .busy, message: "The path was handed to another cluster meanwhile.",
      metadata: ["path": path], retry: .later)
  }

  private static func send(
    _ attempt: WriteAttempt, isRestartable: Bool, _ cluster: ClusterCore, _ trace: inout CallTrace
  ) async throws -> FileInfo {
    do {
      return try await cluster.call(
        timeout: nil, &trace, isReplayable: { attempt.thrown == nil && (isRestartable || attempt.count == 0) }
      ) { connection, options in
        let response = try await connection.filesystem.write(options: options) { try await attempt.run($0) }
        return try FileInfo(response.info)
      }
    } catch {
      if let thrown = attempt.thrown { throw FinalError(error: thrown) }
      throw error
    }
  }
}

/// An error that ends the write as it is, whatever it looks like: what the caller's own code threw, or what came after
/// some of a source was taken that can not be read twice.
private struct FinalError: Error {
  let error: any Error
}

/// The tries to write a file.
private final class WriteAttempt: Sendable {
  private let header: Blocktree_V1_WriteHeader
  private let body: @Sendable (FileWriter) async throws -> Void
  private let state = Mutex<(count: Int, failure: (any Error)?)>((0, nil))

  init(header: Blocktree_V1_WriteHeader, body: @Sendable @escaping (FileWriter) async throws -> Void) {
    self.header = header
    self.body = body
  }

  /// How often the body has begun.
  var count: Int { self.state.withLock { $0.count } }

  /// What the caller's code threw, if it was not what the connection threw at it.
  var thrown: (any Error)? { self.state.withLock { $0.failure } }

  func run(_ stream: RPCWriter<Blocktree_V1_WriteRequest>) async throws {
    try await stream.write(.with { $0.header = self.header })
    self.state.withLock { $0.count += 1 }
    let hasBroken = Flag()
    do {
      try await self.body(FileWriter(stream, hasBroken: hasBroken))
    } catch {
      if !hasBroken.isSet, !(error is CancellationError) { self.state.withLock { $0.failure = error } }
      throw error
    }
  }
}
