// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Actors of one process: who there is, and how they live.
///
/// Whoever makes a runtime ends it with `shutdown()`: actors hold it, and it holds them.
@usableFromInline package final class ActorRuntime: Sendable {
  /// This process, whatever that means to others.
  package let process: String
  /// Drawn at random at each start, so that an address of an actor from before leads nowhere. Never zero.
  package let incarnation: UInt64
  package let limits: ActorLimits
  package let deadLetters: DeadLetters

  let clock: any ActorClock
  let executor: (any TaskExecutor)?
  let timers: TimerDriver
  let registry = Mutex(ActorRegistry())
  private let random: Mutex<ActorRandom>

  /// - Parameters:
  ///   - process: the process's path; opaque here.
  ///   - incarnation: nil to draw one.
  ///   - executor: where handlers and timers run; nil for the threads that Swift has for that.
  ///   - seed: for choices between members of a group; nil to draw one.
  package init(
    process: String, incarnation: UInt64? = nil, limits: ActorLimits = ActorLimits(),
    clock: any ActorClock = SystemActorClock(), executor: (any TaskExecutor)? = nil, seed: UInt64? = nil
  ) {
    self.process = process
    self.incarnation = incarnation ?? .random(in: 1 ... .max)
    self.limits = limits
    self.deadLetters = DeadLetters(countMax: limits.deadLetterCountMax)
    self.clock = clock
    self.executor = executor
    self.timers = TimerDriver(clock: clock, executor: executor)
    self.random = Mutex(ActorRandom(seed: seed ?? .random(in: 0 ... .max)))
  }

  func address(of number: UInt64) -> ActorAddress {
    ActorAddress(trusted: self.process, incarnation: self.incarnation, number: number)
  }

  /// For a generator of somebody else's.
  func newSeed() -> UInt64 { self.random.withLock { $0.next() } }

  // MARK: Making actors

  /// Makes an actor.
  ///
  /// - Parameters:
  ///   - name: by which it can be found while it lives; 1 to 255 bytes without `/` and NUL.
  ///   - codec: how it reads envelopes; without one they are refused.
  ///   - make: makes its state: now, and again for each restart.
  package func spawn<Behaviour: ActorBehaviour>(
    named name: String? = nil, _ options: ActorOptions = .standard, codec: EnvelopeCodec<Behaviour.Message>? = nil,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) throws(SpawnError) -> ActorRef<Behaviour.Message> {
    try self.spawn(named: name, options, codec: codec, parent: nil, make: make)
  }

  /// Makes an actor whose handler is async.
  ///
  /// - Parameters: as above.
  package func spawn<Behaviour: AsyncActorBehaviour>(
    named name: String? = nil, _ options: ActorOptions = .standard, codec: EnvelopeCodec<Behaviour.Message>? = nil,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) throws(SpawnError) -> ActorRef<Behaviour.Message> {
    try self.spawn(named: name, options, codec: codec, parent: nil, make: make)
  }

  func spawn<Behaviour: ActorBehaviour>(
    named name: String?, _ options: ActorOptions, codec: EnvelopeCodec<Behaviour.Message>? = nil, parent: Cell?,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) throws(SpawnError) -> ActorRef<Behaviour.Message> {
    let number = self.registry.withLock { $0.newNumber() }
    let cell = SyncCell(number: number, runtime: self, parent: parent, options: options, make: make)
    return try self.start(cell, named: name, codec: codec)
  }

  func spawn<Behaviour: AsyncActorBehaviour>(
    named name: String?, _ options: ActorOptions, codec: EnvelopeCodec<Behaviour.Message>? = nil, parent: Cell?,
    make: @escaping @Sendable (ActorContext<Behaviour.Message>) throws -> sending Behaviour
  ) throws(SpawnError) -> ActorRef<Behaviour.Message> {
    let number = self.registry.withLock { $0.newNumber() }
    let cell = AsyncCell(number: number, runtime: self, parent: parent, options: options, make: make)
    return try self.start(cell, named: name, codec: codec)
  }

  private func start<Message: Sendable>(
    _ cell: MessageCell<Message>, named name: String?, codec: EnvelopeCodec<Message>?
  ) throws(SpawnError) -> ActorRef<Message> {
    let ref = ActorRef(cell: cell)
    if let name {
      guard Self.isName(name) else { throw .nameInvalid }
      cell.state.withLock { $0.ensureRare().name = name }
    }
    let inbox = codec.map { codec in EnvelopeInbox(to: ref, by: codec) }
    // A closure can not say what it throws under a lock whose function does not ask; so the error comes as a value.
    let refusal = self.registry.withLock { registry -> SpawnError? in
      do throws(SpawnError) {
        try registry.add(cell, name: name, inbox: inbox, countMax: self.limits.actorCountMax)
        return nil
      } catch {
        return error
      }
    }
    if let refusal { throw refusal }
    // From here on the actor can be found. It has its turn taken until its state is made.
    if let parent = cell.parent, !parent.state.withLock({ $0.addChild(cell) }) {
      cell.stop(.parentEnded)
      cell.end()
      throw .parentEnded
    }
    do {
      try cell.makeState()
    } catch {
      let failure = ActorFailure(error)
      cell.stop(.failed(failure))
      cell.end()
      throw .failed(failure)
    }
    cell.giveUpTurn()
    return ref
  }

  private static func isName(_ name: String) -> Bool {
    (1...ActorLimits.nameByteCountMax).contains(name.utf8.count) && !name.utf8.contains(UInt8(ascii: "/"))
      && !name.utf8.contains(0)
  }

  // MARK: Finding actors

  /// How many there are, those included that are about to end.
  package var actorCount: Int { self.registry.withLock { $0.count } }

  /// The living actor with that name.
  package func actor(named name: String) -> AnyActorRef? {
    self.registry.withLock { $0.cell(named: name) }.map(AnyActorRef.init(cell:))
  }

  /// The living actor with that name, if it takes such messages.
  package func actor<Message: Sendable>(named name: String, taking type: Message.Type) -> ActorRef<Message>? {
    self.actor(named: name)?.taking(type)
  }

  /// The living actor with that address.
  package func actor(at address: ActorAddress) -> AnyActorRef? {
    guard address.process == self.process, address.incarnation == self.incarnation else { return nil }
    return self.registry.withLock { $0.cell(address.number) }.map(AnyActorRef.init(cell:))
  }

  // MARK: The end

  /// Ends all actors, and returns when they have ended. No actor can be made from the beginning of this on. It waits
  /// for handlers that do not return.
  package func shutdown() async {
    let waiter = EndWaiter()
    let (cells, waiters) = self.registry.withLock { $0.close(waiter) }
    for cell in cells { cell.stop(.shutDown) }
    for waiter in waiters { waiter.hear(.shutDown) }
    // Also when the caller is cancelled: what was begun is ended.
    await waiter.uncancelledReason()
    await self.timers.close()
  }
}

/// SplitMix64: the same seed gives the same choices.
struct ActorRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(seed: UInt64) { self.state = seed }

  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = self.state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
