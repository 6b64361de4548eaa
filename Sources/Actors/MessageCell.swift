// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A cell that knows its messages.
@usableFromInline class MessageCell<Message: Sendable>: Cell, @unchecked Sendable {
  // Unchecked: it adds no state.

  @usableFromInline func receive(_ message: Message) throws {}
  func receiveAsync(_ message: Message) async throws {}

  private func message(of letter: Letter) -> Message {
    // Letters come from here, from `ActorRef<Message>` and from watches of this very type; the check is for debug
    // builds.
    unsafeDowncast(letter, to: TypedLetter<Message>.self).message
  }

  final override func handle(_ letter: Letter) throws { try self.receive(self.message(of: letter)) }

  final override func handleAsync(_ letter: Letter) async throws {
    try await self.receiveAsync(self.message(of: letter))
  }

  /// Asks, and waits for nothing.
  @inlinable final func begin<Request: Sendable, Reply: Sendable>(
    _ request: Request, _ message: (Ask<Request, Reply>) -> Message
  ) -> ReplyToken<Reply>.Conclusion {
    // Held by the message alone when this returns: its end is to say that nobody answers.
    let token = ReplyToken<Reply>()
    if self.takeIdleTurn() {
      do {
        try self.receive(message(Ask(request, token)))
      } catch {
        self.failed(error, at: token)
      }
      self.giveUpTurn()
    } else {
      self.post(message(Ask(request, token)), asking: token)
    }
    return token.conclude(in: self.runtime)
  }

  @usableFromInline final func post(_ message: Message, asking token: AnyReplyToken) {
    if let error = self.post(TypedLetter(message, .ask(token)), waits: true) { token.refuse(AskError(error)) }
  }
}

/// An actor whose handler is not async.
final class SyncCell<Behaviour: ActorBehaviour>: MessageCell<Behaviour.Message>, @unchecked Sendable {
  // Unchecked: the state is made, used and dropped by whoever has the turn, and the turn is passed on under the lock.
  private let make: @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  private var behaviour: Behaviour?

  init(
    number: UInt64, runtime: ActorRuntime, parent: Cell?, options: ActorOptions,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) {
    self.make = make
    super.init(number: number, runtime: runtime, parent: parent, options: options)
  }

  override func makeState() throws { self.behaviour = try self.make(ActorContext(cell: self)) }

  override func dropState(_ reason: EndReason) {
    self.behaviour?.end(reason)
    self.behaviour = nil
  }

  override func receive(_ message: Behaviour.Message) throws {
    try self.behaviour?.receive(message, in: ActorContext(cell: self))
  }
}

/// An actor whose handler is async.
final class AsyncCell<Behaviour: AsyncActorBehaviour>: MessageCell<Behaviour.Message>, @unchecked Sendable {
  // Unchecked: the state is made, used and dropped by whoever has the turn, and the turn is passed on under the lock.
  private let make: @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  private var behaviour: Behaviour?

  init(
    number: UInt64, runtime: ActorRuntime, parent: Cell?, options: ActorOptions,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) {
    self.make = make
    super.init(number: number, runtime: runtime, parent: parent, options: options)
  }

  override var isAsync: Bool { true }

  override func makeState() throws { self.behaviour = try self.make(ActorContext(cell: self)) }

  override func dropState(_ reason: EndReason) {
    self.behaviour?.end(reason)
    self.behaviour = nil
  }

  override func receiveAsync(_ message: Behaviour.Message) async throws {
    try await self.behaviour?.receive(message, in: ActorContext(cell: self))
  }
}
