// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// How far a task is, while this process works on it.
package final class TaskProgress: Sendable {
  package enum State: Hashable, Sendable {
    case running, waiting, finished, cancelled
  }

  /// What is told of it.
  package struct Figures: Hashable, Sendable {
    package var state = State.waiting
    package var inodesDone: UInt64 = 0
    package var inodesTotal: UInt64 = 0
    package var bytesDone: UInt64 = 0
    package var bytesTotal: UInt64 = 0
    package var step = ""
    package var problem = ""
  }

  private struct Inner {
    var figures = Figures()
    var isStopped = false
    /// When as many bytes may go on as were done.
    var due: ContinuousClock.Instant?
    var retry: ContinuousClock.Instant?
    var isToRunAgain = false
    /// Whether it has ended, or is about to.
    var isOver = false
  }

  package let record: TaskRecord
  private let inner = Mutex(Inner())

  /// Bytes a second that all tasks of one kind move, so that others have the disk, too.
  static let rateBytes = 64 << 20
  private static let retryPause = Duration.seconds(5)

  init(_ record: TaskRecord) { self.record = record }

  package var figures: Figures { self.inner.withLock { $0.figures } }

  /// Says what is done just now.
  func set(step: String) { self.inner.withLock { $0.figures.step = step } }

  /// There is so much more to be done.
  func count(inodes: Int, bytes: UInt64) {
    self.inner.withLock { inner in
      inner.figures.inodesTotal += UInt64(inodes)
      inner.figures.bytesTotal += bytes
    }
  }

  /// So much more is done.
  func done(inodes: Int, bytes: UInt64) {
    self.inner.withLock { inner in
      inner.figures.inodesDone += UInt64(inodes)
      inner.figures.bytesDone += bytes
      inner.figures.inodesTotal = max(inner.figures.inodesTotal, inner.figures.inodesDone)
      inner.figures.bytesTotal = max(inner.figures.bytesTotal, inner.figures.bytesDone)
    }
  }

  /// Everything is gone over once more: the figures count from zero.
  func restart() {
    self.inner.withLock { inner in
      inner.figures.inodesDone = 0
      inner.figures.inodesTotal = 0
      inner.figures.bytesDone = 0
      inner.figures.bytesTotal = 0
    }
  }

  /// Waits until so many bytes may be moved.
  ///
  /// - Throws: `taskStopped`.
  func pause(bytes: Int) async throws(FilesystemError) {
    let (until, isStopped) = self.inner.withLock { inner in
      let now = ContinuousClock.now
      let start = max(inner.due ?? now, now)
      inner.due = start + .nanoseconds(Int64(bytes) * 1_000_000_000 / Int64(Self.rateBytes))
      return (start, inner.isStopped)
    }
    guard !isStopped, !Task.isCancelled else { throw .taskStopped }
    if until > .now { try? await Task.sleep(until: until, clock: .continuous) }
    guard !Task.isCancelled else { throw .taskStopped }
  }

  /// Has the task stop at its next pause.
  func stop() { self.inner.withLock { $0.isStopped = true } }

  /// Has it go on after all.
  func resume() { self.inner.withLock { $0.isStopped = false } }

  /// Whether it was told to.
  var isStopped: Bool { self.inner.withLock { $0.isStopped } }

  /// Whether it is to be worked on now; if so, it runs from now on.
  func start() -> Bool {
    self.inner.withLock { inner in
      guard inner.figures.state == .waiting, inner.retry.map({ $0 <= .now }) ?? true, !inner.isStopped else {
        return false
      }
      // The figures count from zero each time.
      inner.figures = Figures()
      inner.figures.state = .running
      return true
    }
  }

  /// Has it go over everything once more after the run that may be under way; false when it has ended.
  func requestAnotherRun() -> Bool {
    self.inner.withLock { inner in
      guard !inner.isOver, !inner.isStopped else { return false }
      if inner.figures.state == .running { inner.isToRunAgain = true }
      return true
    }
  }

  /// After a run: whether another one was asked for. If not, it is over.
  func beginsAgain() -> Bool {
    self.inner.withLock { inner in
      guard inner.isToRunAgain else {
        inner.isOver = true
        return false
      }
      inner.isToRunAgain = false
      inner.figures.state = .waiting
      return true
    }
  }

  /// It will be tried again later.
  func wait(_ problem: String) {
    self.inner.withLock { inner in
      guard inner.figures.state == .running else { return }
      inner.figures.state = .waiting
      inner.isOver = false
      inner.figures.problem = problem
      inner.retry = .now + Self.retryPause
    }
  }

  func end(_ state: State, _ problem: String) {
    self.inner.withLock { inner in
      inner.figures.state = state
      inner.figures.step = ""
      inner.figures.problem = problem
    }
  }
}
