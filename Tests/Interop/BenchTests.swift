// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("btbench", .timeLimit(.minutes(5)))
struct BenchTests {
  private struct Report: Decodable {
    struct Figure: Decodable {
      var name: String
      var median: Double
    }

    var figures: [Figure]
  }

  @Test("measures each phase that needs no other program, and leaves nothing behind")
  func quick() async throws {
    let scratch = try Scratch()
    let results = try Scratch()
    let phases = ["commits", "reads", "stat", "transfer", "files"]
    let json = "\(results.path)/report.json"
    let end = try await Program.run(
      Installed.product("btbench"),
      ["--quick", "--dir", scratch.path, "--json", json] + phases.flatMap { ["--only", $0] })
    try #require(end.status == 0, "\(end.errors)")
    let report = try JSONDecoder().decode(Report.self, from: Data(contentsOf: URL(filePath: json)))
    #expect(report.figures.allSatisfy { $0.median > 0 && $0.median.isFinite }, "\(report)")
    for phase in phases { #expect(report.figures.contains { $0.name == "memory.node.\(phase)" }) }
    for figure in report.figures { #expect(end.output.contains("\n\(figure.name) "), "\(end.output)") }
    try scratch.expectNothingLeft()
  }
  private struct RoutesReport: Decodable {
    struct Trie: Decodable {
      var scopeCount: Int
      var countedBytesPerEntry: Double
    }

    struct Domain: Decodable {
      var processCount: Int
      var findCount: Int
      var wrongCount: Int
    }

    var trie: Trie
    var climbing: [Domain]
    var rootFirst: [Domain]
  }

  @Test("fills a trie of routes, and simulates domains in which nothing wrong is found")
  func routes() async throws {
    let results = try Scratch()
    let json = "\(results.path)/report.json"
    let end = try await Program.run(
      Installed.product("btbench"), ["routes", "--quick", "--scopes", "5000", "--processes", "60", "--json", json])
    try #require(end.status == 0, "\(end.errors)")
    let report = try JSONDecoder().decode(RoutesReport.self, from: Data(contentsOf: URL(filePath: json)))
    #expect(report.trie.scopeCount == 5_000)
    // The count does not depend on the machine.
    #expect(report.trie.countedBytesPerEntry > 0 && report.trie.countedBytesPerEntry < 200)
    for domains in [report.climbing, report.rootFirst] {
      #expect(domains.count == 1)
      #expect(domains.allSatisfy { $0.processCount >= 60 && $0.findCount > 0 && $0.wrongCount == 0 })
    }
  }

  private struct MessagesReport: Decodable {
    struct Rate: Decodable {
      var name: String
      var perSecond: Double
    }

    var actorCount: Int
    var rates: [Rate]
    var bytesPerIdleActor: Double?
  }

  @Test("measures messages between actors of one process")
  func messages() async throws {
    let results = try Scratch()
    let json = "\(results.path)/report.json"
    let end = try await Program.run(
      Installed.product("btbench"), ["messages", "--local", "--quick", "--json", json])
    try #require(end.status == 0, "\(end.errors)")
    let report = try JSONDecoder().decode(MessagesReport.self, from: Data(contentsOf: URL(filePath: json)))
    #expect(report.actorCount == 20_000)
    #expect(report.rates.count == 5 && report.rates.allSatisfy { $0.perSecond > 0 })
    // The size does not depend on the machine: a million in 1 GiB.
    #expect(report.bytesPerIdleActor ?? 0 < 1_073)
  }
}
