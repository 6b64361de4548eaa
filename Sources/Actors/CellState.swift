// SPDX-License-Identifier: Apache-2.0

/// What an actor is about to do, and what waits for it. Decides only: its cell, which keeps it under a lock, acts.
///
/// One *turn* at a time is taken: whoever has it, and nobody else, touches the actor's own state, handles its messages,
/// and leads it through restart and end. It is free only when there is nothing to do.
struct CellState {
  enum Phase: UInt8, Sendable {
    /// Messages are handled. With the turn free, the mailbox is empty.
    case running
    /// It has failed: its children end, a pause passes, a new state is made. Messages are taken, but not handled.
    case restarting
    /// Takes no messages any more. Its children end, and then it does.
    case ending
    case ended
  }

  /// What few actors have at a time.
  final class Rare: @unchecked Sendable {
    // Unchecked: only reached through the cell's lock, or after the end, when it does not change any more.
    var name: String?
    var waiting = LetterQueue()
    var children: [UInt64: Cell] = [:]
    /// Who hears of this actor's end.
    var observers: [ObjectIdentifier: EndObserver] = [:]
    /// Whose ends this actor hears of.
    var watches: [ObjectIdentifier: Watch] = [:]
    var failure: ActorFailure?
    var reason: EndReason?
    var isEscalated = false
    var restarts = RestartRecord()
    var pause = Duration.zero
    var restartTimer: RestartTimer?
    /// The pause is over.
    var isRestartDue = false
  }

  private(set) var phase = Phase.running
  /// From the beginning: whoever makes the actor makes its state first.
  private(set) var isTurnTaken = true
  /// Counts the tasks that had the turn, so that a task is not taken for another one's.
  private(set) var burst: UInt32 = 0
  private(set) var mailbox = LetterQueue()
  var task: Task<Void, Never>?
  private var ensuredRare: Rare?

  var rare: Rare? { self.ensuredRare }

  mutating func ensureRare() -> Rare {
    if let rare = self.ensuredRare { return rare }
    let rare = Rare()
    self.ensuredRare = rare
    return rare
  }

  var takesMessages: Bool { self.phase == .running || self.phase == .restarting }
  /// How much there is to do; for choosing between members of a group.
  var load: Int { self.mailbox.count + (self.isTurnTaken ? 1 : 0) + (self.ensuredRare?.waiting.count ?? 0) }

  // MARK: The turn

  /// If there is nothing to do, so that a message would be handled at once.
  mutating func takeIdleTurn() -> Bool {
    guard !self.isTurnTaken, self.phase == .running else { return false }
    assert(self.mailbox.isEmpty)
    self.isTurnTaken = true
    return true
  }

  /// For a task that is to go on with the turn.
  ///
  /// - Returns: its number.
  mutating func beginBurst() -> UInt32 {
    self.isTurnTaken = true
    self.burst &+= 1
    return self.burst
  }

  /// - Returns: the number of the task that is to go on, unless there is nothing to do: then the turn is free.
  mutating func giveUpTurn() -> UInt32? {
    switch self.phase {
    case .running where self.mailbox.isEmpty && self.ensuredRare?.failure == nil:
      self.isTurnTaken = false
      return nil
    case .ended: return nil
    default: return self.beginBurst()
    }
  }

  private mutating func freeTurn() {
    self.isTurnTaken = false
    self.task = nil
  }

  enum Step {
    /// And this sender has room now.
    case handle(Letter, SendWaiter.Decision?)
    case fail(ActorFailure)
    /// A pause, then a new state.
    case pause(Duration)
    case makeState
    case end
    /// Nothing to do: the turn is free.
    case rest
  }

  /// For whoever has the turn: what to do next.
  mutating func next() -> Step {
    switch self.phase {
    case .running:
      if let rare = self.ensuredRare, let failure = rare.failure {
        rare.failure = nil
        return .fail(failure)
      }
      guard let letter = self.mailbox.popFirst() else {
        self.freeTurn()
        return .rest
      }
      return .handle(letter, self.admitWaiting())
    case .restarting:
      let rare = self.ensureRare()
      if rare.isRestartDue {
        rare.isRestartDue = false
        rare.restartTimer = nil
        // Already now: what the new state begins with may be children and watches.
        self.phase = .running
        return .makeState
      }
      self.freeTurn()
      return rare.children.isEmpty && rare.restartTimer == nil ? .pause(rare.pause) : .rest
    case .ending: return .end
    case .ended: return .rest
    }
  }

  // MARK: Messages

  enum Admission {
    case queued
    /// And a task with this number is to begin.
    case queuedFirst(UInt32)
    /// It stands outside, in order.
    case waiting
    case refused(SendError)
  }

  /// Takes a letter in, or not.
  ///
  /// - Parameter waits: whether it may stand outside when the mailbox is full.
  mutating func admit(_ letter: Letter, waits: Bool, by options: ActorOptions) -> Admission {
    guard self.takesMessages else { return .refused(.stopped) }
    if self.mailbox.count >= options.mailboxCountMax {
      guard waits else { return .refused(.mailboxFull) }
      let rare = self.ensureRare()
      guard rare.waiting.count < options.waitingSenderCountMax else { return .refused(.mailboxFull) }
      rare.waiting.append(letter)
      return .waiting
    }
    // There has been room after all; its sender does not wait yet.
    if case .waiting(let sender) = letter.kind { _ = sender.decide(.admitted) }
    return self.append(letter)
  }

