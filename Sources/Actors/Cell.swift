// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// One actor, without its types: mailbox, turn, place in the tree. Subclasses know messages and state.
///
/// Nothing runs for an actor that has nothing to do. The first message begins a task that has the turn until the
/// mailbox is empty. A question to an idle actor whose handler is not async needs not even that: the asker takes the
/// turn and runs the handler itself. As such a handler can not ask in turn, and telling never runs a handler, this
/// never goes deeper.
@usableFromInline class Cell: @unchecked Sendable {
  // Unchecked: constants and a mutex, but for what subclasses add, which belongs to whoever has the turn.
  let number: UInt64
  @usableFromInline let runtime: ActorRuntime
  /// nil for one that only the runtime supervises.
  let parent: Cell?
  let options: ActorOptions
  let state = Mutex(CellState())

  init(number: UInt64, runtime: ActorRuntime, parent: Cell?, options: ActorOptions) {
    self.number = number
    self.runtime = runtime
    self.parent = parent
    self.options = options
  }

  var address: ActorAddress { self.runtime.address(of: self.number) }

  var hasEnded: Bool { self.state.withLock { !$0.takesMessages } }

  // MARK: What subclasses know. All for whoever has the turn.

  /// Whether the handler is async.
  var isAsync: Bool { false }
  func makeState() throws {}
  /// Does nothing without a state.
  func dropState(_ reason: EndReason) {}
  func handle(_ letter: Letter) throws {}
  func handleAsync(_ letter: Letter) async throws {}

  // MARK: Messages

  /// Offers a letter.
  ///
  /// - Parameter waits: whether it may stand outside when the mailbox is full.
  /// - Returns: why it is not taken, if so. Nobody has been told.
  func post(_ letter: Letter, waits: Bool) -> SendError? {
    let admission = self.state.withLock { $0.admit(letter, waits: waits, by: self.options) }
    return self.perform(admission)
  }

  /// Takes a notice in. An actor that has ended needs none.
  func postNotice(_ letter: Letter) {
    let admission = self.state.withLock { $0.admitNotice(letter) }
    _ = self.perform(admission)
  }

  private func perform(_ admission: CellState.Admission) -> SendError? {
    switch admission {
    case .queued, .waiting: return nil
    case .queuedFirst(let burst):
      self.begin(burst)
      return nil
    case .refused(let error): return error
    }
  }

  // MARK: The turn

  /// Begins the task that has the turn from now on.
  func begin(_ burst: UInt32) {
    // Detached: what is handled has nothing to do with the priority and the task-local values of who happened to be
    // first.
    let task = Task.detached(executorPreference: self.runtime.executor) { await self.work() }
    // Only an async handler can notice that it is to end.
    guard self.isAsync else { return }
    let isEnding = self.state.withLock { state in
      guard state.isTurnTaken, state.burst == burst else { return false }
      state.task = task
      return state.phase == .ending
    }
    if isEnding { task.cancel() }
  }

  /// Does what there is to do, and lets others work every now and then.
  private func work() async {
    let countMax = self.runtime.limits.turnMessageCountMax
    var count = 0
    while true {
      if count >= countMax {
        count = 0
        await Task.yield()
      }
      count += 1
      switch self.state.withLock({ $0.next() }) {
      case .handle(let letter, let sender):
        sender?.tell()
        guard self.isWanted(letter) else { continue }
        do {
          if self.isAsync { try await self.handleAsync(letter) } else { try self.handle(letter) }
        } catch {
          self.failed(error, at: letter)
        }
      case .fail(let failure): self.fail(failure)
      case .pause(let pause):
        self.pause(pause)
        return
      case .makeState: self.remakeState()
      case .end:
        self.end()
        return
      case .rest: return
      }
    }
  }

  /// Whether a letter is to be handled now that its turn has come.
  private func isWanted(_ letter: Letter) -> Bool {
    if letter.isVoid { return false }
    switch letter.kind {
    case .tell, .waiting: return true
    case .expiring(let time):
      if self.runtime.clock.now < time { return true }
      self.runtime.deadLetters.add(to: self.address, typeName: letter.typeName, reason: .expired)
      return false
    case .ask(let token): return !token.isAbandoned
    case .notice(let watch):
      let isWanted = watch.take()
      self.forget(watch)
      return isWanted
    }
  }

  private func failed(_ error: any Error, at letter: Letter) {
    if case .ask(let token) = letter.kind { token.expect(.failed) }
    self.recordFailure(ActorFailure(error))
  }

  /// The handler that was run in its sender's place threw.
  @usableFromInline final func failed(_ error: any Error, at token: AnyReplyToken) {
    token.expect(.failed)
    self.recordFailure(ActorFailure(error))
  }

  func recordFailure(_ failure: ActorFailure) {
    if let burst = self.state.withLock({ $0.record(failure) }) { self.begin(burst) }
  }

  /// Takes the turn if there is nothing to do, to run a handler in its sender's place. Not for async ones.
  @usableFromInline final func takeIdleTurn() -> Bool {
    !self.isAsync && self.state.withLock { $0.takeIdleTurn() }
  }

  /// Gives the turn back that was taken to run one handler in its sender's place, or to make the first state.
  @usableFromInline final func giveUpTurn() {
    if let burst = self.state.withLock({ $0.giveUpTurn() }) { self.begin(burst) }
  }
}
