// SPDX-License-Identifier: Apache-2.0

/// An actor's state, and what it does with messages: one at a time.
///
/// `receive` is not async, so it should not take long: whoever asks an actor that is idle runs it on its own thread.
package protocol ActorBehaviour<Message> {
  associatedtype Message: Sendable

  /// Handles one message. What it throws is a failure: the actor's `Supervision` says what happens then.
  mutating func receive(_ message: Message, in context: ActorContext<Message>) throws

  /// The last that this state does, when the actor ends, or begins again with another state. Its children have ended
  /// before the first, and are stopped after the second.
  mutating func end(_ reason: EndReason)
}

/// An actor's state, and what it does with messages: one at a time, also while it waits for something.
package protocol AsyncActorBehaviour<Message> {
  associatedtype Message: Sendable

  /// Handles one message. What it throws is a failure. Its task is cancelled when the actor is stopped, and until it
  /// returns, the actor does not end.
  mutating func receive(_ message: Message, in context: ActorContext<Message>) async throws

  /// The last that this state does; see `ActorBehaviour`.
  mutating func end(_ reason: EndReason)
}

extension ActorBehaviour {
  package mutating func end(_ reason: EndReason) {}
}

extension AsyncActorBehaviour {
  package mutating func end(_ reason: EndReason) {}
}