  /// A notice: it is taken into a full mailbox, too. There is one for each watch at most.
  mutating func admitNotice(_ letter: Letter) -> Admission {
    guard self.takesMessages else { return .refused(.stopped) }
    return self.append(letter)
  }

  private mutating func append(_ letter: Letter) -> Admission {
    self.mailbox.append(letter)
    guard !self.isTurnTaken, self.phase == .running else { return .queued }
    return .queuedFirst(self.beginBurst())
  }

  /// A letter has left the mailbox: the first that waits outside comes in. One whose sender has gone does, too, and is
  /// dropped when its turn comes: nothing may be dropped here, as its end could lead back to this lock.
  private mutating func admitWaiting() -> SendWaiter.Decision? {
    guard let rare = self.ensuredRare, let letter = rare.waiting.popFirst() else { return nil }
    self.mailbox.append(letter)
    guard case .waiting(let sender) = letter.kind else { return nil }
    let decision = sender.decide(.admitted)
    if decision == nil { letter.isVoid = true }
    return decision
  }

  // MARK: Failure and restart

  /// To be dealt with in the next step.
  ///
  /// - Returns: the number of the task that is to begin, if nobody has the turn.
  mutating func record(_ failure: ActorFailure) -> UInt32? {
    guard self.phase == .running else { return nil }
    let rare = self.ensureRare()
    if rare.failure == nil { rare.failure = failure }
    return self.isTurnTaken ? nil : self.beginBurst()
  }

  /// Decides what becomes of an actor that has failed, for whoever has the turn.
  ///
  /// - Returns: true if it begins again.
  mutating func judge(_ failure: ActorFailure, by supervision: Supervision, now: ActorTime) -> Bool {
    guard self.phase == .running else { return false }
    let rare = self.ensureRare()
    var escalates = false
    switch supervision {
    case .stop: break
    case .escalate: escalates = true
    case .restart(let policy):
      if let pause = rare.restarts.restart(at: now, by: policy) {
        self.phase = .restarting
        rare.pause = pause
        rare.isRestartDue = false
        rare.restartTimer = nil
        return true
      }
      escalates = policy.then == .escalate
    }
    self.phase = .ending
    rare.reason = .failed(failure)
    rare.isEscalated = escalates
    return false
  }

  /// The pause has begun.
  ///
  /// - Returns: false if the actor is not about to begin again any more.
  mutating func setRestartTimer(_ timer: RestartTimer) -> Bool {
    guard self.phase == .restarting, let rare = self.ensuredRare, rare.restartTimer == nil else { return false }
    rare.restartTimer = timer
    return true
  }

  /// The pause is over.
  ///
  /// - Returns: the number of the task that is to begin.
  mutating func restartIsDue(_ timer: RestartTimer) -> UInt32? {
    guard self.phase == .restarting, let rare = self.ensuredRare, rare.restartTimer === timer else { return nil }
    rare.isRestartDue = true
    return self.isTurnTaken ? nil : self.beginBurst()
  }

  // MARK: The end

  /// From now on no message is taken.
  ///
  /// - Returns: the task to cancel, and the number of the one that is to begin.
  mutating func stop(_ reason: EndReason) -> (task: Task<Void, Never>?, burst: UInt32?) {
    guard self.takesMessages else { return (nil, nil) }
    self.phase = .ending
    self.ensureRare().reason = reason
    return (self.task, self.isTurnTaken ? nil : self.beginBurst())
  }

  /// All that will not be handled.
  mutating func takeLetters() -> (mailbox: LetterQueue, waiting: LetterQueue) {
    let letters = (self.mailbox, self.ensuredRare?.waiting ?? LetterQueue())
    self.mailbox = LetterQueue()
    self.ensuredRare?.waiting = LetterQueue()
    return letters
  }

  /// For whoever has the turn, when the actor can not end as long as it has children.
  ///
  /// - Returns: true if it has; then the turn is free.
  mutating func restForChildren() -> Bool {
    guard let rare = self.ensuredRare, !rare.children.isEmpty else { return false }
    self.freeTurn()
    return true
  }

  /// - Returns: false if the actor can have no children now.
  mutating func addChild(_ child: Cell) -> Bool {
    guard self.phase == .running else { return false }
    self.ensureRare().children[child.number] = child
    return true
  }

  enum AfterChild {
    case nothing
    case begin(UInt32)
    case pause(Duration)
  }

  /// - Returns: what the parent does next, if it waited for its last child.
  mutating func removeChild(_ number: UInt64) -> AfterChild {
    guard let rare = self.ensuredRare else { return .nothing }
    rare.children[number] = nil
    guard rare.children.isEmpty, !self.isTurnTaken else { return .nothing }
    switch self.phase {
    case .ending: return .begin(self.beginBurst())
    case .restarting: return rare.restartTimer == nil ? .pause(rare.pause) : .nothing
    case .running, .ended: return .nothing
    }
  }

  /// The actor is no more. Its reason remains.
  mutating func end() -> Rare {
    let rare = self.ensureRare()
    self.phase = .ended
    self.freeTurn()
    return rare
  }

  /// - Returns: the reason, if the actor has ended already.
  mutating func observe(_ observer: EndObserver) -> EndReason? {
    if self.phase == .ended { return self.ensuredRare?.reason ?? .stopped }
    self.ensureRare().observers[ObjectIdentifier(observer)] = observer
    return nil
  }
}
