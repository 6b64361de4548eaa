// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Node
internal import Synchronization

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// A cluster of processes on this machine that speak mutual TLS, and sync what they acknowledge.
protocol MeasuredCluster: Sendable {
  /// The first word of its figures.
  static var name: String { get }

  var members: Members { get }
  /// Where its programs' standard error goes.
  var log: String { get }

  /// Makes the cluster, and returns when it serves.
  func start() async throws
  /// Starts a member again that was killed, and returns when all take part and agree on who leads.
  func restart(_ member: Int) async throws
  /// The member that leads; nil when members do not agree, or not all of them answer.
  func leader() async throws -> Int?
  /// What each member says about that, for a failure.
  func views() async -> String
  /// Prepares reads, where they need it.
  func fill() async throws
  /// A program that does what is ordered with one process, and prints a `LoadResult`.
  ///
  /// - Parameters:
  ///   - leader: where operations are best sent to, except those for gaps, which go to whoever serves.
  ///   - start: milliseconds since 1970 before which it does not begin.
  func program(for order: LoadOrder, leader: Int, start: Int64) -> (executable: String, arguments: [String])
}

extension MeasuredCluster {
  private static var patience: Duration { .seconds(60) }

  /// Waits until there is a leader that all members know.
  @discardableResult
  func settledLeader() async throws -> Int {
    let deadline = ContinuousClock.now + Self.patience
    while ContinuousClock.now < deadline {
      if let leader = try await self.leader() { return leader }
      try await Task.sleep(for: .milliseconds(100))
    }
    throw BenchFailure("there is no leader that all members know\n\(await self.views())")
  }

  func stop() async throws { try await self.members.stop(log: self.log) }

  /// Runs a load in as many processes as its layout says. They have some time to connect and to do what they prepare,
  /// so that they begin together, and the members are watched from then on.
  func run(_ order: LoadOrder, leader: Int) async throws -> LoadSummary {
    let count = min(order.layout.processes, order.inFlight)
    let start = Date.now.addingTimeInterval(Double(order.headMilliseconds) / 1e3)
    return try await withThrowingTaskGroup(of: LoadResult.self) { group in
      for index in 0..<count {
        var share = order
        share.inFlight = order.inFlight / count + (index < order.inFlight % count ? 1 : 0)
        let (executable, arguments) = self.program(
          for: share, leader: leader, start: Int64(start.timeIntervalSince1970 * 1e3))
        group.addTask {
          let lines = try await Program.run(executable, arguments, log: self.log)
          guard let line = lines.last else { throw BenchFailure("\(executable) printed nothing") }
          return try JSONDecoder().decode(LoadResult.self, from: Data(line.utf8))
        }
      }
      try await Task.sleep(for: .seconds(max(start.timeIntervalSinceNow, 0)))
      let before = (time: ContinuousClock.now, processor: ProcessorTime.of(self.members.pids))
      let results = try await group.reduce(into: []) { $0.append($1) }
      let processor = ProcessorTime.of(self.members.pids) - before.processor
      return LoadSummary(results, memberCores: processor / ((ContinuousClock.now - before.time) / .seconds(1)))
    }
  }
}

/// What all processes of a load saw together.
struct LoadSummary: Sendable {
  /// Operations per second that succeeded.
  var rate = 0.0
  var failures = 0
  var latencies = Latencies()
  var gapMilliseconds = 0.0
  /// How many processor cores the programs of the load kept busy.
  var clientCores = 0.0
  /// How many the members did.
  let memberCores: Double

  init(_ results: [LoadResult], memberCores: Double) {
    self.memberCores = memberCores
    for result in results {
      self.rate += result.rate
      self.failures += result.failures
      self.latencies.add(Latencies(counts: result.latencies))
      self.gapMilliseconds = max(self.gapMilliseconds, result.gapMilliseconds)
      self.clientCores += result.processorSeconds / max(result.seconds, 1e-9)
    }
  }
}

/// The processes of a cluster. They are killed when nobody holds this any more.
final class Members: Sendable {
  private let processes: Mutex<[NodeProcess?]>

  private static let patience = Duration.seconds(30)

  init(_ count: Int) { self.processes = Mutex(Array(repeating: nil, count: count)) }

  var indices: Range<Int> { self.processes.withLock { $0.indices } }
  /// Of those that run.
  var pids: [Int32] { self.running.map(\.pid) }

  private var running: [NodeProcess] {
    self.processes.withLock { $0.compactMap { $0 } }.filter { $0.pollEnd() == nil }
  }

  func start(_ member: Int, _ executable: String, _ arguments: [String], log: String) throws -> NodeProcess {
    let process = try Program.start(executable, arguments, log: log)
    self.processes.withLock { $0[member] = process }
    return process
  }

  /// As a crash does; returns when it is gone.
  func kill(_ member: Int) async throws {
    guard let process = self.processes.withLock({ $0[member] }) else { return }
    process.signal(SIGKILL)
    _ = try await process.end(within: Self.patience)
  }

  /// Ends those that run in good order.
  func stop(log: String) async throws {
    let running = self.running
    for process in running { process.signal(SIGTERM) }
    for process in running where try await process.end(within: Self.patience) == nil {
      throw BenchFailure("a member did not stop\(Program.tail(of: log))")
    }
  }
}
