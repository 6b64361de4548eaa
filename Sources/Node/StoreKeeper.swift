// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import Replication
internal import SectorStore
internal import ServiceLifecycle

/// Keeps the store while the node runs, and closes it when everything that uses it has ended.
///
/// A store whose disk failed refuses everything from then on. The node says so, and ends: whoever starts it again knows
/// what the disk really holds.
struct StoreKeeper: ServiceLifecycle.Service {
  let store: SectorStore
  let replica: ReplicaDriver
  let health: HealthState
  let logger: Logger

  /// How often the store is asked whether it still works. Calls hear of a failure at once, whatever this is.
  private static let interval = Duration.milliseconds(250)

  func run() async throws {
    let failure = await self.watch()
    if let failure {
      self.health.set(isServing: false)
      self.logger.critical("the store failed", metadata: ["error": "\(failure)"])
      self.store.abandon()
      await self.replica.ended()
      throw self.store.fatalDamage.map { NodeError.storeDamaged("\($0)") } ?? NodeError.storeFailed("\(failure)")
    }
    do {
      try await self.store.close()
    } catch {
      // What was acknowledged is in the log all the same.
      throw NodeError.storeFailed("\(error)")
    }
    await self.replica.ended()
    self.logger.debug("the store is closed")
  }

  /// Waits for the shutdown, or for the store to fail.
  private func watch() async -> StoreError? {
    let failure = try? await cancelWhenGracefulShutdown { () -> StoreError? in
      while true {
        if let failure = self.store.failure { return failure }
        try await Task.sleep(for: Self.interval)
      }
    }
    return failure
  }
}

extension SectorStore {
  /// Why the store refuses everything, if it does.
  fileprivate var failure: StoreError? {
    do throws(StoreError) {
      // Answered from memory.
      _ = try self.fact("")
      return nil
    } catch {
      return error == .closed ? nil : error
    }
  }
}
