// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOPosix
internal import SectorStore
internal import Sectors
internal import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

extension Node {
  /// Opens the store, if the life of the cluster that it belongs to is the latest that this process knows of.
  ///
  /// A warrant that names this very store begins the next life with it. Under any other one, which ends the life of the
  /// store, it is set aside: its process comes back as a new member.
  ///
  /// - Returns: nil when the store was set aside.
  func openStore(_ surroundings: Surroundings) async throws -> SectorStore? {
    let store = try await self.openStore(surroundings.generation, surroundings.pool)
    let (member, own) = (store.configuration.memberID, surroundings.identity.credential.path)
    let warrant: RecoveryWarrant?
    do {
      let life = try GroupLife(of: store, root: surroundings.identity.root)
      let known = GroupLife(try surroundings.warrants.read())
      warrant = known.supersedes(life) ? known.warrant : nil
    } catch {
      store.abandon()
      throw error
    }
    guard let warrant else { return store }
    store.abandon()
    guard warrant.process == own, warrant.member == member else {
      let path = try surroundings.place.setAside("superseded")
      self.logger.critical(
        """
        a recovery has ended the life of the cluster that this store belongs to: it is set aside, and the process comes \
        back as a new member; remove the store when nothing in it is wanted any more
        """,
        metadata: Self.metadata(warrant, ["store": "\(path)"]))
      return nil
    }
    try await self.recover(warrant, surroundings)
    return try await self.openStore(surroundings.generation, surroundings.pool)
  }

  /// Makes the store the only member of its cluster's next life, with all that is in its log. A crash in the middle does
  /// no harm: until it is done, each start does it anew, and nothing is served.
  private func recover(_ warrant: RecoveryWarrant, _ surroundings: Surroundings) async throws {
    self.logger.critical(
      "recovering: this process becomes the only member of its cluster, with all that its log has",
      metadata: Self.metadata(warrant))
    let store = try await self.openStore(surroundings.generation, surroundings.pool, appliesLog: true)
    do {
      if try GroupLife(of: store, root: surroundings.identity.root).warrant == warrant {
        // All but the end was done before.
        try await store.checkpoint()
      } else {
        let log = store.recoveredLog
        let term = max(log.hardState.term, log.appliedTerm) + Self.recoveryTermGap
        try await SectorGroup.refound(store, as: surroundings.identity.credential.path, term: term, warrant: warrant)
      }
      try await store.close()
    } catch {
      store.abandon()
      throw error
    }
    self.logger.notice("recovered", metadata: Self.metadata(warrant))
  }

  /// What keeps members of an earlier life out is the incarnation. But no entry of theirs is to have index and term in
  /// common with one that follows here.
  private static let recoveryTermGap: UInt64 = 1 << 20

  static func metadata(_ warrant: RecoveryWarrant, _ more: Logger.Metadata = [:]) -> Logger.Metadata {
    more.merging(["incarnation": "\(warrant.incarnation)", "survivor": "\(warrant.process)"]) { first, _ in first }
  }
}

/// What a node does about warrants while it serves: they are put on the disk, and the node begins again with what they
/// say.
struct LifeEnd: Sendable {
  let warrants: WarrantFile
  let health: HealthState
  let end: NodeEnd
  let logger: Logger

  /// Another member has shown that this life of the cluster is over. From now on this process acknowledges nothing, and
  /// answers nothing that would need the cluster.
  ///
  /// - Parameter stop: ends this member's part in the consensus. Blocks.
  func giveUp(_ warrant: RecoveryWarrant, stop: @escaping @Sendable () -> Void) {
    self.logger.critical(
      """
      a recovery has ended the life of the cluster that this process belongs to: it serves no more as a member of that
      """,
      metadata: Node.metadata(warrant))
    self.health.set(isServing: false)
    let isStarted = WorkerThread.start {
      stop()
      // Not to begin again with the old store, it has to be known what that is.
      while self.end.reason != .stop {
        do throws(NodeError) {
          try self.warrants.note(warrant)
          break
        } catch {
          self.logger.critical("the warrant of the recovery can not be kept", metadata: ["error": "\(error)"])
          _ = sleep(1)
        }
      }
      self.end.request(.warrant)
    }
    // It hears of it again after the next start.
    if !isStarted { self.end.request(.stop) }
  }

  /// A warrant that is good for this member was brought. Blocks.
  func begin(_ warrant: RecoveryWarrant, stop: () -> Void) throws(NodeError) {
    // What others say does not count any more.
    stop()
    defer { self.end.request(.warrant) }
    try self.warrants.note(warrant)
  }
}
