// SPDX-License-Identifier: Apache-2.0

internal import DiscoverySimulation
internal import Foundation

/// What a simulated domain came to.
struct DomainFigures: Encodable, Sendable {
  let processCount: Int
  let clusterCount: Int
  let levelCount: Int
  let findCount: Int
  let wrongCount: Int
  let failureCount: Int
  /// Of the finds that a process's own cluster could not answer: without a message, and in one round trip.
  let hitRate: Double
  let directRate: Double
  let meanRoundTrips: Double
  let meanRedirects: Double
  let requestsPerSecond: Double
  /// To all processes of the root's cluster.
  let rootRequestsPerSecond: Double
  /// Of these, such as are about other clusters' directories: what it costs to find the way.
  let rootPassingPerSecond: Double

  init(_ report: SimulationReport) {
    self.processCount = report.processCount
    self.clusterCount = report.clusterCount
    self.levelCount = report.levelCount
    self.findCount = report.findCount
    self.wrongCount = report.wrongCount
    self.failureCount = report.failureCount
    self.hitRate = report.hitRate
    self.directRate = report.directRate
    self.meanRoundTrips = report.meanRoundTrips
    self.meanRedirects = report.meanRedirects
    self.requestsPerSecond = report.requestsPerSecond
    self.rootRequestsPerSecond = report.rootRequestsPerSecond
    self.rootPassingPerSecond = report.rootPassingPerSecond
  }

  static func table(of all: [DomainFigures]) -> String {
    func number(_ value: Double, _ digits: Int = 1) -> String { String(format: "%.\(digits)f", value) }
    let heading = [
      "processes", "clusters", "levels", "finds", "wrong", "failed", "no message", "one round trip", "round trips",
      "redirects", "messages/s", "root's/s", "growth", "passing/s", "root's/s a process",
    ]
    let rows = all.map { figures in
      let growth = figures.rootRequestsPerSecond / max(all.first?.rootRequestsPerSecond ?? 1, 0.001)
      return [
        "\(figures.processCount)", "\(figures.clusterCount)", "\(figures.levelCount)", "\(figures.findCount)",
        "\(figures.wrongCount)", "\(figures.failureCount)", number(100 * figures.hitRate) + " %",
        number(100 * figures.directRate) + " %", number(figures.meanRoundTrips, 2), number(figures.meanRedirects, 2),
        number(figures.requestsPerSecond), number(figures.rootRequestsPerSecond), "x" + number(growth),
        number(figures.rootPassingPerSecond),
        number(figures.rootRequestsPerSecond / Double(max(1, figures.processCount)), 4),
      ]
    }
    return TextTable(rows: [heading] + rows, numberColumns: Set(0..<heading.count)).lines.joined(separator: "\n")
  }
}
