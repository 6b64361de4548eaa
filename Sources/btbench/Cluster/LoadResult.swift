// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Foundation

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// What is asked of a program that keeps a cluster busy.
struct LoadOrder: Sendable {
  enum Operation: String, Sendable, ExpressibleByArgument {
    /// Writes 4 KiB durably.
    case put
    /// Reads 4 KiB as they are at the moment.
    case get
    /// One writer that gives up soon and tries again, for the longest time without success.
    case gap
  }

  let operation: Operation
  var inFlight = 1
  var layout = LoadLayout(processes: 1, connections: 1)
  let milliseconds: Int
  /// What comes before them, for preparations.
  let headMilliseconds: Int
}

/// How a load is spread.
struct LoadLayout: Hashable, Sendable, CustomStringConvertible {
  let processes: Int
  /// Of each process.
  let connections: Int

  var description: String { "\(self.processes)×\(self.connections)" }

  /// Those that are tried: one connection, several, and several processes, which shows whether one is the limit.
  static func all(for inFlight: Int) -> [LoadLayout] {
    inFlight == 1
      ? [LoadLayout(processes: 1, connections: 1)]
      : [
        LoadLayout(processes: 1, connections: 1), LoadLayout(processes: 1, connections: 8),
        LoadLayout(processes: 2, connections: 4),
      ]
  }
}

/// How long operations took, counted by classes of 1 %: class i holds those of up to 1.01^i microseconds.
struct Latencies: Sendable {
  private(set) var counts: [Int] = []

  private static let step = 1.01
  /// A year: nothing that is measured takes longer.
  private static let classMax = 3_200

  init(counts: [Int] = []) { self.counts = counts }

  mutating func count(_ latency: Duration) {
    let microseconds = max(latency / .microseconds(1), 1)
    let index = min(Int((log(microseconds) / log(Self.step)).rounded(.up)), Self.classMax)
    if self.counts.count <= index { self.counts += Array(repeating: 0, count: index + 1 - self.counts.count) }
    self.counts[index] += 1
  }

  mutating func add(_ other: Latencies) {
    if self.counts.count < other.counts.count {
      self.counts += Array(repeating: 0, count: other.counts.count - self.counts.count)
    }
    for (index, count) in other.counts.enumerated() { self.counts[index] += count }
  }

  var total: Int { self.counts.reduce(0, +) }

  /// In milliseconds; 0 when there are none.
  func quantile(_ fraction: Double) -> Double {
    let rank = Double(self.total) * fraction
    var count = 0
    for (index, own) in self.counts.enumerated() {
      count += own
      if own > 0, Double(count) >= rank { return pow(Self.step, Double(index)) / 1_000 }
    }
    return 0
  }
}

/// What a program reports that kept a cluster busy, as one line of JSON.
struct LoadResult: Codable, Sendable {
  var operations: Int
  var failures: Int
  var seconds: Double
  /// Of the program's own.
  var processorSeconds: Double
  /// As `Latencies` counts.
  var latencies: [Int]
  /// The longest time without success; 0 where it was not asked for.
  var gapMilliseconds: Double

  var rate: Double { Double(self.operations) / max(self.seconds, 1e-9) }
}

/// What processes of the machine have used of its processors.
enum ProcessorTime {
  /// Seconds of this process.
  static var own: Double { self.of([getpid()]) }

  /// Seconds of all these processes; what is gone counts as 0. In steps of 10 ms. See proc_pid_stat(5).
  static func of(_ pids: [Int32]) -> Double {
    pids.reduce(0) { sum, pid in
      guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
        // The program's name, in parentheses, may hold anything.
        let end = text.lastIndex(of: ")")
      else { return sum }
      let fields = text[text.index(after: end)...].split(separator: " ")
      guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return sum }
      return sum + (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }
  }
}
