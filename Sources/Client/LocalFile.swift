// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import NIOCore
internal import NIOPosix
private import Synchronization

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Reads a file of this machine on another thread, ahead of whoever takes its bytes, so that disk and network work at
/// the same time. Holds at most two batches of 1 MiB.
struct LocalFileSource {
  private static let batchPieces = 8

  private let descriptor: LocalDescriptor
  private let eventLoop: any EventLoop
  private var pieces: ArraySlice<Data> = []
  private var ahead: EventLoopFuture<[Data]>?
  /// Of the next batch; nil where the descriptor stands.
  private var offset: Int64?

  /// - Parameter offset: where to begin, whatever others do with the descriptor; nil to read from where it stands.
  init(descriptor: LocalDescriptor, from offset: Int64?, on eventLoop: any EventLoop) {
    self.descriptor = descriptor
    self.offset = offset
    self.eventLoop = eventLoop
  }

  /// The next bytes: 128 KiB, or fewer at the end; nil after that.
  mutating func next() async throws -> Data? {
    if self.pieces.isEmpty {
      let batch = try await (self.ahead ?? self.readBatch()).cancellableGet()
      self.pieces = batch[...]
      self.offset? += Int64(batch.reduce(0) { $0 + $1.count })
      self.ahead = batch.isEmpty ? nil : self.readBatch()
    }
    return self.pieces.popFirst()
  }

  private func readBatch() -> EventLoopFuture<[Data]> {
    let (descriptor, start) = (self.descriptor, self.offset)
    return NIOThreadPool.singleton.runIfActive(eventLoop: self.eventLoop) {
      var batch: [Data] = []
      var offset = start
      while batch.count < Self.batchPieces {
        let piece = try LocalFile.read(descriptor.value, count: FileWriter.messageByteCount, at: offset)
        offset? += Int64(piece.count)
        if piece.isEmpty { break }
        batch.append(piece)
        // A pipe that has no more now should not hold up what it had.
        if piece.count < FileWriter.messageByteCount { break }
      }
      return batch
    }
  }
}

/// Writes a file of this machine on another thread. Holds at most two batches of 1 MiB.
struct LocalFileSink {
  private static let batchByteCount = 1 << 20

  private let descriptor: LocalDescriptor
  private let eventLoop: any EventLoop
  private var pieces: [Data] = []
  private var byteCount = 0
  private var under: EventLoopFuture<Void>?

  /// Writes to where the descriptor stands.
  init(descriptor: LocalDescriptor, on eventLoop: any EventLoop) {
    self.descriptor = descriptor
    self.eventLoop = eventLoop
  }

  mutating func write(_ data: Data) async throws {
    self.pieces.append(data)
    self.byteCount += data.count
    if self.byteCount >= Self.batchByteCount { try await self.flush() }
  }

  /// Waits for everything that was written.
  mutating func finish() async throws {
    if !self.pieces.isEmpty { try await self.flush() }
    try await self.under?.cancellableGet()
    self.under = nil
  }

  private mutating func flush() async throws {
    try await self.under?.cancellableGet()
    let (descriptor, pieces) = (self.descriptor, self.pieces)
    self.pieces = []
    self.byteCount = 0
    self.under = NIOThreadPool.singleton.runIfActive(eventLoop: self.eventLoop) {
      for piece in pieces { try LocalFile.write(descriptor.value, piece) }
    }
  }
}

/// An open descriptor, which is closed when nobody uses it any more: a read or write that is under way on another
/// thread when its transfer ends keeps it open, so that its number can not become another file's.
final class LocalDescriptor: Sendable {
  let value: Int32
  private let isOwned: Atomic<Bool>

  /// - Parameter isOwned: false for one that stays the caller's.
  init(_ value: Int32, isOwned: Bool) {
    self.value = value
    self.isOwned = Atomic(isOwned)
  }

  /// Closes it now, once; answers what `close` does.
  func close() -> Int32 {
    self.isOwned.exchange(false, ordering: .acquiringAndReleasing) ? Glibc.close(self.value) : 0
  }

  deinit { _ = self.close() }
}

extension EventLoopFuture where Value: Sendable {
  /// As `get`, but ends at once when the task is cancelled.
  fileprivate func cancellableGet() async throws -> Value {
    let promise = self.eventLoop.makePromise(of: Value.self)
    self.cascade(to: promise)
    return try await withTaskCancellationHandler {
      try await promise.futureResult.get()
    } onCancel: {
      promise.fail(CancellationError())
    }
  }
}

extension BlocktreeError {
  package static func localFile(_ path: String, _ code: Int32) -> BlocktreeError {
    BlocktreeError(
      code: code == ENOENT ? .notFound : .failedPrecondition, reason: .localFile,
      message: "\(path): \(String(cString: strerror(code)))", metadata: ["path": path, "errno": "\(code)"])
  }
}
