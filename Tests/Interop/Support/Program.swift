// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Another program, while it runs. It is killed when nobody holds this any more.
final class Program: Sendable {
  /// How a program ended, and what it said.
  struct End: Sendable {
    /// The exit status; for a program that a signal ended, the signal's number, negated.
    let status: Int32
    let output: String
    let errors: String

    /// Its output, which has to be one JSON document and nothing else.
    func json<Value: Decodable>(_: Value.Type) throws -> Value {
      try #require(self.status == 0, "\(self.errors)")
      return try JSONDecoder().decode(Value.self, from: Data(self.output.utf8))
    }
  }

  private let process: Process
  private let input: Pipe
  private let output: Pipe
  private let directory: Scratch
  private let ended: AsyncStream<Int32>

  var isRunning: Bool { self.process.isRunning }
  var id: Int32 { self.process.processIdentifier }

  private var errorsFile: URL { URL(filePath: self.directory.path).appending(path: "errors") }

  /// What it has said on standard error so far.
  var errors: String { (try? String(contentsOf: self.errorsFile, encoding: .utf8)) ?? "" }

  /// Starts a program.
  ///
  /// - Parameter environment: added to this process's own.
  init(_ executable: String, _ arguments: [String], environment: [String: String] = [:]) throws {
    let directory = try Scratch()
    let process = Process()
    let (ended, continuation) = AsyncStream.makeStream(of: Int32.self)
    self.directory = directory
    self.process = process
    self.ended = ended
    self.input = Pipe()
    self.output = Pipe()
    process.executableURL = URL(filePath: executable)
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
    process.standardInput = self.input
    process.standardOutput = self.output
    process.terminationHandler = { process in
      let sign: Int32 = process.terminationReason == .exit ? 1 : -1
      continuation.yield(sign * process.terminationStatus)
      continuation.finish()
    }
    let errors = directory.path + "/errors"
    try #require(FileManager.default.createFile(atPath: errors, contents: nil))
    process.standardError = try FileHandle(forWritingTo: URL(filePath: errors))
    try process.run()
  }

  deinit {
    if self.process.isRunning { kill(self.process.processIdentifier, SIGKILL) }
  }

  func signal(_ number: Int32) { kill(self.process.processIdentifier, number) }

  /// The next line that it prints; what there is of it when the program ends. Not once its end is waited for.
  func line() async -> String {
    let handle = self.output.fileHandleForReading
    return await withCheckedContinuation { continuation in
      // Reading blocks: not on a thread that tasks share.
      Thread.detachNewThread {
        var bytes = Data()
        while bytes.last != UInt8(ascii: "\n"), let next = try? handle.read(upToCount: 1), !next.isEmpty {
          bytes += next
        }
        continuation.resume(returning: String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .newlines))
      }
    }
  }

  /// Writes its standard input to the end, reads its output, and waits for its end. After `limit` it is killed.
  func end(input text: String = "", within limit: Duration = .seconds(120)) async throws -> End {
    let input = self.input.fileHandleForWriting
    let handle = self.output.fileHandleForReading
    let id = self.process.processIdentifier
    let watch = Task {
      try await Task.sleep(for: limit)
      kill(id, SIGKILL)
    }
    defer { watch.cancel() }
    // On a thread of its own, and only as far as the program wants it: it may be more than a pipe holds.
    Thread.detachNewThread {
      try? input.write(contentsOf: Data(text.utf8))
      try? input.close()
    }
    let output = await withCheckedContinuation { (continuation: CheckedContinuation<String, Never>) in
      Thread.detachNewThread {
        let bytes = (try? handle.readToEnd()) ?? Data()
        continuation.resume(returning: String(decoding: bytes, as: UTF8.self))
      }
    }
    let status = try #require(await self.ended.first { _ in true })
    return End(status: status, output: output, errors: self.errors)
  }

  /// Runs a program to its end.
  static func run(
    _ executable: String, _ arguments: [String], environment: [String: String] = [:], input: String = ""
  ) async throws -> End {
    try await Program(executable, arguments, environment: environment).end(input: input)
  }

  /// Runs a program that must succeed, and returns its output.
  @discardableResult
  static func output(
    _ executable: String, _ arguments: [String], environment: [String: String] = [:]
  ) async throws -> String {
    let end = try await self.run(executable, arguments, environment: environment)
    try #require(end.status == 0, "\(executable) \(arguments.joined(separator: " ")): \(end.output)\(end.errors)")
    return end.output
  }
}

/// A directory that is removed with all that is in it.
final class Scratch: Sendable {
  let path: String

  init() throws {
    var template = Array("\(FileManager.default.temporaryDirectory.path)/blocktree-interop.XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil)
    self.path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { try? FileManager.default.removeItem(atPath: self.path) }

  /// Fails when there are files in it, or processes that have it in their command lines.
  func expectNothingLeft() throws {
    #expect(try FileManager.default.contentsOfDirectory(atPath: self.path) == [])
    let processes = try FileManager.default.contentsOfDirectory(atPath: "/proc").filter { Int($0) != nil }
    let left = processes.filter { id in
      // A process that has ended meanwhile has none.
      let line = FileManager.default.contents(atPath: "/proc/\(id)/cmdline") ?? Data()
      return String(decoding: line, as: UTF8.self).contains(self.path)
    }
    #expect(left == [])
  }
}
