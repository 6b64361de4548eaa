// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import Foundation

/// `btbench cluster-load`: what `btbench cluster` runs, once or several times, to keep processes busy.
struct ClusterLoadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cluster-load", abstract: "Keeps a domain's processes busy, and prints what came of it as JSON.",
    shouldDisplay: false)

  @Option var profile: String
  /// With commas between. The client begins at the first.
  @Option var addresses: String
  @Option var operation: LoadOrder.Operation
  @Option var inFlight: Int
  @Option var connections: Int
  @Option var milliseconds: Int
  /// Milliseconds since 1970 before which nothing is measured.
  @Option var at: Int64
  /// Milliseconds that an operation may take when gaps are looked for.
  @Option var patience = 50

  func validate() throws {
    guard (1...4_096).contains(self.inFlight), (1...64).contains(self.connections), self.patience > 0,
      (1...600_000).contains(self.milliseconds)
    else { throw ValidationError("A number is out of its range.") }
  }

  func run() async throws {
    let profile = try Profile(contentsOf: self.profile)
      .starting(from: self.addresses.split(separator: ",").map(String.init))
    let load = ClusterLoad(
      profile: profile, duration: .milliseconds(self.milliseconds),
      start: Date(timeIntervalSince1970: Double(self.at) / 1e3))
    let result =
      switch self.operation {
      case .put: try await load.commits(inFlight: self.inFlight, connections: self.connections)
      case .get: try await load.reads(inFlight: self.inFlight, connections: self.connections)
      case .gap: try await load.gap(patience: .milliseconds(self.patience))
      }
    print(String(decoding: try JSONEncoder().encode(result), as: UTF8.self))
  }
}
