// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite(
  "A cluster of three processes, one with a disk in trouble", .timeLimit(.minutes(3)),
  .enabled("Disks can be made and frozen here.") { await DiskSupport.isPresent })
struct DiskTests {
  /// What the member with the disk in trouble does at that moment.
  enum Part: CaseIterable, Sendable {
    case follows, leads
  }

  /// The member with a disk of its own.
  private static let member = 2

  @Test(
    "goes on while the disk of one is full, which says so, and goes on by itself when there is room again",
    arguments: Part.allCases)
  func fullDisk(_ part: Part) async throws {
    let random = SeededGenerator(for: "full disk, \(part)")
    try await Self.underLoad(part, seed: random.seed) { cluster, load in
      let disk = try cluster.disk(of: Self.member)
      let files = LargeFiles(cluster)
      try await load.progress(by: 20)
      try disk.fill()
      // What is free in its files lasts for a while.
      try await eventually("the member can not write") {
        try await files.write()
        return try await !cluster.status(of: Self.member).isWritable
      }
      _ = try await cluster.leader(except: [Self.member])
      #expect(await cluster.role(of: Self.member) == .follower)
      try await load.progress(by: 40)
      #expect(try await !cluster.status(of: Self.member).isWritable)
      for _ in 0..<4 { try await files.write() }

      try disk.empty()
      try await eventually("the member can write again") { try await cluster.status(of: Self.member).isWritable }
      try await cluster.settle()
      try await cluster.transferLeadership(to: Self.member)
      try await files.write()
      try await load.progress(by: 20)
      #expect(try await files.damaged() == [])
    }
  }

  @Test(
    "replaces a leader whose disk hangs, and goes on without a follower whose disk does; both come back",
    arguments: Part.allCases)
  func hungDisk(_ part: Part) async throws {
    var random = SeededGenerator(for: "hung disk, \(part)")
    try await Self.underLoad(part, seed: random.seed) { cluster, load in
      let disk = try cluster.disk(of: Self.member)
      for _ in 0..<2 {
        try await load.progress(by: Int.random(in: 1...40, using: &random))
        if part == .leads { try await cluster.transferLeadership(to: Self.member) }
        try await disk.freeze()
        // It still runs, and sends heartbeats: it has to step down by itself.
        try await eventually("the member does not lead", within: .seconds(20)) {
          try await cluster.status(of: Self.member).role != .leader
        }
        _ = try await cluster.leader(except: [Self.member])
        try await load.progress(by: 40)
        #expect(await cluster.role(of: Self.member) != .leader)
        await disk.thaw()
        try await load.progress(by: 20)
        try await cluster.settle()
      }
      // Nothing is left of it.
      try await cluster.transferLeadership(to: Self.member)
      try await load.progress(by: 20)
    }
  }

  private static func underLoad(
    _ part: Part, seed: UInt64, _ body: (TestCluster, Workload) async throws -> Void
  ) async throws {
    try await TestCluster.with(3, disks: [Self.member: TestDisk.usualBytes]) { cluster in
      let workload = Workload(cluster, seed: seed)
      try await workload.prepare()
      try await workload.run { load in
        try await load.progress(by: 20)
        switch part {
        case .follows: try await cluster.transferLeadership(to: 0)
        case .leads: try await cluster.transferLeadership(to: Self.member)
        }
        try await body(cluster, load)
      }
      try await workload.verify()
      try await cluster.expectAllApplied()
    }
  }
}

/// Files of a megabyte, which fill a disk up.
private final class LargeFiles {
  private let cluster: TestCluster
  /// Those that were acknowledged.
  private var count = 0

  init(_ cluster: TestCluster) { self.cluster = cluster }

  private static func path(_ number: Int) -> String { "/large-\(number)" }
  private static func contents(_ number: Int) -> [UInt8] {
    (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &* 7 &+ number) }
  }

  /// Writes one more, at whoever leads. A leader without room refuses, and has another one lead.
  func write() async throws {
    try await self.cluster.withClient { client in
      try await eventually("a file finds room") {
        do {
          try await client.writeBytes(Self.contents(self.count), to: Self.path(self.count))
          return true
        } catch let error as BlocktreeError where error.reason == .noSpace {
          return false
        }
      }
    }
    self.count += 1
  }

  /// Those that are not as they were written.
  func damaged() async throws -> [String] {
    try await self.cluster.withClient { client in
      var damaged: [String] = []
      for number in 0..<self.count {
        let bytes = try await client.readBytes(Self.path(number)).bytes
        if bytes != Self.contents(number) { damaged.append(Self.path(number)) }
      }
      return damaged
    }
  }
}
