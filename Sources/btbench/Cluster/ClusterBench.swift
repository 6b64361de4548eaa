// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import Foundation

/// What can be measured of a cluster on its own.
enum ClusterPhase: String, CaseIterable, Sendable, ExpressibleByArgument {
  case puts
  case gets
  case idle
  case failover
  // Of our cluster alone: etcd has no files.
  case transfer
  case files
  case catchup
}

/// Whose clusters are measured.
enum ClusterPeer: String, CaseIterable, Sendable, ExpressibleByArgument {
  case etcd
  case blocktree
}

/// Measures one cluster after the other in each run, in one and the same configuration for all phases.
struct ClusterBench: Sendable {
  let phases: [ClusterPhase]
  let peers: [ClusterPeer]
  let memberCount: Int
  let runCount: Int
  let trialCount: Int
  /// Of each load.
  let inFlight: [Int]
  let loadMilliseconds: Int
  /// What each load may take to prepare.
  let headMilliseconds: Int
  /// Of files.
  let scale: Scale
  /// Exists, and is removed by the caller.
  let directory: String
  /// Holds `etcd` and `etcdload`.
  let etcd: String
  let node: String
  let tool: String

  private static let idleTime = Duration.seconds(5)
  /// Of one trial: what comes before the leader is killed, and what has to come after it.
  private static let gapMilliseconds = 5_000

  func run() async throws -> ClusterReport {
    var report = ClusterReport(memberCount: self.memberCount, runCount: self.runCount, trialCount: self.trialCount)
    for run in 1...self.runCount {
      for peer in self.peers {
        let directory = "\(self.directory)/\(peer)-\(run)"
        switch peer {
        case .etcd:
          let cluster = try await EtcdCluster(self.memberCount, programs: self.etcd, directory: directory)
          try await self.measure(cluster, run, &report)
        case .blocktree:
          let cluster = try ClusterSite(self.memberCount, node: self.node, tool: self.tool, directory: directory)
          try await self.measure(cluster, run, &report)
        }
        try FileManager.default.removeItem(atPath: directory)
      }
    }
    return report
  }

  private func measure<Cluster: MeasuredCluster>(
    _ cluster: Cluster, _ run: Int, _ report: inout ClusterReport
  ) async throws {
    let what = "run \(run) of \(self.runCount): \(Cluster.name)"
    do {
      Self.progress("\(what): start")
      try await cluster.start()
      for phase in self.phases {
        try Task.checkCancellation()
        Self.progress("\(what): \(phase)")
        switch phase {
        case .puts: try await self.loads(.put, cluster, &report)
        case .gets:
          try await cluster.fill()
          try await self.loads(.get, cluster, &report)
        case .idle: try await self.idle(cluster, &report)
        // As many trials as are asked for, in the first run.
        case .failover where run > 1: break
        case .failover: try await self.failover(cluster, &report)
        case .transfer, .files, .catchup:
          guard let site = cluster as? ClusterSite else { continue }
          try await self.files(phase, site, &report)
        }
      }
      try await cluster.stop()
    } catch {
      throw BenchFailure("\(what): \(error)\(Program.tail(of: cluster.log))")
    }
  }

  private func loads(
    _ operation: LoadOrder.Operation, _ cluster: some MeasuredCluster, _ report: inout ClusterReport
  ) async throws {
    for inFlight in self.inFlight {
      var best: (summary: LoadSummary, layout: LoadLayout)?
      for layout in LoadLayout.all(for: inFlight) {
        let leader = try await cluster.settledLeader()
        let summary = try await cluster.run(
          LoadOrder(
            operation: operation, inFlight: inFlight, layout: layout, milliseconds: self.loadMilliseconds,
            headMilliseconds: self.headMilliseconds),
          leader: leader)
        if summary.rate > best?.summary.rate ?? 0 { best = (summary, layout) }
      }
      guard let best else { throw BenchFailure("no \(operation.rawValue) succeeded with \(inFlight) in flight") }
      report.add(best.summary, layout: best.layout, as: "\(operation.rawValue).\(inFlight)", of: cluster)
    }
  }

