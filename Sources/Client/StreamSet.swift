// SPDX-License-Identifier: Apache-2.0

private import Synchronization
internal import Trust

/// The streams of one session: one to each cluster that its operations go to, opened when the first goes there.
final class StreamSet<Operation: Sendable, Outcome: Sendable>: Sendable {
  typealias Stream = OperationStream<Operation, Outcome>

  /// Streams that are kept; of more, those with nothing to do are closed.
  private static var countMax: Int { 512 }

  private struct State {
    var streams: [ObjectIdentifier: (cluster: ClusterCore, stream: Stream)] = [:]
    /// Clusters whose last stream has ended because nobody could be reached.
    var lost: Set<ObjectIdentifier> = []
    var isClosed = false
  }

  private let make: @Sendable (ClusterCore, _ isPatient: Bool) -> Stream
  private let state = Mutex(State())
  private let opened: AsyncStream<Stream>
  private let open: AsyncStream<Stream>.Continuation

  init(_ make: @escaping @Sendable (ClusterCore, _ isPatient: Bool) -> Stream) {
    self.make = make
    // Bounded by the number of clusters that the client keeps.
    (self.opened, self.open) = AsyncStream.makeStream(of: Stream.self)
  }

  /// Keeps the streams going, until ``close()``.
  func run() async {
    await withTaskCancellationHandler {
      await withDiscardingTaskGroup { group in
        for await stream in self.opened { group.addTask { await stream.run() } }
      }
    } onCancel: {
      self.close()
    }
    self.close()
  }

  /// No more operations. What is in flight is given up.
  func close() {
    let streams = self.state.withLock { state in
      state.isClosed = true
      defer { state.streams = [:] }
      return state.streams.values.map(\.stream)
    }
    self.open.finish()
    for stream in streams { stream.close() }
  }

  /// - Parameter isPatient: whether to wait for processes that can not be reached. A stream that is open stays as it is.
  func stream(to cluster: ClusterCore, isPatient: Bool) throws(BlocktreeError) -> Stream {
    let id = ObjectIdentifier(cluster)
    let (stream, isNew, idle) = self.state.withLock { state -> (Stream?, Bool, Stream?) in
      if state.isClosed { return (nil, false, nil) }
      if let known = state.streams[id]?.stream, !known.isOver { return (known, false, nil) }
      let idle = state.streams.count < Self.countMax ? nil : state.streams.first { $0.value.stream.isIdle }
      if let idle {
        state.streams[idle.key] = nil
        state.lost.remove(idle.key)
      }
      let stream = self.make(cluster, isPatient || state.lost.contains(id))
      state.streams[id] = (cluster, stream)
      return (stream, true, idle?.value.stream)
    }
    idle?.close()
    guard let stream else { throw .closed }
    if isNew { self.open.yield(stream) }
    return stream
  }

  /// Performs an operation at the cluster of an attempt.
  func perform(
    _ operation: Operation, byteCount: Int, messageByteCount: Int, isRepeatable: Bool,
    deadline: ContinuousClock.Instant?, at cluster: ClusterCore, _ trace: inout CallTrace
  ) async throws -> Stream.Answer {
    let stream = try self.stream(to: cluster, isPatient: trace.isPatient)
    let id = ObjectIdentifier(cluster)
    defer { self.note(id, isLost: trace.isUnreachable) }
    return try await stream.perform(
      operation, byteCount: byteCount, messageByteCount: messageByteCount, isRepeatable: isRepeatable,
      deadline: deadline, &trace)
  }

  private func note(_ id: ObjectIdentifier, isLost: Bool) {
    self.state.withLock { state in
      if isLost { state.lost.insert(id) } else if !state.lost.isEmpty { state.lost.remove(id) }
    }
  }
}
