// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("btbench cluster", .timeLimit(.minutes(3)))
struct BenchTests {
  private struct Report: Decodable {
    struct Figure: Decodable {
      var name: String
      var blocktree: [Double]
      var etcd: [Double]
    }

    var figures: [Figure]
  }

  @Test("measures a cluster of one process, and leaves nothing behind")
  func quick() async throws {
    let scratch = try Scratch()
    let results = try Scratch()
    let json = "\(results.path)/report.json"
    let lines = try await Command.run(
      Installed.product("btbench"),
      [
        "cluster", "--quick", "--peer", "blocktree", "--members", "1", "--only", "puts", "--only", "gets",
        "--in-flight", "1", "--in-flight", "16", "--dir", scratch.path, "--json", json,
      ], log: "\(results.path)/log")
    let report = try JSONDecoder().decode(Report.self, from: Data(contentsOf: URL(filePath: json)))
    for operation in ["put", "get"] {
      for name in [1, 16].flatMap({ ["\(operation).\($0)", "\(operation).\($0).p99"] }) {
        let figure = try #require(report.figures.first { $0.name == name }, "\(name)")
        #expect(figure.etcd == [] && figure.blocktree.count == 1 && figure.blocktree.allSatisfy { $0 > 0 })
        #expect(lines.contains { $0.hasPrefix("\(name) ") })
      }
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == [])
  }
}

@Suite("btbench reads", .timeLimit(.minutes(3)))
struct ReadsBenchTests {
  private struct Report: Decodable {
    struct Figure: Decodable {
      var name: String
      var values: [Double]
    }

    var figures: [Figure]

    func values(_ name: String) throws -> [Double] {
      try #require(self.figures.first { $0.name == name }, "\(name)").values
    }
  }

  @Test("measures reads over routes, counts what they cost, and leaves nothing behind")
  func quick() async throws {
    let scratch = try Scratch()
    let results = try Scratch()
    let json = "\(results.path)/report.json"
    let lines = try await Command.run(
      Installed.product("btbench"), ["reads", "--quick", "--dir", scratch.path, "--json", json],
      log: "\(results.path)/log")
    let report = try JSONDecoder().decode(Report.self, from: Data(contentsOf: URL(filePath: json)))
    for load in ["4k.1", "4k.16", "4k.session.16", "large"] {
      for way in ["own", "warm", "again", "above", "stored", "warm-to-own", "stored-to-above"] {
        let values = try report.values("\(load).\(way)")
        #expect(values.count == 1 && values.allSatisfy { $0 > 0 && $0.isFinite }, "\(load).\(way)")
        #expect(lines.contains { $0.hasPrefix("\(load).\(way) ") })
      }
    }
    // These are counts: the machine has no part in them.
    let counts = try [
      ("warm.asked-above", 0), ("cold.from-above.calls-above", 1), ("cold.from-above.calls-own", 1),
      ("find.cold.1.trips", 1),
      ("find.cold.2.trips", 2), ("find.warm.1.trips", 0), ("find.warm.2.trips", 0),
      ("find.again.1.trips", 1), ("find.again.2.trips", 1),
    ].map { (try report.values($0.0), $0.1) }
    for (values, expected) in counts { #expect(Set(values) == [Double(expected)]) }
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == [])
  }
}
