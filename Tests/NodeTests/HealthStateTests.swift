// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Node

@Suite("The health of a node")
struct HealthStateTests {
  @Test("is not SERVING any more after the end, whoever says so at the same moment")
  func end() async {
    for _ in 0..<1_000 {
      let health = HealthState()
      await withTaskGroup(of: Void.self) { group in
        group.addTask {
          while !Task.isCancelled { health.set(isServing: true) }
        }
        while !health.isServing { await Task.yield() }
        health.end()
        group.cancelAll()
      }
      // Once is enough.
      guard !health.isServing else {
        Issue.record("It serves after its end.")
        return
      }
    }
  }

  @Test("is told to watchers in order, and for the last time when it ends")
  func watching() async {
    let health = HealthState()
    var changes = health.changes().makeAsyncIterator()
    #expect(await changes.next() == false)
    health.set(isServing: true)
    #expect(await changes.next() == true)
    health.end()
    health.set(isServing: true)
    #expect(await changes.next() == false)
    #expect(await changes.next() == nil)
    var late = health.changes().makeAsyncIterator()
    #expect(await late.next() == false)
    #expect(await late.next() == nil)
  }
}
