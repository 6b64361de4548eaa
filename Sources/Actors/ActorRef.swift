// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// An actor, for those who send it messages. Goes on to be one after the actor's end, when nothing is handled any more.
///
/// Messages from one sender are handled in the order in which it sent them, each once at most.
@usableFromInline package struct ActorRef<Message: Sendable>: Hashable, Sendable {
  @usableFromInline let cell: MessageCell<Message>

  @usableFromInline package static func == (left: Self, right: Self) -> Bool { left.cell === right.cell }
  @usableFromInline package func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self.cell)) }

  package var address: ActorAddress { self.cell.address }

  /// The same actor, whatever its messages.
  package var any: AnyActorRef { AnyActorRef(cell: self.cell) }

  /// Sends and never waits. What is not taken becomes a dead letter.
  package func tell(_ message: Message) {
    let letter = TypedLetter(message, .tell)
    if let error = self.cell.post(letter, waits: false) {
      self.cell.runtime.deadLetters.add(
        to: self.address, typeName: letter.typeName, reason: error == .mailboxFull ? .mailboxFull : .stopped)
    }
  }

  /// Sends if there is room. What is not accepted is no dead letter: the caller knows.
  package func offer(_ message: Message) -> Offer { self.offer(TypedLetter(message, .tell)) }

  func offer(_ letter: Letter) -> Offer {
    switch self.cell.post(letter, waits: false) {
    case nil: .accepted
    case .mailboxFull?: .full
    case .stopped?, .cancelled?, .noMember?: .stopped
    }
  }

  /// Sends, and waits for room if the mailbox is full. Who waits first is first.
  ///
  /// - Throws: `SendError`; then the message was not sent.
  package func send(_ message: Message) async throws(SendError) {
    if Task.isCancelled { throw .cancelled }
    let error = self.cell.post(TypedLetter(message, .tell), waits: false)
    guard let error else { return }
    guard error == .mailboxFull else { throw error }
    let waiter = SendWaiter()
    if let error = self.cell.post(TypedLetter(message, .waiting(waiter)), waits: true) { throw error }
    if case .refused(let error) = await waiter.outcome() { throw error }
  }

  /// Asks, and waits for the answer; for room in the mailbox, too.
  ///
  /// - Parameters:
  ///   - request: what is asked.
  ///   - patience: how long the answer may take. It may come a little later if the actor is just answering.
  ///   - message: puts the question into a message, which is most often the name of a case.
  /// - Throws: `AskError`.
  @inlinable  // As all on the way of a question that knows its types: specialised, it is six times as fast.
  package func ask<Request: Sendable, Reply: Sendable>(
    _ request: Request, within patience: Duration = ActorLimits.patience,
    as message: (Ask<Request, Reply>) -> Message
  ) async throws(AskError) -> Reply {
    if Task.isCancelled { throw .cancelled }
    guard patience > .zero else { throw .expired }
    switch self.cell.begin(request, message) {
    case .done(let result): return try result.get()
    case .waiting(let waiter):
      return try await waiter.reply(within: patience)
    }
  }

  /// Asks an actor whose only message is this question.
  @inlinable
  package func ask<Request: Sendable, Reply: Sendable>(
    _ request: Request, within patience: Duration = ActorLimits.patience
  ) async throws(AskError) -> Reply where Message == Ask<Request, Reply> {
    try await self.ask(request, within: patience) { $0 }
  }

  /// How many messages wait, and one more if one is being handled.
  package var load: Int { self.cell.state.withLock { $0.load } }

  /// Stops the actor: after the message that it handles, before all others. Returns at once.
  package func stop() { self.cell.stop(.stopped) }

  /// Waits for the actor's end.
  package func ended() async throws(CancellationError) -> EndReason { try await self.any.ended() }
}

/// An actor, whatever its messages.
package struct AnyActorRef: Hashable, Sendable {
  let cell: Cell

  package static func == (left: Self, right: Self) -> Bool { left.cell === right.cell }
  package func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self.cell)) }

  package var address: ActorAddress { self.cell.address }

  /// The actor for those who send it messages of this type; nil if its messages are others.
  package func taking<Message: Sendable>(_ type: Message.Type) -> ActorRef<Message>? {
    (self.cell as? MessageCell<Message>).map(ActorRef.init(cell:))
  }

  /// Stops the actor: after the message that it handles, before all others. Returns at once.
  package func stop() { self.cell.stop(.stopped) }

  /// Waits for the actor's end.
  package func ended() async throws(CancellationError) -> EndReason {
    let waiter = EndWaiter()
    self.cell.observe(waiter)
    defer { self.cell.stopObserving(waiter) }
    guard let reason = await waiter.reason() else { throw CancellationError() }
    return reason
  }
}
