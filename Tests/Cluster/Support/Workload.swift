// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Linearizability
import Synchronization
import Testing

/// Clients that write and read without end while something happens to a cluster; and what must hold afterwards.
struct Workload: Sendable {
  let cluster: TestCluster
  let recorder = Recorder()
  let seed: UInt64
  /// What the clients use is in here.
  let directory: String
  let clientCount: Int

  private static let registers = ["a", "b", "c"]
  /// Of the clients. Longer than any fault lasts: they bear it with repetitions, and know the outcome then.
  private static let configuration = ClientConfiguration(
    timeout: .seconds(20), connectionPatience: .seconds(20), reconnectionPatience: .seconds(20))

  init(_ cluster: TestCluster, seed: UInt64, in directory: String = "/histories", clientCount: Int = 4) {
    self.cluster = cluster
    self.seed = seed
    self.directory = directory
    self.clientCount = clientCount
  }

  /// Makes what the clients use. Once, before they run.
  func prepare() async throws {
    try await withClient(self.cluster.profile, configuration: Self.configuration) { client in
      try await HistoryClient(directory: self.directory, number: 0, client: client, recorder: self.recorder)
        .prepare(registers: Self.registers)
    }
  }

  /// Runs the clients for as long as `body` runs; operations that are in flight then come to their end.
  func run(_ body: (Workload) async throws -> Void) async throws {
    let isOver = Flag()
    let profile = try self.cluster.profile
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<self.clientCount {
        group.addTask { try await self.client(number, profile, until: isOver) }
      }
      do {
        try await body(self)
      } catch {
        group.cancelAll()
        throw error
      }
      isOver.raise()
      try await group.waitForAll()
    }
  }

  private func client(_ number: Int, _ profile: Profile, until isOver: Flag) async throws {
    var random = SeededGenerator(seed: self.seed &+ UInt64(number))
    try await withClient(profile, configuration: Self.configuration) { client in
      let client = HistoryClient(directory: self.directory, number: number, client: client, recorder: self.recorder)
      while !isOver.isRaised {
        let register = Self.registers[Int.random(in: Self.registers.indices, using: &random)]
        do {
          switch Int.random(in: 0..<8, using: &random) {
          case 0: try await client.makeFile()
          case 1...4: try await client.write(to: register)
          default: try await client.read(register)
          }
        } catch let error as BlocktreeError {
          try Task.checkCancellation()
          self.recorder.noteFailure(error)
        }
        // The checker takes histories of some thousand operations, not of any length.
        try await Task.sleep(for: .milliseconds(Int.random(in: 1...12, using: &random)))
      }
    }
  }

  /// Waits until so many more operations were acknowledged.
  func progress(by count: Int) async throws {
    let target = self.recorder.acknowledgedCount + count
    do {
      try await eventually("\(count) more operations succeed") { self.recorder.acknowledgedCount >= target }
    } catch {
      print("\(self.recorder.acknowledgedCount) of \(target) operations succeeded. The last that failed:")
      for failure in self.recorder.failures.suffix(8) { print(failure) }
      throw error
    }
  }

  /// Reads everything once more, and expects the history to be linearizable and no acknowledged file to be missing.
  func verify() async throws {
    let damaged = try await self.readAll()
    #expect(damaged == [], "BLOCKTREE_TEST_SEED=\(self.seed)")
    let verdict = self.verdict()
    #expect(verdict.isLinearizable, "BLOCKTREE_TEST_SEED=\(self.seed)\n\(verdict)")
    #expect(self.recorder.acknowledgedCount > 0)
  }

  /// Reads all registers once more into the history, and all files.
  ///
  /// - Returns: what is wrong with the files.
  func readAll() async throws -> [String] {
    try await withClient(self.cluster.profile, configuration: Self.configuration) { client in
      let client = HistoryClient(
        directory: self.directory, number: self.clientCount, client: client, recorder: self.recorder)
      for register in Self.registers { try await client.read(register) }
      return try await client.damagedFiles()
    }
  }

  func verdict() -> Verdict { check(self.recorder.history, against: RegisterModel(initially: 0)) }
}

/// Raised once, by whoever wants others to stop.
private final class Flag: Sendable {
  private let value = Atomic(false)
  var isRaised: Bool { self.value.load(ordering: .relaxed) }
  func raise() { self.value.store(true, ordering: .relaxed) }
}
