// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Actors that offer the same service: each message goes to one of them.
///
/// Members of this process are preferred. Those elsewhere are behind `RemoteMembers`, and get what comes while there
/// are none here.
package final class ActorGroup<Message: Sendable>: Sendable {
  /// Which member gets a message.
  package enum Balance: Hashable, Sendable {
    /// One after the other.
    case roundRobin
    /// Of two that are drawn, the one for which fewer messages wait.
    case fewestWaitingOfTwo
  }

  private struct State {
    var members: [ActorRef<Message>] = []
    var next = 0
    var random: ActorRandom
  }

  private let balance: Balance
  private let remote: (any RemoteMembers<Message>)?
  private let countMax: Int
  private let state: Mutex<State>

  package init(
    in runtime: ActorRuntime, balance: Balance = .fewestWaitingOfTwo, remote: (any RemoteMembers<Message>)? = nil
  ) {
    self.balance = balance
    self.remote = remote
    self.countMax = runtime.limits.memberCountMax
    self.state = Mutex(State(random: ActorRandom(seed: runtime.newSeed())))
  }

  /// Members here, in the order in which they came.
  package var members: [ActorRef<Message>] { self.state.withLock { $0.members } }

  /// Makes the actor a member until it ends or leaves. One that is a member already stays one.
  package func join(_ member: ActorRef<Message>) throws(GroupError) {
    let added = self.state.withLock { state -> Bool? in
      if state.members.contains(member) { return false }
      guard state.members.count < self.countMax else { return nil }
      state.members.append(member)
      return true
    }
    guard let added else { throw .tooManyMembers }
    // Called at once if it has ended already.
    if added { member.cell.observe(EndCallback { [weak self] _ in self?.leave(member) }) }
  }

  /// What was sent to the member before is still handled.
  package func leave(_ member: ActorRef<Message>) {
    self.state.withLock { $0.members.removeAll { $0 == member } }
  }

  /// Members here, the one that is to get a message first, then the others as long as that matters.
  private func candidates() -> [ActorRef<Message>] {
    let (members, first, second) = self.state.withLock { state -> ([ActorRef<Message>], Int, Int) in
      let count = state.members.count
      guard count > 1 else { return (state.members, 0, 0) }
      switch self.balance {
      case .roundRobin:
        let first = state.next % count
        state.next = (first + 1) % count
        return (state.members, first, first)
      case .fewestWaitingOfTwo:
        let first = Int.random(in: 0..<count, using: &state.random)
        let other = Int.random(in: 0..<(count - 1), using: &state.random)
        return (state.members, first, other < first ? other : other + 1)
      }
    }
    guard members.count > 1 else { return members }
    let start = first == second || members[first].load <= members[second].load ? first : second
    return Array(members[start...] + members[..<start])
  }

  /// Sends to a member that has room, and never waits.
  ///
  /// - Returns: `full` if none has, `stopped` if there is none here.
  package func offer(_ message: Message) -> Offer {
    switch self.offer(TypedLetter(message, .tell)) {
    case nil: .accepted
    case .mailboxFull?: .full
    case .stopped?, .cancelled?, .noMember?: .stopped
    }
  }

  func offer(_ letter: TypedLetter<Message>) -> SendError? {
    var error = SendError.noMember
    for member in self.candidates() {
      switch member.cell.post(letter, waits: false) {
      case nil: return nil
      case .mailboxFull?: error = .mailboxFull
      case .stopped?, .cancelled?, .noMember?: break
      }
    }
    return error
  }

  /// Sends to a member, and waits for room if all here are full.
  ///
  /// - Throws: `SendError`; then the message was not sent.
  package func send(_ message: Message) async throws(SendError) {
    while true {
      let letter = TypedLetter(message, .tell)
      switch self.offer(letter) {
      case nil: return
      case .mailboxFull?:
        guard let member = self.candidates().first else { continue }
        do throws(SendError) {
          try await member.send(message)
          return
        } catch {
          // It has ended meanwhile, and was a member up to then: there is one less with each round.
          guard error == .stopped else { throw error }
          self.leave(member)
        }
      case .stopped?, .cancelled?, .noMember?:
        guard let remote else { throw .noMember }
        try await remote.send(message)
        return
      }
    }
  }

  /// Asks a member, and waits for the answer.
  ///
  /// - Parameters: as those of `ActorRef.ask`.
  /// - Throws: `AskError`.
  package func ask<Request: Sendable, Reply: Sendable>(
    _ request: Request, within patience: Duration = ActorLimits.patience,
    as message: (Ask<Request, Reply>) -> Message
  ) async throws(AskError) -> Reply {
    if let member = self.candidates().first(where: { !$0.cell.hasEnded }) {
      return try await member.ask(request, within: patience, as: message)
    }
    guard let remote else { throw .noMember }
    return try await remote.ask(request, within: patience, as: message)
  }
}

/// Members of a group in other processes: whoever knows how to reach them.
package protocol RemoteMembers<Message>: Sendable {
  associatedtype Message: Sendable

  /// Sends to one of them.
  func send(_ message: Message) async throws(SendError)

  /// Asks one of them.
  func ask<Request: Sendable, Reply: Sendable>(
    _ request: Request, within patience: Duration, as message: (Ask<Request, Reply>) -> Message
  ) async throws(AskError) -> Reply
}
