// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("A cluster of one process", .timeLimit(.minutes(3)))
struct OneMemberTests {
  @Test("loses nothing that was acknowledged when it is killed under load, again and again")
  func killUnderLoad() async throws {
    var random = SeededGenerator(for: "kill")
    try await TestCluster.with { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        for _ in 0..<4 {
          try await load.progress(by: Int.random(in: 1...60, using: &random))
          await cluster.kill(0)
          try await cluster.start(0)
        }
        try await load.progress(by: 20)
      }
      try await workload.verify()
    }
  }

  @Test("goes on where it was when it is stopped and continued under load")
  func pauseUnderLoad() async throws {
    var random = SeededGenerator(for: "pause")
    try await TestCluster.with { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        for _ in 0..<3 {
          try await load.progress(by: Int.random(in: 1...40, using: &random))
          cluster.pause(0)
          // How long it is gone, not a wait for anything.
          try await Task.sleep(for: .milliseconds(Int.random(in: 50...1_500, using: &random)))
          cluster.resume(0)
          try await load.progress(by: 20)
        }
      }
      try await workload.verify()
    }
  }

  @Test("is stopped and started under load, and clients notice nothing but a delay")
  func restartUnderLoad() async throws {
    var random = SeededGenerator(for: "restart")
    try await TestCluster.with { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        for _ in 0..<3 {
          try await load.progress(by: Int.random(in: 1...40, using: &random))
          try await cluster.stop(0)
          try await cluster.start(0)
        }
        try await load.progress(by: 20)
      }
      try await workload.verify()
      #expect(workload.recorder.failures == [])
    }
  }

  @Test(
    "loses nothing when the network between it and its clients is cut under load",
    .enabled("Network namespaces can be made here.") { await NamespaceSupport.isPresent })
  func cutUnderLoad() async throws {
    var random = SeededGenerator(for: "cut")
    try await TestCluster.with(on: .namespaces) { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        for _ in 0..<2 {
          try await load.progress(by: Int.random(in: 1...40, using: &random))
          try await cluster.isolate(0, fromClients: true)
          try await Task.sleep(for: .milliseconds(Int.random(in: 50...1_500, using: &random)))
          try await cluster.heal()
          try await load.progress(by: 20)
        }
      }
      try await workload.verify()
    }
  }
}
