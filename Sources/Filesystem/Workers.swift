// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
package import NIOPosix

/// Threads for sealing and opening large pieces, so that the connections' event loops go on meanwhile. Small pieces are
/// done where they are: waking another thread takes longer than they do.
package struct Workers: Sendable {
  private let pool: NIOThreadPool
  /// From so many bytes on a piece goes to another thread.
  private static let handOverByteCount = 64 << 10

  /// - Parameter pool: started, and shut down by its owner after the last use.
  package init(pool: NIOThreadPool) { self.pool = pool }

  /// Does work on so many bytes.
  func run<Result: Sendable>(byteCount: Int, _ work: @escaping @Sendable () -> Result) async -> Result {
    guard byteCount >= Self.handOverByteCount else { return work() }
    do { return try await self.pool.runIfActive { work() } } catch {
      // The pool was shut down: the rest is done here.
      return work()
    }
  }
}
