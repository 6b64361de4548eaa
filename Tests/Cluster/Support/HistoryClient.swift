// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Linearizability
import Synchronization
import Testing

/// What clients asked and were answered, for the checker.
final class Recorder: Sendable {
  typealias Model = RegisterModel<UInt64>

  private struct State {
    var history = History<Model>()
    var acknowledgedCount = 0
    /// Files that were made and acknowledged, and the values in them.
    var files: [String: UInt64] = [:]
    var lastValue: UInt64 = 0
    var failures: [String] = []
  }

  private let start = ContinuousClock.now
  private let state = Mutex(State())

  /// Nanoseconds, the same clock for all.
  private var tick: UInt64 { UInt64((ContinuousClock.now - self.start) / .nanoseconds(1)) }

  /// A value that was never written.
  func newValue() -> UInt64 {
    self.state.withLock { state in
      state.lastValue += 1
      return state.lastValue
    }
  }

  var acknowledgedCount: Int { self.state.withLock { $0.acknowledgedCount } }
  var files: [String: UInt64] { self.state.withLock { $0.files } }
  /// What clients were told instead of an answer, after all repetitions.
  var failures: [String] { self.state.withLock { $0.failures } }
  var history: History<Model> { self.state.withLock { $0.history } }

  /// Records an operation on a register. One that fails has an unknown outcome; a read of which nobody knows what it
  /// gave says nothing, and is left out.
  func operation(
    _ input: Model.Input, on key: String, by client: Int, _ body: () async throws -> Model.Output
  ) async throws {
    let id = self.state.withLock { $0.history.invoke(input, on: key, by: client, at: self.tick) }
    do {
      let output = try await body()
      self.state.withLock { state in
        state.history.complete(id, with: output, at: self.tick)
        state.acknowledgedCount += 1
      }
    } catch {
      if input == .read { self.state.withLock { $0.history.discard(id) } }
      throw error
    }
  }

  func noteFailure(_ error: BlocktreeError) { self.state.withLock { $0.failures.append("\(error)") } }

  func noteFile(_ path: String, _ value: UInt64) {
    self.state.withLock { state in
      state.files[path] = value
      state.acknowledgedCount += 1
    }
  }
}

/// A client that writes and reads registers, each a small file that is replaced whole, and makes files that stay.
struct HistoryClient: Sendable {
  /// Registers and files are in here.
  let directory: String
  /// In the history.
  let number: Int
  let client: Client
  let recorder: Recorder

  /// More than a sector, so that halves of two writes would show.
  private static let copyCount = 750

  func path(_ register: String) -> String { "\(self.directory)/\(register)" }

  /// Makes the registers, all of them 0.
  func prepare(registers: [String]) async throws {
    try await self.client.makeDirectory(self.directory)
    for register in registers { try await self.client.writeBytes(Self.contents(0), to: self.path(register)) }
  }

  func write(to register: String) async throws {
    let value = self.recorder.newValue()
    try await self.recorder.operation(.write(value), on: register, by: self.number) {
      try await self.client.writeBytes(Self.contents(value), to: self.path(register))
      return .written
    }
  }

  func read(_ register: String) async throws {
    try await self.recorder.operation(.read, on: register, by: self.number) {
      .value(try Self.value(of: await self.client.readBytes(self.path(register)).bytes, register))
    }
  }

  func makeFile() async throws {
    let value = self.recorder.newValue()
    let path = self.path("file-\(value)")
    try await self.client.writeBytes(Self.contents(value), to: path, .create)
    self.recorder.noteFile(path, value)
  }

  /// What is wrong with files that were acknowledged: nothing, if they are all there as they were written.
  func damagedFiles() async throws -> [String] {
    var findings: [String] = []
    for (path, value) in self.recorder.files.sorted(by: { $0.value < $1.value }) {
      do {
        let found = try Self.value(of: await self.client.readBytes(path).bytes, path)
        if found != value { findings.append("\(path) holds \(found)") }
      } catch let error as BlocktreeError {
        findings.append("\(path) was acknowledged: \(error)")
      }
    }
    return findings
  }

  private static func contents(_ value: UInt64) -> [UInt8] {
    let bytes = withUnsafeBytes(of: value.littleEndian, Array.init)
    return Array(repeatElement(bytes, count: self.copyCount).joined())
  }

  private static func value(of bytes: [UInt8], _ name: String) throws -> UInt64 {
    let value = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard bytes == self.contents(value) else {
      Issue.record("\(name) holds what nobody wrote: \(bytes.count) bytes, first of all \(value)")
      throw ClusterFailure("\(name) is torn")
    }
    return value
  }
}