  private func idle(_ cluster: some MeasuredCluster, _ report: inout ClusterReport) async throws {
    try await cluster.settledLeader()
    let before = ProcessorTime.of(cluster.members.pids)
    let start = ContinuousClock.now
    try await Task.sleep(for: Self.idleTime)
    let used = ProcessorTime.of(cluster.members.pids) - before
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    report.add(100 * used / seconds / Double(self.memberCount), "% of a core", as: "idle.member", of: cluster)
  }

  private func failover(_ cluster: some MeasuredCluster, _ report: inout ClusterReport) async throws {
    let order = LoadOrder(operation: .gap, milliseconds: Self.gapMilliseconds, headMilliseconds: 0)
    for _ in 0..<self.trialCount {
      let leader = try await cluster.settledLeader()
      async let writing = cluster.run(order, leader: leader)
      try await Task.sleep(for: .milliseconds(Int.random(in: 1_500...2_500)))
      try await cluster.members.kill(leader)
      let summary = try await writing
      report.add(summary.gapMilliseconds, "ms", as: "failover.gap", of: cluster)
      try await cluster.restart(leader)
      // It has to catch up, and what that costs is no part of the next trial.
      try await Task.sleep(for: .seconds(1))
    }
  }

  private func files(_ phase: ClusterPhase, _ site: ClusterSite, _ report: inout ClusterReport) async throws {
    let leader = try await site.settledLeader()
    var figures = Figures()
    let before = (time: ContinuousClock.now, processor: ProcessorTime.of(site.members.pids))
    switch phase {
    case .transfer: try await site.withFiles(leader, self.scale) { try await $0.transfer(&figures) }
    case .files: try await site.withFiles(leader, self.scale) { try await $0.small(&figures) }
    default: try await self.catchUp(site, leader, &figures)
    }
    if phase != .catchup {
      let seconds = (ContinuousClock.now - before.time) / .seconds(1)
      let cores = (ProcessorTime.of(site.members.pids) - before.processor) / seconds
      figures.add("\(phase).members", cores, "cores")
    }
    for series in figures.series {
      for value in series.values { report.add(value, series.unit, as: series.name, of: site) }
    }
  }

  /// A member that lost its store gets all of it from the others, which serve meanwhile: one client writes small files,
  /// each as soon as the one before is durable.
  private func catchUp(_ site: ClusterSite, _ leader: Int, _ figures: inout Figures) async throws {
    let member = site.members.indices.first { $0 != leader } ?? leader
    var result = figures
    try await site.withFiles(leader, self.scale) { files in
      let path = "\(files.directory)/kept"
      let byteCount = try await files.writeLarge(to: path)
      try await site.members.kill(member)
      try site.removeStore(of: member)
      let donors = site.members.pids.map { Memory(pid: $0) }
      for donor in donors { donor.reset() }
      let start = ContinuousClock.now
      let serving = try await withThrowingTaskGroup(of: Double?.self) { group in
        group.addTask {
          try await site.restart(member)
          return nil
        }
        group.addTask {
          var count = 0
          while !Task.isCancelled {
            do {
              _ = try await files.client.write(Noise.bytes(4_096), to: "\(files.directory)/beside", .replace)
              count += 1
            } catch {
              if !Task.isCancelled { throw error }
            }
          }
          return Load.rate(count, since: start)
        }
        // The other one ends when this one has.
        var rate = 0.0
        while let ended = try await group.next() {
          group.cancelAll()
          if let ended { rate = ended }
        }
        return rate
      }
      result.add("catchup", Load.rate(Int(byteCount), since: start) / 1e6, "MB/s")
      result.add("catchup.serving", serving, "files/s")
      // Which of them it was that sent the snapshot is theirs to decide.
      result.add("catchup.donors.peak", donors.compactMap(\.peak).max() ?? 0, "MB")
      try await files.client.remove(path)
    }
    figures = result
  }

  private static func progress(_ text: String) {
    FileHandle.standardError.write(Data("\(text)\n".utf8))
  }
}
