// SPDX-License-Identifier: Apache-2.0

/// Threads for reads that have to wait for the disk.
final class ReaderThreads: Sendable {
  private struct Jobs: Sendable {
    var waiting: [@Sendable () -> Void] = []
    var isStopped = false
  }

  private let jobs = Monitor(Jobs())

  /// Does jobs until `stop`, and what is left then.
  func run() {
    while true {
      let batch = self.jobs.wait { jobs -> [@Sendable () -> Void]? in
        if jobs.waiting.isEmpty { return jobs.isStopped ? [] : nil }
        // One at a time, so that the other threads get some.
        return [jobs.waiting.removeFirst()]
      }
      if batch.isEmpty { return }
      for job in batch { job() }
    }
  }

  /// Returns false when the threads are stopped.
  func add(_ job: @escaping @Sendable () -> Void) -> Bool {
    let isTaken = self.jobs.withLock { jobs in
      if jobs.isStopped { return false }
      jobs.waiting.append(job)
      return true
    }
    if isTaken { self.jobs.wakeOne() }
    return isTaken
  }

  func stop() {
    self.jobs.withLock { $0.isStopped = true }
    self.jobs.wakeAll()
  }
}

extension SectorStore {
  /// Does something that may wait for the disk on a thread of the store.
  package func perform<Value: Sendable>(
    _ body: @escaping @Sendable () throws(StoreError) -> Value
  ) async throws(StoreError) -> Value {
    let result: Result<Value, StoreError> = await withCheckedContinuation { continuation in
      let isTaken = self.readers.add { continuation.resume(returning: Result(catching: body)) }
      if !isTaken { continuation.resume(returning: .failure(.closed)) }
    }
    return try result.get()
  }
}
