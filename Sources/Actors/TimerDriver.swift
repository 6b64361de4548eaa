// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// Lets a wheel turn: one task for all timers of a runtime, and none while there are none.
final class TimerDriver: Sendable {
  private struct State {
    var wheel: TimerWheel
    /// The last that was begun: it sleeps until `waking`, fires, or has ended because there is nothing to do.
    var task: Task<Void, Never>?
    /// Never when no task sleeps.
    var waking = ActorTime.never
    /// Counts the tasks: an older one leaves when it sees that.
    var epoch: UInt64 = 0
    var isClosed = false
  }

  private let state: Mutex<State>
  private let clock: any ActorClock
  private let executor: (any TaskExecutor)?

  init(clock: any ActorClock, executor: (any TaskExecutor)?) {
    self.clock = clock
    self.executor = executor
    self.state = Mutex(State(wheel: TimerWheel(now: clock.now)))
  }

  /// The entry fires at that moment or a little later, unless it is disarmed before. Once closed, never.
  func arm(_ entry: TimerEntry, at time: ActorTime) {
    self.state.withLock { state in
      guard !state.isClosed else { return }
      state.wheel.arm(entry, at: time)
      guard let next = state.wheel.next, next < state.waking else { return }
      state.waking = next
      state.epoch += 1
      let (earlier, epoch) = (state.task, state.epoch)
      earlier?.cancel()
      state.task = Task.detached(executorPreference: self.executor) {
        // So that whoever awaits the last one has awaited all.
        await earlier?.value
        await self.run(epoch)
      }
    }
  }

  /// It will not begin to fire any more; it may be firing.
  func disarm(_ entry: TimerEntry) {
    self.state.withLock { $0.wheel.disarm(entry) }
  }

  private func run(_ epoch: UInt64) async {
    while true {
      let now = self.clock.now
      let (due, waking) = self.state.withLock { state -> ([TimerEntry], ActorTime?) in
        guard state.epoch == epoch, !state.isClosed else { return ([], nil) }
        let due = state.wheel.advance(to: now)
        if let next = state.wheel.next {
          state.waking = next
          return (due, next)
        }
        state.waking = .never
        return (due, nil)
      }
      for entry in due { entry.fire() }
      guard let waking else { return }
      // Cancelled when something is to happen sooner: then there is another task already.
      try? await self.clock.sleep(until: waking)
    }
  }

  /// Nothing fires any more after this.
  func close() async {
    let task = self.state.withLock { state in
      state.isClosed = true
      return state.task
    }
    task?.cancel()
    await task?.value
  }
}
