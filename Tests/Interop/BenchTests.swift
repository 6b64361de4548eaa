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
}
