// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Synchronization
import Testing

@Suite("Operation ids")
struct OperationIDsTests {
  private struct Refused: Error {}

  private final class Counter: Sendable {
    let count = Atomic(0)
  }

  @Test("come from one session, each number once, however many ask at the same time")
  func concurrent() async throws {
    let ids = OperationIDs()
    let opened = Counter()
    let all = try await withThrowingTaskGroup(of: Blocktree_V1_OperationId.self) { group in
      for _ in 0..<100 {
        group.addTask {
          try await ids.next {
            opened.count.add(1, ordering: .relaxed)
            await Task.yield()
            return Data(repeating: 7, count: 16)
          }
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(opened.count.load(ordering: .relaxed) == 1)
    #expect(Set(all.map(\.sequence)) == Set(1...100))
  }

  @Test("come from a new session when the old one is not known any more")
  func forgetting() async throws {
    let ids = OperationIDs()
    let first = try await ids.next { Data(repeating: 1, count: 16) }
    ids.forget(first)
    let second = try await ids.next { Data(repeating: 2, count: 16) }
    #expect(second.session == Data(repeating: 2, count: 16) && second.sequence == 1)
    // News of a session that has been replaced already.
    ids.forget(first)
    let third = try await ids.next { throw Refused() }
    #expect(third.session == second.session && third.sequence == 2)
  }

  @Test("are asked for again after a session could not be opened")
  func failing() async throws {
    let ids = OperationIDs()
    await #expect(throws: Refused.self) { try await ids.next { throw Refused() } }
    #expect(try await ids.next { Data(repeating: 1, count: 16) }.sequence == 1)
  }
}
