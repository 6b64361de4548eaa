// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What an actor can do besides handling a message. May be kept: after the actor's end, nothing of it has an effect.
package struct ActorContext<Message: Sendable>: Sendable {
  let cell: MessageCell<Message>

  package var runtime: ActorRuntime { self.cell.runtime }
  package var ref: ActorRef<Message> { ActorRef(cell: self.cell) }

  /// Ends this actor after the message that it handles, before all others.
  package func stop() { self.cell.stop(.finished) }

  /// Makes a child: it ends before this actor does, and when this one begins again.
  package func spawn<Behaviour: ActorBehaviour>(
    named name: String? = nil, _ options: ActorOptions = .standard,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) throws(SpawnError) -> ActorRef<Behaviour.Message> {
    try self.runtime.spawn(named: name, options, parent: self.cell, make: make)
  }

  /// Makes a child: it ends before this actor does, and when this one begins again.
  package func spawn<Behaviour: AsyncActorBehaviour>(
    named name: String? = nil, _ options: ActorOptions = .standard,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) throws(SpawnError) -> ActorRef<Behaviour.Message> {
    try self.runtime.spawn(named: name, options, parent: self.cell, make: make)
  }

  /// Hears of the other actor's end, once, by a message: after all that this actor got from it before; soon, if it has
  /// ended already. The watch ends with this actor's state.
  ///
  /// - Parameter notice: makes the message. It is called on any thread.
  @discardableResult
  package func watch(
    _ other: AnyActorRef, as notice: @escaping @Sendable (ActorEnd) -> Message
  ) throws(WatchError) -> Watch {
    try self.watch(other.cell, at: other.address, notice)
  }

  /// The same for an actor of this runtime whose address is all that is known. That of none has the reason
  /// `EndReason.noSuchActor`.
  @discardableResult
  package func watch(
    _ address: ActorAddress, as notice: @escaping @Sendable (ActorEnd) -> Message
  ) throws(WatchError) -> Watch {
    try self.watch(self.runtime.actor(at: address)?.cell, at: address, notice)
  }

  private func watch(
    _ watched: Cell?, at address: ActorAddress, _ notice: @escaping @Sendable (ActorEnd) -> Message
  ) throws(WatchError) -> Watch {
    let watch = Watch(watcher: self.cell, watched: watched) { reason, watch in
      TypedLetter(notice(ActorEnd(address: address, reason: reason)), .notice(watch))
    }
    try self.cell.remember(watch)
    if let watched { watched.observe(watch) } else { watch.hear(.noSuchActor) }
    return watch
  }
}
