// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Failure, restart and end. What needs the turn says so.
extension Cell {
  // MARK: Restart

  /// For whoever has the turn.
  func fail(_ failure: ActorFailure) {
    let now = self.runtime.clock.now
    let begins = self.state.withLock { $0.judge(failure, by: self.options.supervision, now: now) }
    guard begins else { return }
    self.loseState(.failed(failure))
    self.stopChildren()
  }

  /// What the state has begun ends with it: its watches first, so that no notice finds a state that knows nothing of
  /// it.
  private func loseState(_ reason: EndReason) {
    let watches = self.state.withLock { state -> [Watch] in
      guard let rare = state.rare else { return [] }
      let watches = Array(rare.watches.values)
      rare.watches = [:]
      return watches
    }
    for watch in watches { watch.cancel() }
    self.dropState(reason)
  }

  private func stopChildren() {
    let children = self.state.withLock { state in state.rare.map { Array($0.children.values) } ?? [] }
    for child in children { child.stop(.parentEnded) }
  }

  /// Waits before the new state is made. Nobody has the turn meanwhile.
  func pause(_ pause: Duration) {
    let timer = RestartTimer(self)
    guard self.state.withLock({ $0.setRestartTimer(timer) }) else { return }
    if pause <= .zero {
      timer.fire()
    } else {
      self.runtime.timers.arm(timer, at: self.runtime.clock.now.advanced(by: pause))
    }
  }

  fileprivate func restartIsDue(_ timer: RestartTimer) {
    if let burst = self.state.withLock({ $0.restartIsDue(timer) }) { self.begin(burst) }
  }

  /// For whoever has the turn.
  func remakeState() {
    do { try self.makeState() } catch { self.recordFailure(ActorFailure(error)) }
  }

  // MARK: End

  /// Ends the actor: after the message that it handles, before all others. Returns at once.
  func stop(_ reason: EndReason) {
    let (task, burst) = self.state.withLock { $0.stop(reason) }
    task?.cancel()
    if let burst { self.begin(burst) }
  }

  /// For whoever has the turn. Goes on, in another task, when the last child has ended.
  func end() {
    var (mailbox, waiting) = self.state.withLock { $0.takeLetters() }
    while let letter = mailbox.popFirst() { self.discard(letter) }
    while let letter = waiting.popFirst() { self.discard(letter) }
    self.stopChildren()
    if self.state.withLock({ $0.restForChildren() }) { return }

    let reason = self.state.withLock { $0.rare?.reason } ?? .stopped
    self.loseState(reason)
    // What a handler or a hook has begun after its time, in a context that it has kept, was refused: the phase says so.
    let rare = self.state.withLock { $0.end() }
    if let timer = rare.restartTimer { self.runtime.timers.disarm(timer) }
    // The name is free before anybody hears of the end, so that whoever does can give it to a successor.
    let waiters = self.runtime.registry.withLock { $0.remove(self.number, name: rare.name) }
    let observers = Array(rare.observers.values)
    rare.observers = [:]
    for observer in observers { observer.hear(reason) }
    if let parent = self.parent {
      // The failure first: a parent that begins again because of it shall not handle anything before.
      if rare.isEscalated, case .failed(let failure) = reason { parent.recordFailure(failure) }
      parent.childHasEnded(self.number)
    }
    for waiter in waiters { waiter.hear(reason) }
  }

  fileprivate func childHasEnded(_ number: UInt64) {
    switch self.state.withLock({ $0.removeChild(number) }) {
    case .nothing: break
    case .begin(let burst): self.begin(burst)
    case .pause(let pause): self.pause(pause)
    }
  }

  /// Says that a letter will not be handled to whoever wants to know.
  private func discard(_ letter: Letter) {
    switch letter.kind {
    case .tell, .expiring:
      self.runtime.deadLetters.add(to: self.address, typeName: letter.typeName, reason: .stopped)
    case .waiting(let sender):
      if let decision = sender.decide(.refused(.stopped)) {
        decision.tell()
      } else if !letter.isVoid {
        // It was admitted, and its sender has gone on.
        self.runtime.deadLetters.add(to: self.address, typeName: letter.typeName, reason: .stopped)
      }
    case .ask(let token): token.refuse(.stopped)
    case .notice: break
    }
  }

  // MARK: Watches

  /// Tells the observer of this actor's end, at once if it has ended.
  func observe(_ observer: EndObserver) {
    if let reason = self.state.withLock({ $0.observe(observer) }) { observer.hear(reason) }
  }

  func stopObserving(_ observer: EndObserver) {
    self.state.withLock { state in
      // After the end, whoever ended it has them.
      if state.phase != .ended { state.rare?.observers[ObjectIdentifier(observer)] = nil }
    }
  }

  /// The watcher's side of a watch.
  func remember(_ watch: Watch) throws(WatchError) {
    let error = self.state.withLock { state -> WatchError? in
      guard state.phase == .running else { return .watcherEnded }
      let rare = state.ensureRare()
      guard rare.watches.count < self.runtime.limits.watchCountMax else { return .tooManyWatches }
      rare.watches[ObjectIdentifier(watch)] = watch
      return nil
    }
    if let error { throw error }
  }

  func forget(_ watch: Watch) {
    self.state.withLock { $0.rare?.watches[ObjectIdentifier(watch)] = nil }
  }
}

/// The pause before a restart.
final class RestartTimer: TimerEntry, @unchecked Sendable {
  // Unchecked: it only adds a constant.
  private let cell: Cell

  init(_ cell: Cell) { self.cell = cell }

  override func fire() { self.cell.restartIsDue(self) }
}
