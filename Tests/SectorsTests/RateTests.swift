// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import Sectors
import Testing
import Trust

/// How fast a group is by itself, without a connection. Prints and asserts nothing; runs when SECTORS_RATE is set.
@Suite("The rate of a group", .serialized, .enabled(if: ProcessInfo.processInfo.environment["SECTORS_RATE"] != nil))
struct RateTests {
  @Test("of commits of one sector of 4 KiB to distinct inodes", arguments: [1, 4, 16, 64])
  func commits(batchCount: Int) async throws {
    let inFlight = 64
    let rounds = 40
    let test = try await TestGroup()
    let node = test.domain.node
    let group = try test.group
    // Made and signed beforehand, so that only the group is measured.
    var commits: [[Commit]] = Array(repeating: [], count: inFlight / batchCount)
    for number in 0..<inFlight {
      var inode = try await test.makeFile(sectors: [0: sector(0)])
      for _ in 0..<rounds {
        commits[number % commits.count].append(try inode.commit(writing: sector(UInt8(number)), by: node))
      }
    }
    for list in commits.indices {
      // By round, so that each batch has every inode once.
      let files = Dictionary(grouping: commits[list]) { $0.records[0].fileID }.values
      commits[list] = (0..<rounds).flatMap { round in files.map { $0[round] } }
    }
    let start = ContinuousClock.now
    let failures = await withTaskGroup(of: Int.self) { [commits] tasks in
      for list in commits {
        tasks.addTask {
          var failures = 0
          for first in stride(from: 0, to: list.count, by: batchCount) {
            let outcomes = await group.perform(Array(list[first..<first + batchCount]), by: node.credential)
            failures += outcomes.count { (try? $0.get()) == nil }
          }
          return failures
        }
      }
      return await tasks.reduce(0, +)
    }
    let elapsed = ContinuousClock.now - start
    #expect(failures == 0)
    let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
    print("\(inFlight) in flight, batches of \(batchCount): \(Int(Double(inFlight * rounds) / seconds)) commits/s")
  }
}
