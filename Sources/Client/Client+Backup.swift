// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
private import Synchronization
internal import Transport

extension ClusterClient {
  /// Copies all that the cluster stores to a file of this machine, as it was at one moment, while it goes on. Whichever
  /// process is reached sends it; it may lack what was committed last, when that one is behind.
  ///
  /// The file is written beside its place, with mode 0600, and gets its name when all of it is on the disk. A transfer
  /// that breaks off leaves nothing, and is not begun again. What is sealed stays so, and no keys are in it.
  ///
  /// - Parameters:
  ///   - path: must not exist. `-` for standard output.
  ///   - progress: told how many bytes of items have come, from time to time. Must not block.
  /// - Throws: `BlocktreeError`: ``BlocktreeError/Reason/permissionDenied`` for everybody but the root directory's owner
  ///   and the cluster's processes; ``BlocktreeError/Reason/busy`` while the process gives another backup.
  public func backup(
    toFile path: String, progress: (@Sendable (UInt64) -> Void)? = nil
  ) async throws -> BackupSummary {
    let hasBegun = Flag()
    return try await self.cluster.call(timeout: nil, isReplayable: { !hasBegun.isSet }) { connection, options in
      try await connection.backups.backup(.init(), options: options) { response in
        var messages = response.messages.makeAsyncIterator()
        // Before there is a file: what is refused leaves none.
        guard let first = try await messages.next(isolation: #isolation) else {
          throw BlocktreeError.malformedAnswer("header")
        }
        hasBegun.set()
        let file = try await BackupFileOnThread(path)
        do {
          try await file.write(first)
          while let message = try await messages.next(isolation: #isolation) {
            progress?(try await file.write(message))
          }
          return try await file.finish()
        } catch {
          await file.discard()
          throw error
        }
      }
    }
  }

  /// Reads a backup file from beginning to end, without any process: its structure, checksums, order and counts.
  ///
  /// - Parameter path: `-` for standard input.
  /// - Returns: what it is a backup of.
  /// - Throws: `BlocktreeError`: ``BlocktreeError/Reason/backupDamaged`` for what is wrong with it.
  public static func verifyBackup(_ path: String) async throws -> BackupSummary {
    try await LocalFile.onThread {
      let reader = try BackupFileReader(path)
      while try reader.next() != nil {}
      guard let summary = reader.summary else { throw BlocktreeError.backupDamaged(path, .truncated, at: 0) }
      return summary
    }
  }
}

/// A writer whose calls are made on threads that may block.
private final class BackupFileOnThread: Sendable {
  private let writer: Mutex<BackupFileWriter?>

  init(_ path: String) async throws {
    // Made by whoever writes first.
    self.writer = Mutex(nil)
    try await self.perform { $0 = try BackupFileWriter(path) }
  }

  /// Returns how many bytes of items there are so far.
  @discardableResult
  func write(_ response: Blocktree_V1_BackupResponse) async throws -> UInt64 {
    try await self.perform { writer in
      try writer?.write(response)
      return writer?.itemByteCount ?? 0
    }
  }

  func finish() async throws -> BackupSummary {
    try await self.perform { writer in
      guard let writer else { throw BlocktreeError.malformedAnswer("trailer") }
      return try writer.finish()
    }
  }

  func discard() async { try? await self.perform { $0?.discard() } }

  private func perform<Result: Sendable>(
    _ body: @escaping @Sendable (inout BackupFileWriter?) throws -> Result
  ) async throws -> Result {
    try await LocalFile.onThread { try self.writer.withLock { try body(&$0) } }
  }
}

extension NodeConnection {
  fileprivate var backups: some Blocktree_V1_BackupService.ClientProtocol {
    Blocktree_V1_BackupService.Client(wrapping: self.client)
  }
}
