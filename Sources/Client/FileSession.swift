// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport

/// Many operations on files over one long-lived stream: the fast way for programs that have many small things to do.
///
/// Have many operations in flight, each in a task of its own: what is waiting when the stream takes its next message
/// travels together. Answers come in the order in which operations finish. A stream that breaks is opened again, and
/// operations that can be repeated are sent again.
public final class FileSession: FileOperations {
  private let core: ClientCore
  private let timeout: Duration?
  private let streams: StreamSet<FileRequest, Blocktree_V1_FilesystemResult.OneOf_Result>

  init(_ core: ClientCore, timeout: Duration?) {
    self.core = core
    self.timeout = timeout
    self.streams = StreamSet { Self.stream($0, isPatient: $1) }
  }

  private static func stream(
    _ cluster: ClusterCore, isPatient: Bool
  ) -> OperationStream<FileRequest, Blocktree_V1_FilesystemResult.OneOf_Result> {
    OperationStream(cluster, isPatient: isPatient) { outcome in
      if case .failure(let failure) = outcome { BlocktreeError(failure) } else { nil }
    } open: { connection, next, answered in
      try await connection.filesystem.session { writer in
        while let batch = await next() {
          try await writer.write(
            .with { message in
              message.operations = batch.map { id, request in
                .with {
                  $0.id = id
                  $0.operation = request.operation
                }
              }
            })
        }
      } onResponse: { response in
        for try await message in response.messages {
          for result in message.results {
            guard let outcome = result.result else { throw BlocktreeError.malformedAnswer("result") }
            try answered(result.id, outcome)
          }
        }
      }
    }
  }

  public var domain: String { self.core.profile.domain }

  func run() async { await self.streams.run() }

  func close() { self.streams.close() }

  public func perform(_ request: FileRequest) async throws -> FileResponse {
    try await self.core.routed(request, timeout: self.timeout) { request, attempt in
      guard request.takesID, request.id == nil else {
        var wasRepeated = false
        return try await self.attempt(request, attempt.cluster, attempt.timeout, &attempt.trace, &wasRepeated)
      }
      let (cluster, timeout) = (attempt.cluster, attempt.timeout)
      return try await cluster.withOperationID(timeout: timeout, &attempt.trace) { id, trace, wasRepeated in
        var request = request
        request.id = id
        return try await self.attempt(request, cluster, timeout, &trace, &wasRepeated)
      }
    }
  }

  private func attempt(
    _ request: FileRequest, _ cluster: ClusterCore, _ timeout: Duration?, _ trace: inout CallTrace,
    _ wasRepeated: inout Bool
  ) async throws -> FileResponse {
    var schedule = RetrySchedule(timeout: timeout, patience: .zero, now: .now)
    while true {
      let (outcome, sentCount) = try await self.streams.perform(
        request, byteCount: request.byteCount, messageByteCount: request.messageByteCount,
        isRepeatable: request.isRepeatable, deadline: schedule.deadline, at: cluster, &trace)
      guard case .failure(let failure) = outcome else { return FileResponse(result: outcome) }
      wasRepeated = wasRepeated || sentCount > 1
      trace.mayBeDone = trace.mayBeDone || wasRepeated
      let error = BlocktreeError(failure)
      var random = SystemRandomNumberGenerator()
      let delay = schedule.delay(
        after: error, wasSent: true, isRepeatable: request.isRepeatable, now: .now, using: &random)
      guard let delay else { throw error }
      wasRepeated = true
      try await Task.sleep(for: delay)
    }
  }
}

extension Client {
  /// Opens a session for as long as `body` runs.
  ///
  /// ```swift
  /// try await client.withFileSession { session in
  ///   try await withThrowingTaskGroup(of: Void.self) { group in
  ///     for (name, bytes) in files {
  ///       group.addTask { try await session.writeBytes(bytes, to: "/inbox/\(name)") }
  ///     }
  ///     try await group.waitForAll()
  ///   }
  /// }
  /// ```
  public func withFileSession<Result>(_ body: (FileSession) async throws -> Result) async throws -> Result {
    let session = FileSession(self.core, timeout: self.timeout)
    return try await withSession(run: { await session.run() }, close: { session.close() }) {
      try await body(session)
    }
  }
}

/// Runs a session beside `body`, and gives it a moment to end in good order.
func withSession<Result>(
  run: @escaping @Sendable () async -> Void, close: () -> Void, _ body: () async throws -> Result
) async throws -> Result {
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask { await run() }
    let result: Result
    do {
      result = try await body()
    } catch {
      group.cancelAll()
      throw error
    }
    close()
    group.addTask { try? await Task.sleep(for: .seconds(1)) }
    _ = await group.nextResult()
    group.cancelAll()
    return result
  }
}
