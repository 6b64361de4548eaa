// SPDX-License-Identifier: Apache-2.0

import Resolver
import Testing

@Suite("The order of targets")
struct OrderTests {
  private func record(_ target: String, priority: UInt16, weight: UInt16) throws -> ServiceRecord {
    ServiceRecord(priority: priority, weight: weight, port: 7777, target: try name(target))
  }

  @Test("holds each record once, by priority")
  func priorities() throws {
    var random = SeededGenerator.forTest()
    for _ in 0..<200 {
      let records = try (0..<Int.random(in: 0...20, using: &random)).map { index in
        try self.record(
          "t\(index)", priority: .random(in: 0...3, using: &random),
          weight: Bool.random(using: &random) ? 0 : .random(in: 0 ... .max, using: &random))
      }
      let ordered = ServiceRecord.ordered(records, using: &random)
      #expect(ordered.count == records.count)
      #expect(Set(ordered) == Set(records))
      #expect(ordered.map(\.priority) == records.map(\.priority).sorted())
    }
  }

  @Test("puts each target first as often as its weight says", arguments: [[1, 3, 6], [0, 1, 1], [5, 5, 0]])
  func weights(weights: [UInt16]) throws {
    var random = SeededGenerator.forTest()
    let records = try weights.enumerated().map { try self.record("t\($0)", priority: 1, weight: $1) }
    var firsts: [String: Double] = [:]
    let rounds = 20_000
    for _ in 0..<rounds {
      let first = try #require(ServiceRecord.ordered(records, using: &random).first)
      firsts[first.target.description, default: 0] += 1 / Double(rounds)
    }
    // RFC 2782 draws from 0 to the sum inclusive, and the 0 goes to who stands first: of weight 0, if there are some.
    let sum = weights.reduce(0) { Double($0) + Double($1) }
    for (index, weight) in weights.enumerated() {
      let share = firsts["t\(index)"] ?? 0
      #expect(abs(share - Double(weight) / sum) < 1 / (sum + 1) + 0.02, "\(firsts)")
      #expect(weights.max() != weight || share > 0.25)
    }
  }

  @Test("is any order where no weights say otherwise")
  func withoutWeights() throws {
    var random = SeededGenerator.forTest()
    let records = try (0..<3).map { try self.record("t\($0)", priority: 1, weight: 0) }
    var seen: Set<[ServiceRecord]> = []
    for _ in 0..<500 { seen.insert(ServiceRecord.ordered(records, using: &random)) }
    #expect(seen.count == 6)
  }

  @Test("follows from the random numbers, however the records were answered")
  func deterministic() throws {
    var random = SeededGenerator.forTest()
    let records = try (0..<12).map {
      try self.record(
        "t\($0)", priority: .random(in: 0...1, using: &random), weight: .random(in: 0...9, using: &random))
    }
    var (one, two) = (SeededGenerator(seed: 7), SeededGenerator(seed: 7))
    let shuffled = records.shuffled(using: &random)
    #expect(ServiceRecord.ordered(records, using: &one) == ServiceRecord.ordered(shuffled, using: &two))
  }
}
