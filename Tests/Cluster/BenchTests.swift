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
