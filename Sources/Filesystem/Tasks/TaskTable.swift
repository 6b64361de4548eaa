// SPDX-License-Identifier: Apache-2.0

private import DequeModule
private import Synchronization

/// The tasks that this process knows of: those that its cluster has to do, while this process leads it, and those that
/// were finished lately.
final class TaskTable: Sendable {
  private struct State {
    var open: [String: TaskProgress] = [:]
    var ended: Deque<TaskProgress> = []
  }

  /// As many as there may be at a time.
  static let countMax = 256
  private static let endedCountMax = 64

  private let state = Mutex(State())

  /// Takes note of a task; answers what is known of it.
  func note(_ record: TaskRecord) -> TaskProgress {
    self.state.withLock { state in
      if let known = state.open[record.id] ?? state.ended.first(where: { $0.record.id == record.id }) { return known }
      let progress = TaskProgress(record)
      state.open[record.id] = progress
      return progress
    }
  }

  /// All that are to be done.
  var open: [TaskProgress] { self.state.withLock { Array($0.open.values) } }
  var ended: [TaskProgress] { self.state.withLock { Array($0.ended) } }

  func end(_ progress: TaskProgress, _ end: TaskProgress.State, _ problem: String) {
    progress.end(end, problem)
    self.state.withLock { state in
      guard state.open.removeValue(forKey: progress.record.id) != nil else { return }
      state.ended.append(progress)
      if state.ended.count > Self.endedCountMax { state.ended.removeFirst() }
    }
  }

  /// Another process does them now.
  func forgetOpen() {
    let open = self.state.withLock { state in
      defer { state.open = [:] }
      return state.open
    }
    for progress in open.values { progress.stop() }
  }
}
