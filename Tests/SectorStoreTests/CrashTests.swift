// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore
import StoreCrashWorker
import Testing

/// A process that changes a store and prints what was acknowledged, killed at random points.
@Suite("A killed process", .timeLimit(.minutes(5)))
struct CrashTests {
  /// Beside the tests' own executable, or in the build directory above this file.
  private static func worker() -> URL? {
    let name = "StoreCrashWorker"
    var candidates = [URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()]
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    #if DEBUG
      candidates.append(root.appendingPathComponent(".build/debug"))
    #else
      candidates.append(root.appendingPathComponent(".build/release"))
    #endif
    return candidates.map { $0.appendingPathComponent(name) }
      .first { FileManager.default.isExecutableFile(atPath: $0.path) }
  }

  @Test("leaves every acknowledged change in full, and none half")
  func killed() async throws {
    let worker = try #require(Self.worker(), "StoreCrashWorker was not built")
    let victim = try Victim(worker: worker, seed: Seeds.take(1)[0])
    let outcome = try await onThreadOfItsOwn { try victim.killAgainAndAgain(200) }
    #expect(outcome.problem == nil)
    // Kills have landed between many different checkpoints.
    #expect(outcome.checkpoints.count > 10)
  }
}

/// A store, and a program that changes it.
private struct Victim: Sendable {
  let worker: URL
  let seed: UInt64
  private let directory: TemporaryDirectory
  private let configuration = CrashWorkload.configuration

  private var path: String { self.directory.path + "/store" }

  struct Outcome: Sendable {
    var problem: String?
    var checkpoints: Set<UInt64> = []
  }

  init(worker: URL, seed: UInt64) throws {
    self.worker = worker
    self.seed = seed
    self.directory = try TemporaryDirectory()
  }

  /// Until something is wrong. Blocks for long.
  func killAgainAndAgain(_ count: Int) throws -> Outcome {
    var outcome = Outcome()
    var generator = SeededGenerator(seed: self.seed)
    try SectorStore.create(at: self.path, self.configuration)
    for kill in 1...count {
      let problem = try self.kill(&generator, &outcome.checkpoints)
      guard let problem else { continue }
      outcome.problem = "\(problem); STORE_SEED=\(self.seed), kill \(kill)"
      break
    }
    return outcome
  }

  /// Runs the program until it is killed, and looks at what it leaves. Answers what is wrong with that.
  private func kill(_ generator: inout SeededGenerator, _ checkpoints: inout Set<UInt64>) throws -> String? {
    let process = Process()
    let output = Pipe()
    process.executableURL = self.worker
    process.arguments = [self.path, String(self.seed)]
    process.standardOutput = output
    try process.run()
    // Killed after so many acknowledgements were read: what is still in the pipe was acknowledged too.
    let goal = generator.number(0...90)
    var text = Data()
    var count = 0
    while count < goal {
      // What there is: to wait for so many bytes would be to kill after hundreds of acknowledgements, each time.
      let data = output.fileHandleForReading.availableData
      if data.isEmpty { break }
      count += data.count { $0 == 10 }
      text.append(data)
    }
    if generator.bool() { usleep(UInt32(generator.number(0...3_000))) }
    Foundation.kill(process.processIdentifier, SIGKILL)
    while let data = try output.fileHandleForReading.readToEnd(), !data.isEmpty { text.append(data) }
    process.waitUntilExit()
    let lines = String(decoding: text, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
    if let error = lines.first(where: { $0.hasPrefix("error") }) { return String(error) }
    // The last line may be cut.
    let acknowledged = lines.dropLast().compactMap { UInt64($0) }.max() ?? 0

    let store = try SectorStore.open(at: self.path, self.configuration)
    defer { store.abandon() }
    let applied = store.status().appliedIndex.rawValue
    checkpoints.insert(store.status().checkpointIndex.rawValue)
    guard applied >= acknowledged else { return "\(acknowledged) was acknowledged, \(applied) is there" }
    return CrashWorkload.difference(store, seed: self.seed, applied: applied)
  }
}

/// Runs what blocks on a thread of its own: those that tasks share are few.
private func onThreadOfItsOwn<Result: Sendable>(
  _ body: @escaping @Sendable () throws -> Result
) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    Thread.detachNewThread { continuation.resume(with: Swift.Result { try body() }) }
  }
}
