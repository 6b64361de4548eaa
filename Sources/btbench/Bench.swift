// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Foundation

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Measures all phases, yardsticks and node alike, in each run, so that what is compared was measured close together.
struct Bench: Sendable {
  let scale: Scale
  let phases: [Phase]
  let runCount: Int
  /// Exists, and is removed by the caller.
  let directory: String
  /// The node's program.
  let node: String

  func run() async throws -> Report {
    var figures = Figures()
    var notes: [String] = []
    guard self.phases.contains(where: \.usesNode) else {
      for run in 1...self.runCount { try await self.measure(run, nil, &figures, &notes) }
      return self.report(figures, notes)
    }
    let node = try await BenchNode.start(self.node, directory: self.directory)
    do {
      try await withClient(node.profile) { client in
        let site = Site(node: node, client: client, scale: self.scale)
        try await client.makeDirectory(Site.directory)
        for run in 1...self.runCount { try await self.measure(run, site, &figures, &notes) }
      }
    } catch {
      throw BenchFailure("\(error)\(node.logTail)")
    }
    try await node.stop()
    return self.report(figures, notes)
  }

  private func report(_ figures: Figures, _ notes: [String]) -> Report {
    Report(scale: self.scale, runCount: self.runCount, figures: figures, notes: notes)
  }

  private func measure(
    _ run: Int, _ site: Site?, _ figures: inout Figures, _ notes: inout [String]
  ) async throws {
    var peaks: (node: Double, client: Double) = (0, 0)
    for phase in self.phases {
      try Task.checkCancellation()
      Self.progress("run \(run) of \(self.runCount): \(phase.rawValue)")
      guard phase.usesNode else {
        do {
          try await self.yardstick(phase, &figures)
        } catch let failure as BenchFailure {
          // Without a yardstick the rest still says something.
          try Task.checkCancellation()
          let note = "\(phase.rawValue): \(failure)"
          if !notes.contains(note) { notes.append(note) }
        }
        continue
      }
      guard let site else { throw BenchFailure("there is no node") }
      let memories = (node: Memory(pid: site.node.pid), client: Memory(pid: getpid()))
      memories.node.reset()
      memories.client.reset()
      try await site.measure(phase, &figures)
      if let peak = memories.node.peak {
        figures.add("memory.node.\(phase.rawValue)", peak, "MB")
        peaks.node = max(peaks.node, peak)
      }
      if let peak = memories.client.peak {
        figures.add("memory.client.\(phase.rawValue)", peak, "MB")
        peaks.client = max(peaks.client, peak)
      }
    }
    guard site != nil else { return }
    figures.add("memory.node", peaks.node, "MB")
    figures.add("memory.client", peaks.client, "MB")
  }

  private func yardstick(_ phase: Phase, _ figures: inout Figures) async throws {
    let yardsticks = Yardsticks(scale: self.scale, directory: "\(self.directory)/yardstick")
    switch phase {
    case .disk: try await yardsticks.disk(&figures)
    case .crypto: try await yardsticks.crypto(&figures)
    case .tls:
      try await TLSYardstick(scale: self.scale, directory: "\(self.directory)/tls").measure(&figures)
    case .commits, .reads, .stat, .transfer, .files: break
    }
  }

  private static func progress(_ text: String) {
    FileHandle.standardError.write(Data("\(text)\n".utf8))
  }
}
