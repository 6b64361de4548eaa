// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What was measured of clusters, each figure of one beside that of the other.
struct ClusterReport: Sendable {
  let memberCount: Int
  let runCount: Int
  let trialCount: Int
  /// Named by cluster, a dot, and what was measured.
  private(set) var figures = Figures()
  /// The layouts that were best, in the order of the runs.
  private var layouts: [String: [String]] = [:]
  /// What was measured, in the order in which it was.
  private var names: [String] = []
  private var failures: [String: Int] = [:]

  init(memberCount: Int, runCount: Int, trialCount: Int) {
    self.memberCount = memberCount
    self.runCount = runCount
    self.trialCount = trialCount
  }

  mutating func add<Cluster: MeasuredCluster>(_ value: Double, _ unit: String, as name: String, of: Cluster) {
    if !self.names.contains(name) { self.names.append(name) }
    self.figures.add("\(Cluster.name).\(name)", value, unit)
  }

  mutating func add<Cluster: MeasuredCluster>(
    _ summary: LoadSummary, layout: LoadLayout, as name: String, of cluster: Cluster
  ) {
    self.add(summary.rate, "ops/s", as: name, of: cluster)
    self.add(summary.latencies.quantile(0.5), "ms", as: "\(name).p50", of: cluster)
    self.add(summary.latencies.quantile(0.99), "ms", as: "\(name).p99", of: cluster)
    self.add(summary.clientCores, "cores", as: "\(name).client", of: cluster)
    self.add(summary.memberCores, "cores", as: "\(name).members", of: cluster)
    self.layouts["\(Cluster.name).\(name)", default: []].append(layout.description)
    self.failures[Cluster.name, default: 0] += summary.failures
  }

  // MARK: Targets

  /// What this project holds itself to.
  private enum Aim {
    case atLeast(times: Double)
    case atMost(times: Double)
    case atMostAbsolute(Double)
    case atLeastAbsolute(Double)

    init?(for name: String) {
      switch name {
      case _ where name.hasSuffix(".p99"): self = .atMost(times: 1)
      case _ where name.hasSuffix(".p50") || name.hasSuffix(".client") || name.hasSuffix(".members"): return nil
      case _ where name.hasPrefix("put.") || name.hasPrefix("get."): self = .atLeast(times: 2)
      case "transfer.write", "catchup": self = .atLeastAbsolute(100)
      case "files.create": self = .atLeastAbsolute(950)
      case "files.read": self = .atLeastAbsolute(5_000)
      case "failover.gap": self = .atMostAbsolute(250)
      case "idle.member": self = .atMostAbsolute(2)
      default: return nil
      }
    }

    var asked: String {
      switch self {
      case .atLeast(let times): "≥ \(Format.number(times)) × etcd"
      case .atMost(let times): "≤ \(Format.number(times)) × etcd"
      case .atMostAbsolute(let most): "≤ \(Format.number(most))"
      case .atLeastAbsolute(let least): "≥ \(Format.number(least))"
      }
    }

    /// Nil where there is nothing to compare with.
    func isMet(_ own: Double, ratio: Double?) -> Bool? {
      switch self {
      case .atLeast(let times): ratio.map { $0 >= times }
      case .atMost(let times): ratio.map { $0 <= times }
      case .atMostAbsolute(let most): own <= most
      case .atLeastAbsolute(let least): own >= least
      }
    }
  }

  private struct Row: Encodable {
    let name: String
    let unit: String
    let etcd: [Double]
    let blocktree: [Double]
    /// Of the medians: ours by etcd's.
    let ratio: Double?
    let asked: String?
    let isMet: Bool?
    /// Processes and connections of each, in the run that was best.
    let etcdLayouts: [String]
    let blocktreeLayouts: [String]
  }

  private var rows: [Row] {
    self.names.map { name in
      let etcd = self.figures["\(EtcdCluster.name).\(name)"]
      let own = self.figures["\(ClusterSite.name).\(name)"]
      let ratio = etcd.flatMap { etcd in own.map { etcd.median > 0 ? $0.median / etcd.median : nil } } ?? nil
      let aim = Aim(for: name)
      return Row(
        name: name, unit: (own ?? etcd)?.unit ?? "", etcd: etcd?.values ?? [], blocktree: own?.values ?? [],
        ratio: ratio, asked: aim?.asked,
        isMet: own.flatMap { own in aim.flatMap { $0.isMet(own.median, ratio: ratio) } },
        etcdLayouts: self.layouts["\(EtcdCluster.name).\(name)"] ?? [],
        blocktreeLayouts: self.layouts["\(ClusterSite.name).\(name)"] ?? [])
    }
  }

  // MARK: For people

  var table: String {
    var cells = [["figure", "etcd", "layout", "blocktree", "layout", "unit", "ratio", "target", ""]]
    for row in self.rows {
      cells.append([
        row.name, Self.median(row.etcd), row.etcdLayouts.last ?? "", Self.median(row.blocktree),
        row.blocktreeLayouts.last ?? "", row.unit, row.ratio.map { Format.number($0) } ?? "", row.asked ?? "",
        row.isMet.map { $0 ? "met" : "missed" } ?? "",
      ])
    }
    var lines = TextTable(rows: cells, numberColumns: [1, 3, 6]).lines
    lines += self.notes
    return lines.joined(separator: "\n")
  }

  private static func median(_ values: [Double]) -> String {
    values.isEmpty ? "" : Format.number(Series(name: "", unit: "", values: values).median)
  }

  private var notes: [String] {
    ["Layouts are the client's processes × the connections of each; the best of those that were tried."]
      + self.failures.sorted { $0.key < $1.key }.filter { $0.value > 0 }
      .map { "\($0.value) operations of \($0.key)'s loads failed." }
  }

  // MARK: For programs

  private struct Document: Encodable {
    let format = 1
    let machine: Machine
    let members: Int
    let runs: Int
    let trials: Int
    let figures: [Row]
    let notes: [String]
  }

  var json: Data {
    get throws {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      return try encoder.encode(
        Document(
          machine: Machine(), members: self.memberCount, runs: self.runCount, trials: self.trialCount,
          figures: self.rows, notes: self.notes))
    }
  }
}
