// SPDX-License-Identifier: Apache-2.0

/// What was measured under one name, once in each run.
struct Series: Sendable, Codable {
  let name: String
  let unit: String
  var values: [Double]

  var median: Double {
    let sorted = self.values.sorted()
    guard !sorted.isEmpty else { return 0 }
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }
  var least: Double { self.values.min() ?? 0 }
  var most: Double { self.values.max() ?? 0 }
}

/// All series, in the order in which they were first measured.
struct Figures: Sendable {
  private(set) var series: [Series] = []

  mutating func add(_ name: String, _ value: Double, _ unit: String) {
    if let index = self.series.firstIndex(where: { $0.name == name }) {
      self.series[index].values.append(value)
    } else {
      self.series.append(Series(name: name, unit: unit, values: [value]))
    }
  }

  subscript(name: String) -> Series? { self.series.first { $0.name == name } }
}

/// What a figure is compared with.
struct Target: Sendable {
  enum Kind: Sendable {
    /// At least so many times the best of these yardsticks.
    case atLeast(Double, times: [String])
    case atLeastAbsolute(Double)
    /// In each run, not only in the median.
    case atMost(Double)
    case atMostInMedian(Double)
    /// As near as it comes to what another system gave on such a machine.
    case near(Double, what: String)
  }

  let name: String
  let kind: Kind

  /// How a figure stands to its target.
  struct Standing: Sendable {
    /// What is asked for, in words.
    let asked: String
    /// What is asked for, in the figure's unit.
    let required: Double
    /// The figure in relation to its yardstick; nil where there is none.
    let ratio: Double?
    /// Above 1: better than asked for.
    let reached: Double
    /// Nil where nothing was promised.
    let isMet: Bool?
  }

  /// Nil when the figure or all of its yardsticks are missing.
  func standing(in figures: Figures) -> Standing? {
    guard let series = figures[self.name] else { return nil }
    switch self.kind {
    case .atLeast(let factor, let names):
      let yardsticks = names.compactMap { figures[$0] }
      guard let best = yardsticks.max(by: { $0.median < $1.median }), best.median > 0 else { return nil }
      let ratio = series.median / best.median
      return Standing(
        asked: "≥ \(Format.number(factor)) × \(best.name)", required: factor * best.median, ratio: ratio,
        reached: ratio / factor, isMet: ratio >= factor)
    case .atLeastAbsolute(let least):
      return Standing(
        asked: "≥ \(Format.number(least))", required: least, ratio: nil, reached: series.median / least,
        isMet: series.median >= least)
    case .atMost(let most):
      return Standing(
        asked: "< \(Format.number(most))", required: most, ratio: nil, reached: most / max(series.most, 1e-9),
        isMet: series.most < most)
    case .atMostInMedian(let most):
      return Standing(
        asked: "≤ \(Format.number(most))", required: most, ratio: nil, reached: most / max(series.median, 1e-9),
        isMet: series.median <= most)
    case .near(let other, let what):
      let ratio = series.median / other
      return Standing(
        asked: "\(what): \(Format.number(other))", required: other, ratio: ratio, reached: ratio, isMet: nil)
    }
  }
}

extension Target {
  /// What this project holds itself to, on machines with two cores.
  static let all = Self.node + ReadsBench.targets

  private static let node: [Target] = [
    Target(name: "commit.stream.64", kind: .atLeast(3, times: ["disk.append-sync"])),
    Target(name: "read.stream.64", kind: .atLeastAbsolute(15_000)),
    // grpc-go echoing 4 KiB over mutual TLS, on the machines that this is built on.
    Target(name: "read.unary.1", kind: .near(4_000, what: "grpc-go")),
    Target(name: "read.unary.16", kind: .near(12_700, what: "grpc-go")),
    Target(name: "read.unary.64", kind: .near(17_600, what: "grpc-go")),
    Target(name: "stat.unary.1", kind: .near(4_000, what: "grpc-go")),
    Target(name: "stat.unary.16", kind: .near(12_700, what: "grpc-go")),
    Target(name: "stat.unary.64", kind: .near(17_600, what: "grpc-go")),
    Target(name: "transfer.write", kind: .atLeast(0.4, times: ["tls.aes-128-gcm", "tls.aes-256-gcm"])),
    Target(name: "transfer.read", kind: .atLeast(0.6, times: ["tls.aes-128-gcm", "tls.aes-256-gcm"])),
    Target(name: "files.create", kind: .atLeastAbsolute(1_500)),
    Target(name: "files.read", kind: .atLeastAbsolute(5_000)),
    Target(name: "memory.node", kind: .atMost(200)),
    Target(name: "memory.client", kind: .atMost(200)),
  ]
}
