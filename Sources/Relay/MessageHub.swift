// SPDX-License-Identifier: Apache-2.0

internal import Actors
private import Synchronization
package import Trust

/// The services that programs host at one process: who hosts which, and messages on their way there.
///
/// Each program is an actor, in a group for each service that it hosts. Whoever makes a hub ends it with ``end()``.
package final class MessageHub: Sendable {
  private struct State {
    var groups: [Service: ActorGroup<ProgramMessage>] = [:]
    /// How many programs each principal has attached.
    var counts: [TreePath: Int] = [:]
    var programs: [ObjectIdentifier: Program] = [:]
    var hasEnded = false
    /// Of those who wait for the end.
    var waiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
    var lastWaiter: UInt64 = 0
  }

  /// The directory that the process's credential lies in: what the services are known by.
  package let scope: TreePath
  private let runtime: ActorRuntime
  private let state = Mutex(State())

  /// - Parameter process: whose credential it is.
  package init(process: TreePath) {
    self.scope = process.parent ?? .root
    self.runtime = ActorRuntime(process: process.description)
  }

  /// Ends all programs, and returns when nothing is under way any more.
  package func end() async {
    let (programs, waiters) = self.state.withLock { state in
      state.hasEnded = true
      defer { state.waiters = [:] }
      return (Array(state.programs.values), Array(state.waiters.values))
    }
    for program in programs { program.end() }
    for waiter in waiters { waiter.resume() }
    await self.runtime.shutdown()
  }

  /// Returns when the hub ends, or the task is cancelled.
  package func ended() async {
    let number = self.state.withLock { state in
      state.lastWaiter += 1
      return state.lastWaiter
    }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let isOver = self.state.withLock { state in
          if state.hasEnded || Task.isCancelled { return true }
          state.waiters[number] = continuation
          return false
        }
        if isOver { continuation.resume() }
      }
    } onCancel: {
      self.state.withLock { $0.waiters.removeValue(forKey: number) }?.resume()
    }
  }

  /// The services that are hosted now, by name.
  package var services: [Service] { self.state.withLock { $0.groups.keys.sorted() } }

  // MARK: Programs

  /// Hosts services for as long as `body` runs.
  ///
  /// - Parameters:
  ///   - concurrency: calls that the program works on at a time.
  ///   - hand: hands one message over; what it throws ends the program.
  ///   - body: is given what takes replies; to be left when ``ended()`` returns.
  /// - Throws: `limitReached`; `stopped` when the hub has ended.
  package func attaching<Result>(
    _ services: [Service], of principal: TreePath, concurrency: Int,
    hand: @escaping @Sendable (IncomingMessage, UInt64) async throws -> Void,
    _ body: (Attachment) async throws -> Result
  ) async throws -> Result {
    let program = Program(concurrency: concurrency, hand: hand)
    try self.begin(program, of: principal)
    defer { self.end(program, of: principal) }
    let options = ActorOptions(mailboxCountMax: MessageLimits.waitingCountMax, waitingSenderCountMax: 1)
    let actor: ActorRef<ProgramMessage>
    do { actor = try self.runtime.spawn(options, make: { _ in ProgramActor(program: program) }) } catch {
      throw MessageError.stopped
    }
    try self.join(actor, services)
    defer {
      self.leave(actor, services)
      actor.stop()
    }
    return try await body(Attachment(program: program))
  }

  private func begin(_ program: Program, of principal: TreePath) throws(MessageError) {
    let refusal = self.state.withLock { state -> MessageError? in
      guard !state.hasEnded else { return .stopped }
      guard state.programs.count < MessageLimits.programsMax else {
        return .limitReached("programs", limit: MessageLimits.programsMax)
      }
      guard state.counts[principal, default: 0] < MessageLimits.programsOfPrincipalMax else {
        return .limitReached("programs", limit: MessageLimits.programsOfPrincipalMax)
      }
      state.counts[principal, default: 0] += 1
      state.programs[ObjectIdentifier(program)] = program
      return nil
    }
    if let refusal { throw refusal }
  }

  private func end(_ program: Program, of principal: TreePath) {
    self.state.withLock { state in
      state.programs[ObjectIdentifier(program)] = nil
      let count = state.counts[principal, default: 0] - 1
      state.counts[principal] = count > 0 ? count : nil
    }
    program.end()
  }

  private func join(_ actor: ActorRef<ProgramMessage>, _ services: [Service]) throws(MessageError) {
    let isFull = self.state.withLock { state -> Bool in
      for service in services {
        let group = state.groups[service] ?? ActorGroup(in: self.runtime)
        do { try group.join(actor) } catch { return true }
        state.groups[service] = group
      }
      return false
    }
    if isFull {
      self.leave(actor, services)
      throw .limitReached("programs", limit: self.runtime.limits.memberCountMax)
    }
  }

  private func leave(_ actor: ActorRef<ProgramMessage>, _ services: [Service]) {
    self.state.withLock { state in
      for service in services {
        state.groups[service]?.leave(actor)
        if state.groups[service]?.members.isEmpty ?? false { state.groups[service] = nil }
      }
    }
  }

  // MARK: Messages

  private func group(_ service: Service, in scope: TreePath) throws(MessageError) -> ActorGroup<ProgramMessage> {
    guard scope == self.scope, let group = self.state.withLock({ $0.groups[service] }) else { throw .noSuchService }
    return group
  }

  /// Asks a service, and waits for the answer.
  ///
  /// - Parameter scope: of another directory there is nothing here.
  /// - Throws: `MessageError`; `CancellationError`.
  package func call(
    _ service: Service, in scope: TreePath, from sender: TreePath, _ payload: MessagePayload, within patience: Duration
  ) async throws -> MessagePayload {
    let group = try self.group(service, in: scope)
    let message = IncomingMessage(
      service: service, sender: sender, payload: payload, deadline: .now + patience)
    let reply: ProgramReply
    do throws(AskError) { reply = try await group.ask(message, within: patience, as: ProgramMessage.call) } catch {
      throw Self.error(error)
    }
    switch reply {
    case .payload(let payload): return payload
    case .refusal(let why): throw MessageError.refused(why)
    }
  }

  private static func error(_ error: AskError) -> any Error {
    switch error {
    case .stopped, .failed, .unanswered: MessageError.stopped
    case .expired: MessageError.expired
    case .cancelled: CancellationError()
    case .mailboxFull: MessageError.mailboxFull
    case .noMember: MessageError.noSuchService
    case .refused: MessageError.refused("")
    }
  }

  /// Tells a service something: it waits there when this returns.
  ///
  /// - Parameter lifetime: for how long it is of use; nil for as long as it takes.
  package func send(
    _ service: Service, in scope: TreePath, from sender: TreePath, _ payload: MessagePayload, lifetime: Duration?
  ) throws(MessageError) {
    let message = IncomingMessage(
      service: service, sender: sender, payload: payload, deadline: lifetime.map { .now + $0 })
    switch try self.group(service, in: scope).offer(.tell(message)) {
    case .accepted: return
    case .full: throw .mailboxFull
    case .stopped: throw .noSuchService
    }
  }
}

/// A program, as seen from its stream.
package struct Attachment: Sendable {
  fileprivate let program: Program

  /// Takes a reply. One that nobody waits for is ignored.
  package func reply(_ reply: ProgramReply, to call: UInt64) { self.program.reply(reply, to: call) }
}
