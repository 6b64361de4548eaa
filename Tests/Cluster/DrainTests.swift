// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Synchronization
import Testing

@Suite("Taking a directory back from its cluster", .timeLimit(.minutes(5)))
struct DrainTests {
  /// What writers know.
  private final class Load: Sendable {
    let isDone = Atomic<Bool>(false)
    let expected = Mutex<[String: [UInt8]]>([:])
    let count = Atomic<Int>(0)
  }

  @Test("goes on beside readers and writers, and after its own processes are gone everything is there")
  func underLoad() async throws {
    var random = SeededGenerator(for: "drain")
    try await TestCluster.with(3) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(3, to: "/site")
      let large = (0..<(6 << 20)).map { _ in UInt8.random(in: 0...255, using: &random) }
      try await cluster.withClient { client in
        try await client.makeDirectory("/site/d")
        try await client.write(large, to: "/site/d/large")
        for number in 0..<40 { try await client.write([UInt8(number)], to: "/site/d/f\(number)") }
        #expect(try await client.stat("/site/d/large").id.generation == 2)
      }
      let load = Load()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for writer in 0..<2 {
          group.addTask {
            try await cluster.withClient { client in
              var value = 0
              while !load.isDone.load(ordering: .relaxed) {
                value += 1
                let places = ["/site/w\(writer)", "/site/d/w\(writer)-\(value % 20)"]
                for name in places {
                  let bytes = Array("\(name) \(value)".utf8)
                  try await client.write(bytes, to: name)
                  load.expected.withLock { $0[name] = bytes }
                  #expect(try await client.readAll(name).bytes == bytes)
                }
                load.count.add(1, ordering: .relaxed)
              }
            }
          }
        }
        group.addTask {
          defer { load.isDone.store(true, ordering: .relaxed) }
          try await eventually("the writers have begun") { load.count.load(ordering: .relaxed) > 10 }
          try await cluster.btrpc("process", "drain", "/site", "--wait")
          let count = load.count.load(ordering: .relaxed)
          try await eventually("the writers go on") { load.count.load(ordering: .relaxed) > count + 10 }
        }
        try await group.waitForAll()
      }
      try await cluster.withClient { client in
        let info = try await client.stat("/site")
        #expect(info.servedByGeneration == nil || info.servedByGeneration == 0)
        // Now its processes can go.
        for member in site { try await cluster.btrpc("process", "remove", cluster.path(of: member)) }
        for member in site {
          cluster.forget(member)
          try await cluster.stop(member)
        }
        for (name, bytes) in load.expected.withLock({ $0 }) {
          #expect(try await client.readAll(name).bytes == bytes, "\(name)")
          #expect(try await client.stat(name).id.generation == 1, "\(name)")
        }
        #expect(try await client.readAll("/site/d/large").bytes == large)
        for number in 0..<40 { #expect(try await client.readAll("/site/d/f\(number)").bytes == [UInt8(number)]) }
        try await client.write([1], to: "/site/after")
        try await client.rename("/site/after", to: "/site/d/after")
      }
      // And it can be handed over again, to a generation of its own.
      try await cluster.add(1, to: "/site")
      try await cluster.withClient { client in
        let generation = try await client.stat("/site").servedByGeneration
        #expect(generation.map { $0 > 2 } == true)
        #expect(try await client.write([2], to: "/site/again").id.generation == generation)
        #expect(try await client.readAll("/site/d/after").bytes == [1])
      }
    }
  }

  @Test("is done from the innermost one outwards where one lies in another")
  func nested() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(1, to: "/site")
      try await cluster.withClient { _ = try await $0.makeDirectory("/site/lab") }
      let lab = try await cluster.add(1, to: "/site/lab")
      try await cluster.withClient { client in
        try await client.makeDirectory("/site/lab/d")
        let places = ["/site/file", "/site/lab/file", "/site/lab/d/file"]
        for (number, place) in places.enumerated() { try await client.write([UInt8(number)], to: place) }
        let refusal = await #expect(throws: BlocktreeError.self) { try await client.drain("/site") }
        #expect(refusal?.metadata["cause"] == "NESTED", "\(String(describing: refusal))")
        for (directory, members, generation) in [("/site/lab", lab, 2), ("/site", site, 1)] {
          try await cluster.btrpc("process", "drain", directory, "--wait")
          for (number, place) in places.enumerated() where place.hasPrefix(directory) {
            #expect(try await client.readAll(place).bytes == [UInt8(number)])
            #expect(try await client.stat(place).id.generation == UInt64(generation), "\(place)")
          }
          for member in members {
            try await cluster.btrpc("process", "remove", cluster.path(of: member))
            cluster.forget(member)
            try await cluster.stop(member)
          }
        }
        for (number, place) in places.enumerated() {
          #expect(try await client.readAll(place).bytes == [UInt8(number)])
          try await client.write([9], to: place + "-new")
        }
        for directory in ["/", "/site"] {
          var names: [String] = []
          for try await entry in client.list(directory, includesInfo: false) { names.append("\(entry.name)") }
          #expect(!names.contains { $0.hasPrefix(".drain") }, "\(names)")
        }
      }
    }
  }

  @Test("goes on with the next leader when the one that does it is killed")
  func killed() async throws {
    try await TestCluster.with(3) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      try await cluster.add(1, to: "/site")
      let bytes = [UInt8](repeating: 7, count: 24 << 20)
      try await cluster.withClient { client in
        for number in 0..<4 { try await client.write(bytes + [UInt8(number)], to: "/site/f\(number)") }
        try await cluster.btrpc("process", "drain", "/site")
        try await eventually("something is copied") {
          let tasks = (try? await client.tasks(at: "/site")) ?? []
          return tasks.contains { $0.bytesDone > 4 << 20 || $0.state == .finished }
        }
        let victim = try await cluster.leader(of: nil)
        await cluster.kill(victim)
        try await eventually("the directory is taken back", within: .seconds(90)) {
          guard let info = try? await client.stat("/site") else { return false }
          return info.servedByGeneration == nil || info.servedByGeneration == 0
        }
        for number in 0..<4 {
          #expect(try await client.readAll("/site/f\(number)").bytes == bytes + [UInt8(number)])
          #expect(try await client.stat("/site/f\(number)").id.generation == 1)
        }
        try await cluster.start(victim)
        try await cluster.settle()
        try await eventually("nothing is left of it") {
          var names: [String] = []
          for try await entry in client.list("/", includesInfo: false) { names.append("\(entry.name)") }
          return !names.contains { $0.hasPrefix(".drain") }
        }
      }
    }
  }
}
