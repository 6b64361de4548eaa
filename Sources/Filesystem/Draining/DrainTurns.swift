// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Synchronization

/// One at a time in this process takes a directory back, or gives that up.
final class DrainTurns: Sendable {
  /// Called before each commit of a drain, by tests, which break one off with it.
  let willCommit = Mutex<(@Sendable () throws(FilesystemError) -> Void)?>(nil)

  private let queues = Mutex<[FileID: CombiningQueue<Never, Never>]>([:])

  /// Beyond it those that nobody waits for are forgotten.
  private static let countMax = 256

  func noteCommit() throws(FilesystemError) { try self.willCommit.withLock { $0 }?() }

  func alone<Result>(_ directory: FileID, _ work: () async -> Result) async -> Result {
    let queue = self.queues.withLock { queues in
      if let queue = queues[directory] { return queue }
      let queue = CombiningQueue<Never, Never>(batchCountMax: 1)
      // Of one that is in use there would be a second: drains of many directories at once are not a case to care for.
      if queues.count >= Self.countMax { queues.removeAll() }
      queues[directory] = queue
      return queue
    }
    return await queue.alone(work)
  }
}
