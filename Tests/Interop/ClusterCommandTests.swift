// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// What operators use, against a real node that is a cluster of its own.
@Suite("btrpc cluster", .scene(), .timeLimit(.minutes(2)))
struct ClusterCommandTests {
  private let scene: Scene

  init() throws { self.scene = try Scene.current }

  private struct Report: Decodable {
    struct Member: Decodable {
      var process: String
      var addresses: [String]
      var vote: String
      var role: String?
      var term: UInt64?
      var lag: UInt64?
      var matchIndex: UInt64?
      var freeBytes: UInt64?
      var isWritable: Bool?
      var problem: String?
    }

    var generation: UInt64
    var leader: String?
    var term: UInt64
    var commitIndex: UInt64
    var members: [Member]
  }

  @Test("says how the cluster is, to everybody with a credential")
  func status() async throws {
    for person in ["node/profile", "alice"] {
      let report = try await self.run(["--json", "cluster", "status"], as: person).json(Report.self)
      #expect(report.generation == 1 && report.leader == "/node1" && report.term > 0 && report.commitIndex > 0)
      let member = try #require(report.members.first)
      #expect(report.members.count == 1 && member.process == "/node1" && member.vote == "voter")
      #expect(member.role == "leader" && member.term == report.term && member.isWritable == true)
      #expect(try member.lag == 0 && member.addresses == [self.scene.address])
      #expect(member.freeBytes.map { $0 > 0 } == true && member.problem == nil)
    }
    let text = try await self.run(["cluster", "status"]).output
    #expect(text.hasPrefix("generation:  1, term "), "\(text)")
    #expect(text.contains("\nleader:      /node1\n"), "\(text)")
    let row = text.split(separator: "\n").last.map { $0.split(separator: " ") } ?? []
    #expect(row.prefix(2) == ["/node1", "leader"], "\(text)")

    let anonymous = try await self.run(["--anonymous", "cluster", "status"])
    #expect(anonymous.status == 1 && anonymous.errors.contains("permission denied"), "\(anonymous)")
  }

  @Test("says why leadership can not be handed over")
  func transfer() async throws {
    let unfit = try await self.run(["cluster", "transfer"])
    #expect(unfit.status == 1 && unfit.errors.hasPrefix("btrpc: nobody else can lead: "), "\(unfit)")
    let unknown = try await self.run(["cluster", "transfer", "--to", "/node2"])
    #expect(unknown.status == 1, "\(unknown)")
    #expect(unknown.errors == "btrpc: /node2: no member of the cluster is there\n", "\(unknown)")
    let domain = String(repeating: "a", count: 52)
    let foreign = try await self.run(["cluster", "transfer", "--to", "bt://\(domain)/node1"])
    #expect(foreign.status == 1 && foreign.errors.contains("this is no path: "), "\(foreign)")
    let refused = try await self.run(["cluster", "transfer"], as: "alice")
    #expect(refused.status == 1 && refused.errors.contains("permission denied"), "\(refused)")
    // It leads already.
    let same = try await self.run(["cluster", "transfer", "--to", "/node1"])
    #expect(same.status == 0 && same.output.hasPrefix("/node1 leads in term "), "\(same)")
  }

  private func run(_ arguments: [String], as person: String = "node/profile") async throws -> Program.End {
    try await Program.run(
      Installed.product("btrpc"), arguments, environment: ["BLOCKTREE_PROFILE": "\(self.scene.directory)/\(person)"])
  }
}
