// SPDX-License-Identifier: Apache-2.0

internal import Replication
internal import SectorStore

// What the filesystem service of the leader does in the background, written down in the cluster, so that the next leader
// goes on with it.
extension SectorGroup {
  /// Writes a task down, or that it has ended. Durable on a majority when it returns. This member has to lead.
  ///
  /// - Parameters:
  ///   - id: at most 64 bytes.
  ///   - value: at most a record's size; empty when the task has ended.
  package func setTask(_ id: String, _ value: [UInt8]) async throws(SectorError) {
    try await self.lead()
    _ = try await self.set(Change.Fact(key: Self.taskFactPrefix + id, value: value))
  }

  /// The tasks that have not ended, by their ids, as this member has applied.
  package func tasks() throws(SectorError) -> [String: [UInt8]] {
    let facts: [String: [UInt8]]
    do throws(StoreError) { facts = try self.store.facts(prefix: Self.taskFactPrefix) } catch {
      throw self.error(error)
    }
    var tasks: [String: [UInt8]] = [:]
    for (key, value) in facts where !value.isEmpty { tasks[String(key.dropFirst(Self.taskFactPrefix.count))] = value }
    return tasks
  }

  /// Requires that this member leads.
  ///
  /// - Throws: `notLeader`.
  package func requireLead() async throws(SectorError) { try await self.lead() }

  /// Whether this member leads, as far as it knows.
  package var isLeading: Bool { self.replica.leader == self.replica.member }

  private static let taskFactPrefix = "task."
}
